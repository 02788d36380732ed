"""Tables, charts and progress in Jupyter and other notebooks.

``%load_ext lmstrix.notebook`` makes reports, maps and lists of models show themselves as tables.
`plot_report` and `plot_map` draw charts with altair (extra ``notebook``). `NotebookProgress` is an
observer that shows a measurement while it runs. altair and IPython are imported on first use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

from lmstrix.events import (
    Event,
    LoadProgressed,
    MeasurementStarted,
    PrefillProgressed,
    ProbeFinished,
    TrialFinished,
)
from lmstrix.models import DEPTH_BINS, ContextMap, ContextReport, Layer, ModelList
from lmstrix.progress import ProgressState
from lmstrix.reports.charts import (
    ENGINE_FAILED,
    answers_by_length,
    bracket_of,
    map_cells,
    pass_rate,
)
from lmstrix.reports.html import curve_rows, templates
from lmstrix.reports.words import (
    CURVE_HEAD,
    REGION_HEAD,
    escape_controls,
    level_rows,
    region_rows,
    say_bytes,
    say_cause,
    say_cost,
    say_evidence,
    say_kept,
    say_limit,
    say_model_facts,
    say_numbers,
    say_remarks,
    say_tokens,
    say_verdict,
    say_why,
)

if TYPE_CHECKING:
    import altair as alt

__all__ = [
    "NotebookProgress",
    "load_ipython_extension",
    "map_table",
    "model_table",
    "plot_map",
    "plot_report",
    "report_table",
]


# Tables


def load_ipython_extension(shell: Any) -> None:  # noqa: ANN401 - IPython has no types
    """Show reports, maps and lists of models as tables in this IPython shell.

    IPython calls it for ``%load_ext lmstrix.notebook``.
    """
    formatter = shell.display_formatter.formatters["text/html"]
    formatter.for_type(ContextReport, report_table)
    formatter.for_type(ContextMap, map_table)
    formatter.for_type(ModelList, model_table)


def _fill(part: str, **values: object) -> str:
    """One macro of ``notebook.html.j2`` as an HTML fragment; every value is escaped."""
    page = templates().get_template("notebook.html.j2")
    return page.render(part=part, **values).strip()


def report_table(report: ContextReport) -> str:
    """A report as HTML: numbers, cause, regions, levels, and every length that was tried."""
    return _fill(
        "report",
        key=report.model.key,
        facts=say_model_facts(report),
        numbers=[
            *((number.name, number.value, number.meaning) for number in say_numbers(report)),
            ("cause", say_cause(report.cause), say_why(report)),
        ],
        evidence=say_evidence(report),
        tables=[
            ("How far each part of the window works", REGION_HEAD, region_rows(report)),
            (
                "How far each kind of use works",
                ("level", "limit", "cause"),
                level_rows(report),
            ),
            ("Every length that was tried", CURVE_HEAD, curve_rows(report)),
        ],
        remarks=[*say_remarks(report), say_cost(report)],
    )


FAINTEST, STRONGEST = 0.12, 0.5
"""The tint of scores 0 and 1. Letters of light and dark themes can be read on both, and both
differ from a cell without answers."""


def map_table(found: ContextMap) -> str:
    """A map as HTML: for each validator a table of lengths by depths, tinted by score."""
    return _fill(
        "map",
        key=found.model.key,
        depths=[f"{100 * i // DEPTH_BINS}%" for i in range(DEPTH_BINS)],
        layers=[
            (layer.name, _map_rows(found, layer), say_kept(found, layer)) for layer in found.layers
        ],
        notes=found.notes,
    )


def _map_rows(found: ContextMap, layer: Layer) -> list[tuple[int, list[tuple[str, float]]]]:
    scores = {(cell.length_tokens, cell.depth_bin): cell.score for cell in map_cells(layer)}
    return [
        (length, [_tinted(scores.get((length, depth))) for depth in range(DEPTH_BINS)])
        for length in found.lengths
    ]


def _tinted(score: float | None) -> tuple[str, float]:
    """The text and the tint of a cell."""
    if score is None:
        return "", 0.0
    return f"{100 * score:.0f}", round(FAINTEST + (STRONGEST - FAINTEST) * score, 2)


def model_table(models: ModelList) -> str:
    """A list of models as HTML: one row for each model."""
    rows = [
        (
            model.key,
            model.type,
            model.architecture,
            model.parameters,
            model.quantization,
            say_bytes(model.size_bytes),
            say_tokens(model.declared_context),
        )
        for model in models
    ]
    return _fill("models", rows=rows)


# Charts

_COLORS = {
    "passed": ("#0072b2", "circle"),
    "all correct": ("#56b4e9", "circle"),
    "undecided": ("#999999", "diamond"),
    "failed": ("#d55e00", "cross"),
    ENGINE_FAILED: ("#000000", "triangle-down"),
}
"""Colour and shape of each verdict, also for people who confuse red and green (Okabe and Ito,
2008)."""
_GREEN, _GRAY = "#009e73", "#666666"


def plot_report(report: ContextReport) -> alt.LayerChart:
    """Correct answers by length with 95% Wilson intervals, the rate that passes, and the bracket.

    Raises `ModuleNotFoundError` if altair (extra ``notebook``) is not installed.
    """
    with _altair_needed():
        import altair as alt  # noqa: PLC0415 - an extra
    title = "prompt and reply, tokens (logarithmic)"
    scale = alt.Scale(type="log", base=2, nice=False, padding=12)
    x = alt.X("length:Q", title=title).axis(format="d", labelOverlap="greedy").scale(scale)

    def share(field: str) -> alt.Y:
        axis = alt.Y(f"{field}:Q", title="correct answers")
        return axis.scale(domain=[0, 1]).axis(format="%")

    layers: list[alt.Chart] = []
    bracket, rate = bracket_of(report), pass_rate(report)
    if bracket is not None:
        low, high = bracket
        data = alt.InlineData(values=[{"length": low, "end": high or low}])
        if high is None:
            layers.append(alt.Chart(data).mark_rule(color=_GREEN, size=2).encode(x=x))
        else:
            band = alt.Chart(data).mark_rect(color=_GREEN, opacity=0.25)
            layers.append(band.encode(x=x, x2="end:Q"))
    if rate is not None:
        rule = alt.Chart(alt.InlineData(values=[{"rate": rate}]))
        rule = rule.mark_rule(color=_GRAY, strokeDash=[4, 4])
        layers.append(rule.encode(y=share("rate")))
    colors, shapes = zip(*_COLORS.values(), strict=True)
    verdicts = list(_COLORS)
    base = alt.Chart(
        alt.InlineData(
            values=[
                {
                    "length": one.length,
                    "rate": one.rate,
                    "low": one.low,
                    "high": one.high,
                    "answers": one.answers,
                    "verdict": one.verdict,
                }
                for one in answers_by_length(report)
            ]
        )
    ).encode(
        x=x,
        color=alt.Color("verdict:N", title="verdict").scale(domain=verdicts, range=list(colors)),
        tooltip=["length:Q", "answers:N", "verdict:N"],
    )
    layers.append(base.mark_rule().encode(y=share("low"), y2="high:Q"))
    layers.append(
        base.mark_point(filled=True, size=60, opacity=1).encode(
            y=share("rate"),
            shape=alt.Shape("verdict:N").scale(domain=verdicts, range=list(shapes)),
        )
    )
    heading = alt.TitleParams(_title(report), subtitle=_subtitle(report), anchor="start")
    return alt.LayerChart(layer=layers).properties(title=heading, width=520, height=260)


def _title(report: ContextReport) -> str:
    return f"true context {say_tokens(report.true_context)}: {say_limit(report)}"


def _subtitle(report: ContextReport) -> list[str]:
    lines = [report.model.key, *say_evidence(report)[:1]] if report.regions else [report.model.key]
    low, high = report.bracket
    if low:
        lines.append(
            f"{low} works, {'no failure is known' if high is None else f'{high} does not'}"
        )
    return [_chart_text(line) for line in lines]


def plot_map(found: ContextMap) -> alt.Chart:
    """Scores by length and depth: one heat map for each validator, side by side.

    Raises `ModuleNotFoundError` if altair (extra ``notebook``) is not installed.
    """
    with _altair_needed():
        import altair as alt  # noqa: PLC0415 - an extra
    names = [_chart_text(layer.name) for layer in found.layers]
    rows: list[dict[str, object]] = [
        {
            "layer": name,
            "length": cell.length_tokens,
            "depth": 100 * cell.depth_bin // DEPTH_BINS,
            "score": cell.score,
            "answers": f"{cell.passes} of {cell.trials}",
        }
        for name, layer in zip(names, found.layers, strict=True)
        for cell in map_cells(layer)
    ]
    return (
        alt.Chart(alt.InlineData(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("length:O", title="prompt and reply, tokens"),
            y=alt.Y("depth:O", title="depth in the prompt, percent"),
            color=alt.Color("score:Q", title="score").scale(domain=[0, 1], scheme="viridis"),
            tooltip=["length:O", "depth:O", "answers:N", "score:Q"],
            column=alt.Column("layer:N", title=None, sort=names),
        )
        .properties(
            title=alt.TitleParams(_chart_text(found.model.key), anchor="start"),
            width=240,
            height=240,
        )
    )


def _chart_text(text: str) -> str:
    """Untrusted text for a chart. altair writes it unescaped into the script of a saved page, so no
    tag may begin in it.
    """
    return escape_controls(text).replace("<", "\u2039")


@contextmanager
def _altair_needed() -> Generator[None]:
    """Explain what to install if altair is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "charts need altair, which is not installed: pip install 'lmstrix[notebook]'",
            name=error.name,
        ) from error


# Progress

REDRAW_S = 0.25
"""Seconds between two drawings for frequent events. Each is a message to the browser."""
FREQUENT = (LoadProgressed, PrefillProgressed, TrialFinished)
"""Any other event is drawn at once."""


class Handle(Protocol):
    """An output that can be redrawn."""

    def update(self, bundle: Mapping[str, str]) -> None:
        """Show `bundle` (text by MIME type) instead."""
        ...


class NotebookProgress:
    """An observer for notebooks: ``LMStrix(observers=[NotebookProgress()])``.

    Each measurement gets its own output below the cell: phase, bracket, and a row for each length.
    Without HTML, as in IPython on a terminal, it shows plain text.

    `display` shows a bundle and returns its handle. The default is IPython's; without IPython the
    constructor raises `ModuleNotFoundError`.
    """

    def __init__(
        self,
        *,
        display: Callable[[Mapping[str, str]], Handle] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._display = display or _ipython_display()
        self._clock = clock
        self._state = ProgressState()
        self._handle: Handle | None = None
        self._drawn_s = 0.0

    def __call__(self, event: Event, /) -> None:
        """Hear one event, and redraw if it is time."""
        if isinstance(event, MeasurementStarted):
            self._state, self._handle = ProgressState(), None
        self._state.hear(event)
        now = self._clock()
        if self._handle is None:
            self._handle = self._display(self._bundle())
        elif now - self._drawn_s >= REDRAW_S or not isinstance(event, FREQUENT):
            self._handle.update(self._bundle())
        else:
            return
        self._drawn_s = now

    def _bundle(self) -> dict[str, str]:
        state = self._state
        where = f"at {state.length_tokens} tokens" if state.length_tokens else ""
        activity = f"{state.phase} {state.activity or where}".strip()
        if state.report is not None:
            activity = _title(state.report)
        bracket = f"{state.low} works, {state.high or 'nothing'} fails" if state.low else ""
        line = ", ".join(part for part in (state.model_key, activity, bracket) if part)
        page = _fill(
            "progress",
            key=state.model_key,
            activity=activity,
            fraction=state.fraction,
            bracket=bracket,
            rows=[_probe_row(probe) for _, probe in sorted(state.probes.items())],
        )
        return {"text/html": page, "text/plain": escape_controls(line)}


def _probe_row(probe: ProbeFinished) -> tuple[str, ...]:
    verdict = say_verdict(probe.verdict, passes=probe.passes, trials=probe.trials)
    if probe.failure is not None:
        verdict = say_cause(probe.failure)
    return str(probe.length_tokens), f"{probe.passes} of {probe.trials}", verdict


class _IPythonHandle(Protocol):
    def update(self, obj: object, **kwargs: object) -> None: ...


class _Show(Protocol):
    def __call__(self, obj: object, *, raw: bool, display_id: bool) -> _IPythonHandle | None: ...


class _RawHandle:
    """IPython's handle, for bundles. Outside of a notebook there is none: IPython prints."""

    def __init__(self, handle: _IPythonHandle | None) -> None:
        self._handle = handle

    def update(self, bundle: Mapping[str, str]) -> None:
        """Show `bundle` instead."""
        if self._handle is not None:
            self._handle.update(dict(bundle), raw=True)


def _ipython_display() -> Callable[[Mapping[str, str]], Handle]:
    try:
        import IPython.display as ipython  # noqa: PLC0415 - every notebook has it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "NotebookProgress needs IPython, which every notebook has. Elsewhere use"
            " LMStrix.watch or an observer of your own.",
            name=error.name,
        ) from error
    show = cast("_Show", ipython.display)  # pyright: ignore[reportUnknownMemberType] - untyped
    return lambda bundle: _RawHandle(show(dict(bundle), raw=True, display_id=True))
