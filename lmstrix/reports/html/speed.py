"""The drawings of speed by length: tokens a second, and the time to first token."""

from __future__ import annotations

import attrs

from lmstrix.models import ContextReport, CurvePoint
from lmstrix.reports.html.canvas import BOTTOM, LEFT, RIGHT, TOP, Line, drawn, path_through
from lmstrix.reports.html.scales import Axis, length_axis, value_axis
from lmstrix.reports.quantities import say_seconds

__all__ = ["Mark", "SpeedPlot", "plot_speed", "plot_wait"]


MOST = 1e9
"""Largest value that is drawn: thirty years in seconds."""


@attrs.frozen
class Mark:
    """One measured value."""

    x: float
    y: float
    label: str


@attrs.frozen
class SpeedPlot:
    """Values by length, and the limit that was wished for."""

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    path: str
    wish: Line | None
    title: str
    caption: str
    text: str


def plot_speed(report: ContextReport) -> SpeedPlot | None:
    """Generated tokens a second by length; None where nothing is known."""
    values = [
        (p.length_tokens, p.tokens_per_second, f"{p.tokens_per_second:.1f} tokens a second")
        for p in drawn(report.curve)
        if p.tokens_per_second is not None
    ]
    wish = report.usable.min_tokens_per_second if report.usable else None
    return _plot(
        report, values, wish, "Generation speed", "Tokens a second, the median at each length."
    )


def plot_wait(report: ContextReport) -> SpeedPlot | None:
    """Time to first token by length; None where nothing is known.

    Of a fresh prompt of that length where that is known; one kind of time in one drawing.
    """
    points = drawn(report.curve)
    fresh = any(p.full_ttft_s is not None for p in points)
    values = [
        (p.length_tokens, wait, say_seconds(wait))
        for p in points
        if (wait := _wait(p, fresh=fresh)) is not None
    ]
    caption = (
        "Seconds until the first token of a fresh prompt of that length: expected, from what"
        " reading its parts took."
        if fresh
        else "Seconds until the first token, the longest at each length; what was read before"
        " may have been cached."
    )
    wish = report.usable.max_ttft_s if report.usable else None
    return _plot(report, values, wish, "Time to first token", caption)


def _wait(point: CurvePoint, *, fresh: bool) -> float | None:
    return point.full_ttft_s if fresh else point.ttft_s


def _plot(
    report: ContextReport,
    values: list[tuple[int, float, str]],
    wish: float | None,
    title: str,
    caption: str,
) -> SpeedPlot | None:
    values = [value for value in values if 0 <= value[1] <= MOST]
    wish = wish if wish is not None and 0 <= wish <= MOST else None
    if not values:
        return None
    # The same axis as that of right answers, so that the drawings can be compared.
    x = length_axis([point.length_tokens for point in drawn(report.curve)], LEFT, RIGHT)
    y = value_axis(max([v for _, v, _ in values] + [wish or 0.0]), BOTTOM, TOP)
    marks = tuple(Mark(x.at(n), y.at(v), f"{n} tokens: {words}") for n, v, words in values)
    return SpeedPlot(
        x=x,
        y=y,
        marks=marks,
        path=path_through([(mark.x, mark.y) for mark in marks]),
        wish=None if wish is None else Line(y.at(wish), f"asked for {wish:g}"),
        title=title,
        caption=caption,
        text=f"{title} by length: " + "; ".join(mark.label for mark in marks),
    )
