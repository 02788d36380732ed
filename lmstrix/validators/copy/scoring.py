"""The share of a few words that a reply copies."""

from __future__ import annotations

from itertools import takewhile

from lmstrix.models import Question, Reply
from lmstrix.validators.folding import fold, words_of
from lmstrix.validators.judging import answer_of

__all__ = ["PASS_SCORE", "copied_share", "copy_score"]

PASS_SCORE = 0.5
"""A reply passes that copies the first two of four words."""


def copy_score(question: Question, reply: Reply) -> float:
    """How many of the words that follow are copied before the first slip, from 0 to 1.

    Averaged over questions it is the cell of a map.
    """
    return copied_share(question.expected, answer_of(reply) or "")


def copied_share(expected: str, text: str) -> float:
    """Leading words of `text` that are those of `expected`, over the words of `expected`.

    Both are compared without case, punctuation and look-alikes. A word that follows the first
    slip says nothing: the model goes on from its own words then, not from the text.
    """
    wanted, written = words_of(fold(expected)), words_of(fold(text))
    right = takewhile(lambda pair: pair[0] == pair[1], zip(wanted, written, strict=False))
    return sum(1 for _ in right) / len(wanted) if wanted else 0.0
