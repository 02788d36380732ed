"""Recall: does the model still know a fact from the head, the middle and the tail?

`grammar` writes the haystack, `needles` the facts, `document` lays both out in the model's
own tokens, `questions` asks, `judging` reads the reply, `validator` ties them together.
"""

from lmstrix.validators.recall.validator import Recall

__all__ = ["Recall"]
