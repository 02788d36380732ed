"""What a notebook shows of reports, maps, lists of models, and of a measurement that runs."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from IPython.core.formatters import DisplayFormatter

from lmstrix import LMStrix, MapOptions, MeasureOptions, events
from lmstrix.models import Cause, ModelList, PrefillProgress, Verdict
from lmstrix.notebook import (
    Drawing,
    NotebookProgress,
    load_ipython_extension,
    plot_map,
    plot_report,
)
from lmstrix.testing.samples import sample_map, sample_model, sample_report
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

HOSTILE = '</code><script>alert("1")</script>\u202e'
MODEL = sample_model(key=HOSTILE, architecture=HOSTILE)


def shown(fact: object) -> tuple[list[str], str]:
    """The tags and the words of the HTML that a notebook shows for a value."""
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    load_ipython_extension(shell)
    show: Any = shell.display_formatter.formatters["text/html"]
    page: str = show(fact)
    return re.findall(r"<(\w+)", page), html.unescape(re.sub(r"<[^>]*>", " ", page))


@pytest.mark.parametrize(
    "fact",
    [sample_report(model=MODEL), sample_map(model=MODEL), ModelList([MODEL])],
    ids=["report", "map", "models"],
)
def test_untrusted_text_stays_text(fact: object) -> None:
    tags, words = shown(fact)
    assert "script" not in tags
    assert '<script>alert("1")</script>\\u202e' in words
    assert "\u202e" not in words


async def test_listed_models_are_a_tuple_that_shows_itself() -> None:
    adapter = SimulatedAdapter(SimulatedModel(key="a"), SimulatedModel(key="b", declared=None))
    async with LMStrix(adapter=adapter, store="memory") as lmstrix:
        models = await lmstrix.list_models()
    assert isinstance(models, tuple)
    assert [model.key for model in models] == ["a", "b"]
    tags, words = shown(models)
    assert tags.count("tr") == 3
    assert "2 models" in words
    assert "unknown" in words


@pytest.mark.parametrize(
    ("drawing", "said"),
    [
        (plot_report(sample_report(model=MODEL)), "6,400 tokens: 5 of 10"),
        (plot_map(sample_map(model=MODEL)), "512 tokens, depth 0 to 10%: 100%"),
    ],
)
def test_a_chart_is_a_drawing_that_loads_nothing(drawing: Drawing, said: str) -> None:
    page = drawing._repr_html_()  # pyright: ignore[reportPrivateUsage] - as a notebook calls it
    assert not re.search(r"<script|https?:|url\(", page)
    [svg] = re.findall(r'(?s)<svg viewBox="0 0 4.*?</svg>', page)
    ET.fromstring(svg)
    assert said in svg


def test_a_report_without_lengths_still_says_the_answer() -> None:
    page = plot_report(sample_report(curve=(), bracket=(0, None), true_context=None))
    assert "not measured" in page
    assert "<svg" not in page


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


def hear(*heard: events.Event) -> tuple[str, str]:
    """What is shown after these events, drawn each time, as HTML and as text."""
    outputs = Outputs()
    ticks = iter(range(1000))
    progress = NotebookProgress(display=outputs.display, clock=lambda: next(ticks))
    for event in (events.MeasurementStarted(model_key=KEY, model=sample_model()), *heard):
        progress(event)
    [bundle] = outputs.shown
    return bundle["text/html"], bundle["text/plain"]


def test_the_course_of_a_measurement_is_shown_and_untrusted_text_stays_text() -> None:
    of: dict[str, Any] = {"model_key": KEY, "phase": "search"}
    probe: dict[str, Any] = of | {"length_tokens": 2048, "passes": 4, "trials": 4}
    page, line = hear(
        events.PhaseStarted(**of),
        events.ProbeFinished(**probe, verdict=Verdict.PASS),
        events.BracketChanged(model_key=KEY, low=2048, high=None),
        events.ProbeStarted(**of, length_tokens=4096, trials=4),
        events.PrefillProgressed(model_key=KEY, length_tokens=4096, progress=READING),
    )
    assert "&lt;b&gt;m\\x1b[0m" in page
    assert '<progress value="0.500"' in page
    assert "<td>4 of 4</td><td>passed</td>" in page
    assert line == "<b>m\\x1b[0m, search at 4,096 tokens, 2,048 works, no failure yet"


NOT_LOADED = {"context_length": 8192, "effective_context": None, "error": "x"}
FOUND = sample_report()
UNKNOWN = sample_report(true_context=None, bracket=(0, None), cause=Cause.NOT_MEASURABLE)
KEPT = "true context 6,144: forgets the start, 6,144 works, 6,400 fails"


@pytest.mark.parametrize(
    ("kind", "facts", "words"),
    [
        (events.LoadProgressed, {"context_length": 8192, "fraction": 0.5}, "loading 8,192 tokens"),
        (events.LoadFinished, NOT_LOADED, "8,192 tokens did not load"),
        (events.Retrying, {"attempt": 2, "reason": "\x07away"}, "attempt 2: \\x07away"),
        (events.WaitingForTurn, {"pid": 7, "holder_key": "\x07x"}, "process 7 to measure \\x07x"),
        (events.MeasurementFinished, {"report": FOUND}, KEPT),
        (events.MeasurementFinished, {"report": UNKNOWN}, "true context unknown: not measurable"),
    ],
)
def test_what_happens_is_said(kind: type[Any], facts: dict[str, Any], words: str) -> None:
    assert words in hear(kind(model_key=KEY, **facts))[1]


def test_what_happens_often_is_not_drawn_each_time() -> None:
    outputs = Outputs()
    progress = NotebookProgress(display=outputs.display, clock=lambda: 0.0)
    progress(events.MeasurementStarted(model_key=KEY, model=sample_model()))
    for _ in range(100):
        progress(events.PrefillProgressed(model_key=KEY, length_tokens=4096, progress=READING))
    assert outputs.drawn == 1
    progress(events.MeasurementFinished(model_key=KEY, report=sample_report()))
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
        await lmstrix.map_context("a", MapOptions(max_context=1024, lengths=2, trials=1))
        await lmstrix.map_context("b", MapOptions(max_context=512, lengths=2, trials=1))
    assert len(outputs.shown) == 4
    assert "1,024" not in outputs.shown[-1]["text/html"]


def test_without_ipython_it_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", None)
    with pytest.raises(ModuleNotFoundError, match="every notebook has"):
        NotebookProgress()
