"""Reports, maps, lists of models and progress in Jupyter and other notebooks.

``%load_ext lmstrix.notebook`` makes reports, maps and lists of models show themselves.
`plot_report` and `plot_map` draw SVG, which needs no network and no other package.
`NotebookProgress` is an observer that shows a measurement while it runs. It needs IPython.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs

from lmstrix.events import (
    Event,
    LoadProgressed,
    MeasurementStarted,
    PrefillProgressed,
    ProbeFinished,
    TrialFinished,
)
from lmstrix.models import ContextMap, ContextReport, ModelList
from lmstrix.progress import ProgressState
from lmstrix.reports.html import render_chart, render_fragment, render_map, templates
from lmstrix.reports.words import (
    escape_controls,
    say_bytes,
    say_cause,
    say_limit,
    say_tokens,
    say_verdict,
)


def load_ipython_extension(shell: Any) -> None:  # noqa: ANN401 - IPython has no types
    """Show reports, maps and lists of models as tables in this IPython shell.

    IPython calls it for ``%load_ext lmstrix.notebook``.
    """
    formatter = shell.display_formatter.formatters["text/html"]
    formatter.for_type(ContextReport, report_table)
    formatter.for_type(ContextMap, map_table)
    formatter.for_type(ModelList, model_table)


class Drawing(str):
    """HTML that a notebook renders."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Drawing of {len(self)} characters>"

    def _repr_html_(self) -> str:
        return str(self)


def report_table(report: ContextReport) -> str:
    """A report as HTML, as on a page of ``lmstrix report``."""
    return render_fragment(report)


def map_table(found: ContextMap) -> str:
    """A map as HTML: for each validator a drawing and a table of lengths by depths."""
    return render_map(found)


def plot_report(report: ContextReport) -> Drawing:
    """The summary, and correct answers by length with 95% Wilson intervals and the bracket."""
    return Drawing(render_chart(report))


def plot_map(found: ContextMap) -> Drawing:
    """Scores by length and depth: one heat map for each validator."""
    return Drawing(render_map(found))


def model_table(models: ModelList) -> str:
    """A list of models as HTML, with a row for each model."""
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


def _fill(part: str, **values: object) -> str:
    """One part of ``notebook.html.j2`` as an HTML fragment; every value is escaped."""
    page = templates().get_template("notebook.html.j2")
    return page.render(part=part, **values).strip()


# Progress

REDRAW_S = 0.25
"""Least seconds between drawings for frequent events: each is a message to the browser."""
FREQUENT = (LoadProgressed, PrefillProgressed, TrialFinished)
"""All other events are drawn at once."""


class NotebookProgress:
    """An observer for notebooks: ``LMStrix(observers=[NotebookProgress()])``.

    Each measurement gets its own output below the cell: phase, bracket, and a row for each length.
    Without HTML, as in IPython on a terminal, it shows plain text.

    `display` takes and returns what IPython's does: it is given texts by MIME type, ``raw=True``
    and ``display_id=True``, and returns something with an ``update``, or None if the output cannot
    be redrawn. The default is IPython's; without IPython the constructor raises
    `ModuleNotFoundError`.
    """

    def __init__(
        self,
        *,
        display: Callable[..., Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._display = display or _ipython_display()
        self._clock = clock
        self._outputs: dict[str, _Output] = {}
        """The newest one of each model: several may be measured at once."""

    def __call__(self, event: Event, /) -> None:
        """Hear one event, and redraw if it is time."""
        shown = self._outputs.get(event.model_key)
        begins = isinstance(event, MeasurementStarted)
        if shown is None or begins or shown.state.report is not None:
            shown = self._outputs[event.model_key] = _Output()
        shown.state.hear(event)
        now = self._clock()
        if shown.drawn_s is None:
            shown.handle = self._display(_bundle(shown.state), raw=True, display_id=True)
        elif isinstance(event, FREQUENT) and now - shown.drawn_s < REDRAW_S:
            return
        elif shown.handle is not None:
            shown.handle.update(_bundle(shown.state), raw=True)
        shown.drawn_s = now


@attrs.define
class _Output:
    """One output below a cell."""

    state: ProgressState = attrs.field(factory=ProgressState)
    handle: Any = None
    drawn_s: float | None = None
    """When it was drawn last; None before the first time."""


def _bundle(state: ProgressState) -> dict[str, str]:
    where = f"at {state.length_tokens:,} tokens" if state.length_tokens else ""
    activity = f"{state.phase} {state.activity or where}".strip()
    if state.report is not None:
        true = say_tokens(state.report.true_context)
        activity = f"true context {true}: {say_limit(state.report)}"
    fails = "no failure yet" if state.high is None else f"{state.high:,} fails"
    bracket = f"{state.low:,} works, {fails}" if state.low else ""
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
    verdict = say_verdict(probe.verdict)
    if probe.failure is not None:
        verdict = say_cause(probe.failure)
    return say_tokens(probe.length_tokens), f"{probe.passes} of {probe.trials}", verdict


def _ipython_display() -> Callable[..., Any]:
    try:
        import IPython.display as ipython  # noqa: PLC0415 - every notebook has it
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "NotebookProgress needs IPython, which every notebook has. Elsewhere use"
            " LMStrix.watch or your own observer.",
            name=error.name,
        ) from error
    return ipython.display  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - untyped
