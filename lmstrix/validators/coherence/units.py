"""Text as units: words where there are spaces, characters where there are none.

Scripts are told by Unicode name. Han and kana are one group (``CJ``), as Japanese mixes them
in every sentence.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import groupby

__all__ = ["END", "OPEN", "is_mark", "script_of", "units_of", "words_of"]

LONGEST_WORD = 32
"""A longer run of letters is taken apart into its characters, so that loops within it show."""

END = "."
"""Stands for the end of a sentence."""
OPEN = "|"
"""Stands for any other mark or line break between words."""

_CJ = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH", "IDEOGRAPHIC"})
_SHARED = frozenset({"COMBINING", "MODIFIER", "FEMININE", "MASCULINE", "MICRO", "FULLWIDTH", ""})
_ENDS = frozenset(".!?\u2026")
_APOSTROPHES = frozenset("'\u2019")


@lru_cache(maxsize=4096)
def script_of(character: str) -> str:
    """``Latin``, ``CJ``, ``Cyrillic``...; an empty string for what belongs to none."""
    if unicodedata.category(character)[0] not in "LM":
        return ""
    name = unicodedata.name(character, "").split(" ")[0]
    if name in _CJ:
        return "CJ"
    return "" if name in _SHARED else name.title()


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """``w`` part of a word, ``c`` a word of its own, ``n`` line end, ``s`` space, ``m`` mark."""
    if character == "\n":
        return "n"
    if character.isspace():
        return "s"
    if unicodedata.category(character)[0] in "LMN":
        return "c" if script_of(character) == "CJ" else "w"
    return "'" if character in _APOSTROPHES else "m"


def is_mark(character: str) -> bool:
    """Whether it is neither letter nor digit nor white space."""
    return _kind(character) in "m'"


def units_of(text: str) -> list[str]:
    """Words in order, a character each for Han and kana; other marks as `END` or `OPEN`.

    An apostrophe ends a word and stands for nothing; CJ punctuation is kept as it is.
    """
    units: list[str] = []
    for kind, group in groupby(text, key=_kind):
        piece = "".join(group)
        if kind == "w" and len(piece) <= LONGEST_WORD:
            units.append(piece)
        elif kind in "wc":
            units.extend(piece)
        elif kind == "n":
            units.append(OPEN)
        elif kind == "m":
            units.extend(_mark(c) for c in piece)
    return units


def words_of(units: list[str]) -> list[str]:
    """The units without marks, lower case."""
    return [u.casefold() for u in units if not is_mark(u[0])]


def _mark(character: str) -> str:
    if character in _ENDS:
        return END
    return character if "\u3000" <= character <= "\u303f" or character > "\uff00" else OPEN
