"""Recall: does the model still know a fact from the head, the middle and the tail?

`questions` asks about the needles of the haystack, `validator` gives the parts a name.
"""

from lmstrix.validators.recall.validator import Recall

__all__ = ["Recall"]
