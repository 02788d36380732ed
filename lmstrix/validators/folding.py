"""Makes texts comparable: what looks the same is the same."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["HYPHENS", "fold", "words_of"]

HYPHENS = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2043\u2212\ufe58\ufe63\uff0d"
"""All that is written for a hyphen."""

_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u034f\u180e\u200b\u200c\u200d\u2060\ufeff"))
_ALIKE = str.maketrans(
    # Cyrillic, then Greek capitals and small letters, that look like Latin ones
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0423\u0406\u0408\u0405"
    "\u0430\u0435\u043e\u0440\u0441\u0445\u0443\u0456\u0458\u0455"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
    "\u03b1\u03bf\u03bd",
    "ABEKMHOPCTXYIJSaeopcxyijsABEZHIKMNOPTYXaov",
)
_WORDS = re.compile(r"[^\W_]+")


def fold(text: str) -> str:
    """`text` with one form for each look: compatibility forms (NFKC), invisible characters,
    digits of other scripts, Cyrillic and Greek letters that look Latin, all hyphens, case.
    """
    plain = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    plain = "".join(_as_ascii_digit(c) for c in plain).translate(_ALIKE)
    return "".join("-" if c in HYPHENS else c for c in plain).casefold()


def words_of(folded: str) -> list[str]:
    """Runs of letters and digits."""
    return _WORDS.findall(folded)


def _as_ascii_digit(character: str) -> str:
    if character.isascii():
        return character
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)
