"""Values as people type them: token counts, durations, fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, ClassVar, TypeVar, cast

import click

from lmstrix.reports.words import NO_LEVELS

__all__ = [
    "DURATION",
    "NAMES",
    "SHARE",
    "SIZE",
    "TOKENS",
    "Duration",
    "FileSize",
    "Names",
    "Share",
    "TokenCount",
]

T = TypeVar("T")
_COUNT = re.compile(r"([0-9]+(?:_[0-9]+)*)([km]?)", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s?)?", re.ASCII | re.IGNORECASE)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?", re.ASCII | re.IGNORECASE)
_SHARE = re.compile(r"[0-9]*\.?[0-9]+|[0-9]+/[0-9]*[1-9][0-9]*", re.ASCII)
_DIGITS = 15
"""More digits than any sensible value has; keeps a typing slip from becoming a huge number."""


class _Typed(click.ParamType[T]):
    """Text that is parsed; what a program or a default gives as a value already stays."""

    values: ClassVar[type | tuple[type, ...]]

    def parse(self, text: str) -> T:
        """The value; raises `ValueError` with what is wrong, for a usage error."""
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:  # noqa: ANN401 - click's signature
        """The value; fails with a usage error."""
        if isinstance(value, self.values):
            return cast("T", value)
        try:
            return self.parse(str(value).strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TokenCount(_Typed[int]):
    """A positive number of tokens: ``8192``, ``8_192``, ``8k``, ``1m`` (k is 1024)."""

    name = "tokens"
    values = int

    def parse(self, text: str) -> int:
        """The number of tokens."""
        match = _COUNT.fullmatch(text)
        if match is None or len(match[1]) > _DIGITS:
            raise ValueError(f"{text!r} is not a number of tokens such as 8192, 8k or 128k.")
        count = int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]
        if count < 1:
            raise ValueError("the number of tokens must be positive.")
        return count


class FileSize(_Typed[int]):
    """A size in bytes: ``4g``, ``500MB``, ``1.5 GiB``. Units are decimal, as sizes are shown
    everywhere; those with an ``i`` are binary.
    """

    name = "size"
    values = int

    def parse(self, text: str) -> int:
        """The number of bytes."""
        match = _SIZE.fullmatch(text)
        if match is None or len(match[1]) > _DIGITS or (match[3] and not match[2]):
            raise ValueError(f"{text!r} is not a size such as 500m, 4g or 1.5GiB.")
        unit = 1024 if match[3] else 1000
        return round(float(match[1]) * unit ** " kmgt".index(match[2].lower() or " "))


class Duration(_Typed[float]):
    """A positive time in seconds: ``90``, ``90s``, ``10m``, ``1h30m``."""

    name = "duration"
    values = (int, float)

    def parse(self, text: str) -> float:
        """The number of seconds."""
        match = _DURATION.fullmatch(text)
        if not text or match is None or len(text) > _DIGITS:
            raise ValueError(f"{text!r} is not a duration such as 90, 90s, 10m or 1h30m.")
        hours, minutes, seconds = (int(group or 0) for group in match.groups())
        total = 3600 * hours + 60 * minutes + seconds
        if total < 1:
            raise ValueError("the duration must be at least one second.")
        return float(total)


class Share(_Typed[float]):
    """A part of one, above 0: ``0.85`` or ``1/64``."""

    name = "share"
    values = float

    def parse(self, text: str) -> float:
        """The number."""
        if _SHARE.fullmatch(text) is None or len(text) > 2 * _DIGITS:
            raise ValueError(f"{text!r} is not a number such as 0.85 or 1/64.")
        share = float(Fraction(text))
        if not 0 < share <= 1:
            raise ValueError("it must lie above 0 and be at most 1.")
        return share


class Names(_Typed[tuple[str, ...]]):
    """Names with commas between them, each once, or the word ``none`` for no name."""

    name = "names"
    values = tuple

    def parse(self, text: str) -> tuple[str, ...]:
        """The names."""
        words = [word.strip() for word in text.split(",")]
        if words == [NO_LEVELS]:
            return ()
        if not all(words):
            raise ValueError(f"{text!r} is not a list of names such as coherence,copy.")
        return tuple(dict.fromkeys(words))


NAMES = Names()
SIZE = FileSize()
TOKENS = TokenCount()
DURATION = Duration()
SHARE = Share()
