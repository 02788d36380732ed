"""Values as people type them: token counts, durations, fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any, cast

import click

from lmstrix.reports.text import NO_LEVELS

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

_COUNT = re.compile(r"([0-9]+(?:_[0-9]+)*)([km]?)", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s?)?", re.ASCII | re.IGNORECASE)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?", re.ASCII | re.IGNORECASE)
_SHARE = re.compile(r"[0-9]*\.?[0-9]+|[0-9]+/[0-9]*[1-9][0-9]*", re.ASCII)
_DIGITS = 15
"""More digits than any sensible value has; keeps a typing slip from becoming a huge number."""


class TokenCount(click.ParamType[int]):
    """A positive number of tokens: ``8192``, ``8_192``, ``8k``, ``1m`` (k is 1024)."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401 - click's signature
        """The number of tokens; fails with a usage error."""
        if isinstance(value, int):
            return value
        match = _COUNT.fullmatch(str(value).strip())
        if match is None or len(match[1]) > _DIGITS:
            self.fail(f"{value!r} is not a number of tokens such as 8192, 8k or 128k.", param, ctx)
        count = int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]
        if count < 1:
            self.fail("the number of tokens must be positive.", param, ctx)
        return count


class FileSize(click.ParamType[int]):
    """A size in bytes: ``4g``, ``500MB``, ``1.5 GiB``. Units are decimal, as sizes are shown
    everywhere; those with an ``i`` are binary.
    """

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ANN401 - click's signature
        """The number of bytes; fails with a usage error."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(str(value).strip())
        if match is None or len(match[1]) > _DIGITS or (match[3] and not match[2]):
            self.fail(f"{value!r} is not a size such as 500m, 4g or 1.5GiB.", param, ctx)
        unit = 1024 if match[3] else 1000
        return round(float(match[1]) * unit ** " kmgt".index(match[2].lower() or " "))


class Duration(click.ParamType[float]):
    """A positive time in seconds: ``90``, ``90s``, ``10m``, ``1h30m``."""

    name = "duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """The number of seconds; fails with a usage error."""
        if isinstance(value, (int, float)):
            return float(value)
        text = str(value).strip()
        match = _DURATION.fullmatch(text)
        if not text or match is None or len(text) > _DIGITS:
            self.fail(f"{value!r} is not a duration such as 90, 90s, 10m or 1h30m.", param, ctx)
        hours, minutes, seconds = (int(group or 0) for group in match.groups())
        total = 3600 * hours + 60 * minutes + seconds
        if total < 1:
            self.fail("the duration must be at least one second.", param, ctx)
        return float(total)


class Share(click.ParamType[float]):
    """A part of one: ``0.85`` or ``1/64``."""

    name = "share"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """The number; fails with a usage error outside (0, 1]."""
        text = str(value).strip()
        if _SHARE.fullmatch(text) is None or len(text) > 2 * _DIGITS:
            self.fail(f"{value!r} is not a number such as 0.85 or 1/64.", param, ctx)
        share = float(Fraction(text))
        if not 0 < share <= 1:
            self.fail("it must lie above 0 and be at most 1.", param, ctx)
        return share


class Names(click.ParamType[tuple[str, ...]]):
    """Names with commas between them, or the word ``none`` for no name."""

    name = "names"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[str, ...]:
        """The names, each once; fails with a usage error for an empty one."""
        if isinstance(value, tuple):
            return cast("tuple[str, ...]", value)
        words = [word.strip() for word in str(value).split(",")]
        if words == [NO_LEVELS]:
            return ()
        if not all(words):
            self.fail(f"{value!r} is not a list of names such as coherence,copy.", param, ctx)
        return tuple(dict.fromkeys(words))


NAMES = Names()
SIZE = FileSize()
TOKENS = TokenCount()
DURATION = Duration()
SHARE = Share()
