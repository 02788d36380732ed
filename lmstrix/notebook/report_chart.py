"""Right answers by length, with their intervals, and where the true context lies."""

from __future__ import annotations

import altair as alt

from lmstrix.models import ContextReport, CurvePoint
from lmstrix.notebook.chart_text import chart_text
from lmstrix.reports.table import say_verdict

__all__ = ["draw_report"]

DEAD = "engine failed"
"""The verdict where nothing could be asked: not the same as answers that are wrong."""
COLORS = {
    "pass": "#0072b2",
    "no miss": "#56b4e9",
    "open": "#999999",
    "fail": "#d55e00",
    DEAD: "#000000",
}
"""Told apart by people who do not tell red from green (Okabe and Ito, 2008)."""
SHAPES = {
    "pass": "circle",
    "no miss": "circle",
    "open": "diamond",
    "fail": "cross",
    DEAD: "triangle-down",
}
GREEN, GRAY = "#009e73", "#666666"
WIDTH, HEIGHT = 520, 260
"""Of the plot without its legend, in pixels."""


def draw_report(report: ContextReport) -> alt.LayerChart:
    """A point for each length, its 95 % Wilson interval, the rate that passes, the bracket.

    The title says the answer, so that no colour is needed to read it.
    """
    rows = [_row(point) for point in sorted(report.curve, key=lambda p: p.length_tokens)]
    layers: list[alt.Chart] = [*_bracket(report), *_threshold(report), *_points(rows)]
    title = alt.TitleParams(_title(report), subtitle=_subtitle(report), anchor="start")
    return alt.LayerChart(layer=layers).properties(title=title, width=WIDTH, height=HEIGHT)


def _row(point: CurvePoint) -> dict[str, object]:
    failure = "" if point.failure is None else point.failure.replace("_", " ")
    verdict = say_verdict(point.verdict, passes=point.passes, trials=point.trials)
    return {
        "length": point.length_tokens,
        "rate": point.passes / point.trials if point.trials else 0.0,
        "low": point.wilson.low if point.trials else 0.0,
        "high": point.wilson.high if point.trials else 0.0,
        "answers": f"{point.passes} of {point.trials}" if point.trials else failure or "none",
        "verdict": DEAD if failure and not point.trials else verdict,
    }


def _points(rows: list[dict[str, object]]) -> tuple[alt.Chart, alt.Chart]:
    """The intervals, and the points upon them."""
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=_length("length"),
        color=alt.Color("verdict:N", title="verdict").scale(
            domain=list(COLORS), range=list(COLORS.values())
        ),
        tooltip=["length:Q", "answers:N", "verdict:N"],
    )
    intervals = base.mark_rule().encode(
        y=_share("low"),
        y2="high:Q",
    )
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=_share("rate"),
        shape=alt.Shape("verdict:N").scale(domain=list(SHAPES), range=list(SHAPES.values())),
    )
    return intervals, points


def _bracket(report: ContextReport) -> list[alt.Chart]:
    """A band from what works to what does not; a line where nothing failed."""
    low, high = report.bracket
    if not low:
        return []
    data = alt.InlineData(values=[{"length": low, "end": high or low}])
    if high is None:
        return [alt.Chart(data).mark_rule(color=GREEN, size=2).encode(x=_length("length"))]
    band = alt.Chart(data).mark_rect(color=GREEN, opacity=0.25)
    return [band.encode(x=_length("length"), x2="end:Q")]


def _threshold(report: ContextReport) -> list[alt.Chart]:
    """The rate that a length has to reach."""
    rate = report.method.ratio * (1.0 if report.method.absolute else report.baseline.rate)
    if not 0 < rate <= 1:
        return []
    data = alt.InlineData(values=[{"rate": rate}])
    return [alt.Chart(data).mark_rule(color=GRAY, strokeDash=[4, 4]).encode(y=_share("rate"))]


def _length(field: str) -> alt.X:
    """The one axis of lengths: layers that say the same share it."""
    title = "prompt and reply, tokens (logarithmic)"
    axis = alt.X(f"{field}:Q", title=title).axis(format="d", labelOverlap="greedy")
    return axis.scale(type="log", base=2, nice=False, padding=12)


def _share(field: str) -> alt.Y:
    """The one axis of right answers."""
    return alt.Y(f"{field}:Q", title="right answers").scale(domain=[0, 1]).axis(format="%")


def _title(report: ContextReport) -> str:
    true = "unknown" if report.true_context is None else str(report.true_context)
    return f"true context {true}: {report.cause}".replace("_", " ")


def _subtitle(report: ContextReport) -> list[str]:
    low, high = report.bracket
    bracket = f"{low} works, {'nothing is known to fail' if high is None else f'{high} does not'}"
    return [chart_text(report.model.key), bracket] if low else [chart_text(report.model.key)]
