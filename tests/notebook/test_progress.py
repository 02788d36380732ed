"""A measurement followed in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from lmstrix import LMStrix, MeasureOptions
from lmstrix.events import (
    BracketChanged,
    Event,
    LoadFinished,
    LoadProgressed,
    MeasurementFinished,
    MeasurementStarted,
    PhaseStarted,
    PrefillProgressed,
    ProbeFinished,
    ProbeStarted,
    Retrying,
    WaitingForTurn,
)
from lmstrix.models import Cause, PrefillProgress, Verdict
from lmstrix.notebook import NotebookProgress
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

KEY = "<b>m\x1b[0m"
READING = PrefillProgress(prompt_tokens=4000, cached_tokens=2000, processed_tokens=3000)


class Outputs:
    """A notebook's outputs: what each one shows, and how often it was drawn."""

    def __init__(self) -> None:
        self.shown: list[Mapping[str, str]] = []
        self.drawn = 0

    def display(self, obj: Mapping[str, str], *, raw: bool, display_id: bool) -> Output:
        assert raw
        assert display_id
        self.shown.append(obj)
        self.drawn += 1
        return Output(self, len(self.shown) - 1)


class Output:
    def __init__(self, outputs: Outputs, place: int) -> None:
        self.outputs, self.place = outputs, place

    def update(self, obj: Mapping[str, str], *, raw: bool) -> None:
        assert raw
        self.outputs.shown[self.place] = obj
        self.outputs.drawn += 1


def hear(*events: Event) -> tuple[str, str]:
    """What is shown after these events, drawn each time, as HTML and as text."""
    outputs = Outputs()
    ticks = iter(range(1000))
    progress = NotebookProgress(display=outputs.display, clock=lambda: next(ticks))
    for event in (MeasurementStarted(model_key=KEY, model=sample_model()), *events):
        progress(event)
    [bundle] = outputs.shown
    return bundle["text/html"], bundle["text/plain"]


def test_the_course_is_shown_and_untrusted_text_stays_text() -> None:
    page, line = hear(
        PhaseStarted(model_key=KEY, phase="search"),
        ProbeFinished(
            model_key=KEY,
            phase="search",
            length_tokens=2048,
            passes=4,
            trials=4,
            verdict=Verdict.PASS,
        ),
        BracketChanged(model_key=KEY, low=2048, high=None),
        ProbeStarted(model_key=KEY, phase="search", length_tokens=4096, trials=4),
        PrefillProgressed(model_key=KEY, length_tokens=4096, progress=READING),
    )
    assert "&lt;b&gt;m\\x1b[0m" in page
    assert '<progress value="0.500"' in page
    assert "<td>4 of 4</td><td>passed</td>" in page
    assert line == "<b>m\\x1b[0m, search at 4,096 tokens, 2,048 works, no failure yet"


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (LoadProgressed(model_key=KEY, context_length=8192, fraction=0.5), "loading 8,192 tokens"),
        (
            LoadFinished(model_key=KEY, context_length=8192, effective_context=None, error="x"),
            "8,192 tokens did not load",
        ),
        (Retrying(model_key=KEY, attempt=2, reason="\x07away"), "attempt 2: \\x07away"),
        (
            WaitingForTurn(model_key=KEY, pid=7, holder_key="\x07him"),
            "process 7 to measure \\x07him",
        ),
        (
            MeasurementFinished(model_key=KEY, report=sample_report()),
            "true context 6,144: forgets the start, 6,144 works, 6,400 fails",
        ),
        (
            MeasurementFinished(
                model_key=KEY,
                report=sample_report(
                    true_context=None, bracket=(0, None), cause=Cause.NOT_MEASURABLE
                ),
            ),
            "true context unknown: not measurable",
        ),
    ],
    ids=["loading", "load failed", "retrying", "waiting", "finished", "not measured"],
)
def test_what_happens_is_said(event: Event, words: str) -> None:
    assert words in hear(event)[1]


def test_what_happens_often_is_not_drawn_each_time() -> None:
    outputs = Outputs()
    progress = NotebookProgress(display=outputs.display, clock=lambda: 0.0)
    progress(MeasurementStarted(model_key=KEY, model=sample_model()))
    for _ in range(100):
        progress(PrefillProgressed(model_key=KEY, length_tokens=4096, progress=READING))
    assert outputs.drawn == 1
    progress(MeasurementFinished(model_key=KEY, report=sample_report()))
    assert outputs.drawn == 2


async def test_each_measurement_has_an_output_of_its_own() -> None:
    outputs = Outputs()
    adapter = SimulatedAdapter(
        SimulatedModel(key="a", declared=2048, true_context=1500),
        SimulatedModel(key="b", declared=1024, true_context=1024),
    )
    progress = NotebookProgress(display=outputs.display)
    async with LMStrix(adapter=adapter, store="memory", observers=[progress]) as lmstrix:
        for key in ("a", "b"):
            report = await lmstrix.find_true_context(key, MeasureOptions(certify=False))
            assert f"true context {report.true_context:,}: " in outputs.shown[-1]["text/plain"]
    assert len(outputs.shown) == 2


def test_without_ipython_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(ModuleNotFoundError, match="every notebook has"):
        NotebookProgress()
