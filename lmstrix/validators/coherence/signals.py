"""What can be counted in a text, without a verdict."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise

import attrs

from lmstrix.validators.coherence.units import END, is_mark, script_of, units_of, words_of
from lmstrix.validators.coherence.words import CJ_LANGUAGES, LANGUAGES, Language, is_clash

__all__ = ["MOST_CHARACTERS", "Signals", "signals_of"]

MOST_CHARACTERS = 4000
"""Only the end of a longer text is read: failures grow towards the end, and time is bounded."""

NGRAM = 4
"""Words of which a repetition is counted; twice as many characters in Chinese and Japanese."""

LONGEST_PERIOD = 64
"""Units after which a loop may begin again."""

LEAST_LANGUAGE = 0.12
"""Share of common words from which on a text is taken to be in a language."""

_MOJIBAKE = re.compile(
    "[\u00c2\u00c3][\u0080-\u00bf\u20ac\u2122\u0152\u0153\u0178\u0161\u017e\u2013-\u2022]"
    "|[\u00e0-\u00ef][\u0080-\u00bf\u20ac\u2122\u0152\u0153\u0178\u0161\u017e\u2013-\u203a]{2}"
    "|[\ufffd\u0080-\u009f\ue000-\uf8ff]"
)
"""UTF-8 read as Latin-1 or Windows-1252, replacement characters, controls, private use."""


_ALPHABETS = frozenset({"Latin", "Cyrillic", "Greek", "Armenian"})


@attrs.frozen(kw_only=True)
class Signals:
    """Counts and shares, all of the end of the text; shares lie between 0 and 1."""

    characters: int = 0
    """Characters that are not white space."""
    words: int = 0
    """Words, and single characters of Chinese and Japanese."""
    compression: float = 0.0
    """Bytes over compressed bytes (zlib, level 9)."""
    cover: float = 0.0
    """Share of the words that lie in the longest run that repeats itself exactly."""
    rounds: float = 0.0
    """How often that run goes round."""
    repeated: float = 0.0
    """Share of the word n-grams that stood in the text before."""
    top_word: float = 0.0
    """Share of the commonest word."""
    letters: float = 0.0
    """Share of letters and digits."""
    solid: float = 0.0
    """Share of letters and digits, a run of the same mark counted once."""
    distinct_marks: int = 0
    garbled: float = 0.0
    """Share of the characters that are undecodable, or UTF-8 decoded as something else."""
    scripts: tuple[tuple[str, float], ...] = ()
    """Scripts with their share of the letters, the largest first."""
    switches: float = 0.0
    """Changes of script per word."""
    torn: int = 0
    """Changes of script within a word."""
    language: str = ""
    """The known language that it has most common words of; empty if it has few of any."""
    common: float = 0.0
    """Share of the common words of that language, or of the best one."""
    fluent: float = 1.0
    """Share of the Chinese characters, or of the hiragana, that lie in common strings."""
    punctuated: float = 0.0
    """Marks and line ends per word."""
    clashes: int = 0
    """Pairs of neighbours that the language forbids, and capitals in the wrong place."""

    @property
    def script(self) -> str:
        """The commonest script; an empty string where there are no letters."""
        return self.scripts[0][0] if self.scripts else ""


def signals_of(text: str) -> Signals:
    """Count everything in the last `MOST_CHARACTERS` of `text`."""
    text = "".join(c for c in text[-MOST_CHARACTERS:] if unicodedata.category(c) != "Cf")
    text = text.strip().rstrip("\ufffd")  # the limit may have cut a character
    characters = [c for c in text if not c.isspace()]
    if not characters:
        return Signals()
    units = units_of(text)
    words = words_of(units)
    solid = [c for c, run in groupby(characters) for c in ([c] if is_mark(c) else run)]
    data = " ".join(text.split()).encode("utf-8", "replace")
    cover, rounds = _loop(words)
    scripts = _scripts(characters)
    language, common = _language(words, scripts[0][0] if scripts else "")
    return Signals(
        characters=len(characters),
        words=len(words),
        compression=len(data) / len(zlib.compress(data, 9)),
        cover=cover,
        rounds=rounds,
        repeated=_repeated(words),
        top_word=max(Counter(words).values(), default=0) / max(1, len(words)),
        letters=sum(not is_mark(c) for c in characters) / len(characters),
        solid=sum(not is_mark(c) for c in solid) / len(solid),
        distinct_marks=len({c for c in characters if is_mark(c)}),
        garbled=sum(len(m) for m in _MOJIBAKE.findall(text)) / len(text),
        scripts=scripts,
        switches=_switches(characters) / max(1, len(words)),
        torn=_torn(text),
        language=language.name if language else "",
        common=common,
        fluent=_fluent(language, text) if language and language.strings else 1.0,
        punctuated=(len(units) - len(words)) / max(1, len(words)),
        clashes=_clashes(language, units) if language else 0,
    )


def _loop(words: Sequence[str]) -> tuple[float, float]:
    """Cover and rounds of the longest run that repeats itself with any period."""
    best, best_period = 0, 1
    for period in range(1, min(LONGEST_PERIOD, len(words) // 2) + 1):
        run = 0
        for i in range(period, len(words)):
            run = run + 1 if words[i] == words[i - period] else 0
            if run >= period and run + period > best:
                best, best_period = run + period, period
    return (best / len(words), best / best_period) if best else (0.0, 0.0)


def _repeated(words: Sequence[str]) -> float:
    """Share of n-grams that were there before."""
    n = NGRAM * 2 if words and all(len(w) == 1 for w in words[:8]) else NGRAM
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _scripts(characters: Sequence[str]) -> tuple[tuple[str, float], ...]:
    counts = Counter(s for c in characters if (s := script_of(c)))
    return tuple((script, n / counts.total()) for script, n in counts.most_common())


def _switches(characters: Sequence[str]) -> int:
    scripts = [s for c in characters if (s := script_of(c))]
    return sum(a != b for a, b in pairwise(scripts))


def _torn(text: str) -> int:
    """Neighbouring letters of two alphabets. Asian scripts may touch Latin letters."""
    scripts = [script_of(c) for c in text]
    return sum(a != b and a in _ALPHABETS and b in _ALPHABETS for a, b in pairwise(scripts))


def _language(words: Sequence[str], script: str) -> tuple[Language | None, float]:
    if not words:
        return None, 0.0
    if script == "CJ":
        letters = [w for w in words if script_of(w[0]) == "CJ"]
        kana = sum("\u3041" <= w <= "\u30ff" for w in letters) / len(letters)
        language = CJ_LANGUAGES["ja" if kana > 0.1 else "zh"]
        return language, sum(w in language.common for w in letters) / len(letters)
    if script not in {"Latin", ""}:
        return None, 0.0
    shares = [(sum(w in lang.common for w in words) / len(words), lang) for lang in LANGUAGES]
    share, language = max(shares, key=lambda pair: pair[0])
    return (language if share >= LEAST_LANGUAGE else None), share


def _fluent(language: Language, text: str) -> float:
    first, last = ("\u3041", "\u3096") if language.name == "ja" else ("\u4e00", "\u9fff")
    inside: set[int] = set()
    for string in language.strings:
        at = text.find(string)
        while at >= 0:
            inside.update(range(at, at + len(string)))
            at = text.find(string, at + 1)
    letters = [i for i, c in enumerate(text) if first <= c <= last]
    return sum(i in inside for i in letters) / max(1, len(letters))


def _clashes(language: Language, units: Sequence[str]) -> int:
    total = 0
    before = ""
    for first, second in pairwise(units):
        total += is_clash(language, first.casefold(), second.casefold()) or _is_misplaced(
            language, before, first, second
        )
        before = first
    return total


def _is_misplaced(language: Language, before: str, first: str, second: str) -> bool:
    """A capital common word in mid-sentence, or a small one at the beginning of a sentence."""
    if second.casefold() not in language.common or len(second) < 2:
        return False
    if second[0].isupper():
        small = second[1:].islower() and first.islower()
        return small and second.casefold() not in language.capitals
    return first == END and len(before) > 3 and before.isalpha()
