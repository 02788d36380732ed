"""The drawing of right answers by length."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lmstrix.models import ContextReport, CurvePoint, Verdict
from lmstrix.reports.html.canvas import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Line, drawn, path_through
from lmstrix.reports.html.scales import MOST_TOKENS, Axis, length_axis, share_axis
from lmstrix.reports.quantities import say_percent

__all__ = ["Dot", "RecallPlot", "plot_near", "plot_recall"]

AROUND = 0.2
"""Part of the bracket's ends within which a length is near it."""
AXIS_WORD_END = 90.0
"""Where the word above the vertical axis has ended in any common font, in drawing units."""
FEWEST = 3
"""Lengths near the bracket for which a drawing of their own is worth it."""
_SHAPES = {Verdict.PASS: "pass", Verdict.FAIL: "fail", Verdict.UNDECIDED: "open"}


@attrs.frozen
class Dot:
    """The answers at one length: `shape` is pass, fail, open, or dead (the engine failed)."""

    x: float
    y: float
    low: float
    high: float
    shape: str
    label: str


@attrs.frozen
class RecallPlot:
    """Right answers by length, with Wilson intervals."""

    x: Axis
    y: Axis
    dots: tuple[Dot, ...]
    path: str
    bracket: tuple[float, float] | None
    threshold: Line | None
    truth: Line | None
    text: str
    """What the drawing shows, for who cannot see it."""

    @property
    def truth_word_at(self) -> float:
        """Where the word for the true context begins or ends: clear of the axis's own word."""
        return 0.0 if self.truth is None else max(self.truth.at, AXIS_WORD_END)


def plot_recall(report: ContextReport) -> RecallPlot | None:
    """The drawing of every length; None where there is none."""
    points = drawn(report.curve)
    if not points:
        return None
    return _plot(report, points, length_axis([p.length_tokens for p in points], LEFT, RIGHT))


def plot_near(report: ContextReport) -> RecallPlot | None:
    """The drawing of the lengths around the bracket; None where it would show nothing new."""
    low, high = report.bracket
    points = drawn(report.curve)
    if high is None:
        return None
    near = [p for p in points if low * (1 - AROUND) <= p.length_tokens <= high * (1 + AROUND)]
    if not FEWEST <= len(near) < len(points):
        return None
    axis = length_axis([p.length_tokens for p in near], LEFT, RIGHT, close=True)
    return _plot(report, near, axis)


def _plot(report: ContextReport, points: Sequence[CurvePoint], x: Axis) -> RecallPlot:
    y = share_axis(BOTTOM, TOP)
    dots = tuple(_dot(point, x, y) for point in points)
    return RecallPlot(
        x=x,
        y=y,
        dots=dots,
        path=path_through([(dot.x, dot.y) for dot in dots if dot.shape != "dead"]),
        bracket=_bracket(report, x),
        threshold=_threshold(report, y),
        truth=_truth(report, x),
        text="Right answers by length: " + "; ".join(dot.label for dot in dots),
    )


def _dot(point: CurvePoint, x: Axis, y: Axis) -> Dot:
    at = x.at(point.length_tokens)
    if point.trials <= 0:
        how = str(point.failure or "no answer that counts").replace("_", " ")
        return Dot(at, BOTTOM, BOTTOM, BOTTOM, "dead", f"{point.length_tokens} tokens: {how}")
    label = f"{point.length_tokens} tokens: {point.passes} of {point.trials}"
    rate = point.passes / point.trials
    low, high = y.at(point.wilson.low), y.at(point.wilson.high)
    return Dot(at, y.at(rate), low, high, _SHAPES[point.verdict], label)


def _bracket(report: ContextReport, x: Axis) -> tuple[float, float] | None:
    low, high = report.bracket
    if high is None or not 0 <= low < high <= MOST_TOKENS:
        return None
    return x.at(low), x.at(high)


def _threshold(report: ContextReport, y: Axis) -> Line | None:
    """The rate that a length has to reach."""
    base = 1.0 if report.method.absolute else report.baseline.rate
    rate = report.method.ratio * base
    return Line(y.at(rate), f"passes from {say_percent(rate)}") if 0 < rate <= 1 else None


def _truth(report: ContextReport, x: Axis) -> Line | None:
    length = report.true_context
    if length is None or not x.low <= length <= x.high or not length:
        return None
    at = x.at(length)
    return Line(at, f"true {length}", "end" if at > WIDTH / 2 else "start")
