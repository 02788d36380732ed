"""Crowd: can the model tell one fact from many that are alike but for a name?"""

from lmstrix.validators.crowd.validator import Crowd

__all__ = ["Crowd"]
