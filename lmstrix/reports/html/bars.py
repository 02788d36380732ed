"""The drawing of declared, loadable and true context as bars."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lmstrix.models import ContextReport
from lmstrix.reports.html.scales import MOST_TOKENS

__all__ = ["NumberBar", "NumberBars", "number_bars"]

LONGEST = 100.0


@attrs.frozen
class NumberBar:
    """One number as a bar, in percent of the longest."""

    name: str
    width: float
    value: str


@attrs.frozen
class NumberBars:
    """The numbers of one report."""

    bars: tuple[NumberBar, ...]
    text: str


def number_bars(reports: Sequence[ContextReport]) -> tuple[NumberBars, ...]:
    """The bars of each report, all on one scale, so that they can be compared."""
    numbers = [
        (
            ("declared", report.declared_context),
            ("loadable", report.loadable_context),
            ("true", report.true_context),
        )
        for report in reports
    ]
    longest = max((min(n or 0, MOST_TOKENS) for row in numbers for _, n in row), default=0)
    return tuple(_bars(row, longest) for row in numbers)


def _bars(row: Sequence[tuple[str, int | None]], longest: int) -> NumberBars:
    bars = tuple(
        NumberBar(name, _width(tokens, longest), "unknown" if tokens is None else str(tokens))
        for name, tokens in row
    )
    return NumberBars(bars, ", ".join(f"{bar.name} {bar.value}" for bar in bars))


def _width(tokens: int | None, longest: int) -> float:
    """At least a hair for what is more than nothing."""
    if not tokens or tokens < 0 or not longest:
        return 0.0
    return round(max(0.5, LONGEST * min(tokens, longest) / longest), 2)
