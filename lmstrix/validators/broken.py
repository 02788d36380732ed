"""Is a short reply broken language: a loop, salad, symbols?"""

from __future__ import annotations

import re

from lmstrix.validators.coherence.short import looks_broken
from lmstrix.validators.coherence.signals import signals_of
from lmstrix.validators.folding import fold, words_of

__all__ = ["is_broken"]

SALAD_WORDS = 10
"""So many words without a mark between them are cut off, or salad."""

_MARK = re.compile(r"[.,;:!?]")


def is_broken(text: str) -> bool:
    """Whether `text`, a reply of a few tokens and no right answer, is no language.

    What the coherence classifier is certain of; symbols; and many words without any punctuation
    among which two neighbours are impossible. The last catches 87 % of 16 words drawn at
    random from the haystack, and 0 to 5 % of as many words of prose, in which there mostly is
    some punctuation. A wrong answer that is called broken fails its length all the same: only
    the cause that is reported depends on it.
    """
    words = words_of(fold(text))
    if not words:
        return bool(text.strip())
    return looks_broken(text) is not None or _is_symbols(text) or _is_salad(words, text)


def _is_salad(words: list[str], text: str) -> bool:
    return len(words) >= SALAD_WORDS and not _MARK.search(text) and signals_of(text).clashes > 0


def _is_symbols(text: str) -> bool:
    """Whether most of what is not white space is neither letter nor digit."""
    solid = [c for c in text if not c.isspace()]
    return sum(c.isalnum() for c in solid) * 2 < len(solid)
