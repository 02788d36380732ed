"""Tracing: can the model follow a value from name to name, and gather all that share it?"""

from lmstrix.validators.tracing.validator import Tracing

__all__ = ["Tracing"]
