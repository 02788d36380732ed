"""Axes: where a value lies on a drawing, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

__all__ = ["MOST_TOKENS", "Axis", "Tick", "length_axis", "share_axis", "short_tokens", "value_axis"]

MOST_TOKENS = 2**53
"""Longest length that is drawn, in tokens: beyond it numbers from a file make no sense."""
LOG_SPAN = 16
"""Where the longest length is more than this many times the shortest, an axis is logarithmic."""
SMALLEST = 1e-9
"""Below this a value is drawn as nought."""
_K = 1024


@attrs.frozen
class Tick:
    """A mark on an axis, and what is written beside it."""

    at: float
    label: str


@attrs.frozen
class Axis:
    """Values from `low` to `high` on a line from `start` to `end`, in drawing units."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """Where a value lies; one beyond an end lies at that end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def length_axis(lengths: Sequence[int], start: float, end: float, *, close: bool = False) -> Axis:
    """An axis that holds all `lengths`, which are positive and at least one; from nought, or
    logarithmic where they are far apart. With `close` it holds them and little else.
    """
    low, high = min(lengths), max(lengths)
    if close:
        return _close_axis(low, high, start, end)
    if high > LOG_SPAN * low:
        axis = Axis(low, high, start, end, logarithmic=True)
        powers = [2**n for n in range(math.ceil(math.log2(low)), int(math.log2(high)) + 1)]
        marks = powers[:: -(-len(powers) // 6)]
    else:
        axis = Axis(0, high, start, end)
        step = 2 ** max(0, math.ceil(math.log2(high / 6)))
        marks = list(range(0, high + 1, step))
    ticks = tuple(Tick(axis.at(mark), short_tokens(mark)) for mark in marks)
    return attrs.evolve(axis, ticks=ticks)


def _close_axis(low: int, high: int, start: float, end: float) -> Axis:
    room = max(1, (high - low) // 20)
    axis = Axis(low - room, high + room, start, end)
    step = 2 ** max(0, math.ceil(math.log2(max(1, high - low) / 4)))
    marks = range(-(-low // step) * step, high + 1, step)
    return attrs.evolve(axis, ticks=tuple(Tick(axis.at(m), short_tokens(m)) for m in marks))


def short_tokens(tokens: int) -> str:
    """Digits, or thousands of 1024 where that says the same.

    >>> short_tokens(768), short_tokens(8192), short_tokens(2**20)
    ('768', '8k', '1024k')
    """
    return str(tokens) if tokens % _K or not tokens else f"{tokens // _K}k"


def value_axis(highest: float, start: float, end: float) -> Axis:
    """An axis from nought to a round number that is at least `highest`."""
    highest = highest if highest > SMALLEST else 1.0
    step = _round_step(highest / 4)
    count = math.ceil(highest / step)
    axis = Axis(0, count * step, start, end)
    ticks = tuple(Tick(axis.at(n * step), f"{n * step:g}") for n in range(count + 1))
    return attrs.evolve(axis, ticks=ticks)


def _round_step(about: float) -> float:
    """1, 2 or 5 times a power of ten, at least `about`."""
    power = 10.0 ** math.floor(math.log10(about))
    return next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= about * 0.999)


def share_axis(start: float, end: float) -> Axis:
    """An axis from nought to 100 %."""
    axis = Axis(0, 1, start, end)
    return attrs.evolve(axis, ticks=tuple(Tick(axis.at(n / 4), f"{25 * n} %") for n in range(5)))
