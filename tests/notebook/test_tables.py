"""What a notebook shows of reports, maps and lists of models."""

from __future__ import annotations

import html.parser
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from IPython.core.formatters import DisplayFormatter

from lmstrix import LMStrix
from lmstrix.models import Cause, ModelList
from lmstrix.notebook import load_ipython_extension, map_table
from lmstrix.testing.samples import sample_map, sample_model, sample_report
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

HOSTILE = '</code><script>alert("1")</script>\u202e'


class Balance(html.parser.HTMLParser):
    """Every tag that is opened is closed in order; keeps the names and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += f"{data} "


def shown(fact: object) -> Balance:
    """The HTML that a notebook shows for a value."""
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    load_ipython_extension(shell)
    show: Any = shell.display_formatter.formatters["text/html"]
    return Balance(show(fact))


def test_a_report_is_a_table_of_numbers_cause_and_curve() -> None:
    page = shown(sample_report())
    assert page.tags.count("table") == 4
    for words in ("declared", "8192", "6144", "forgets", "10 of 10", "5 of 10", "head 0 of 5"):
        assert words in page.words


def test_how_the_engine_failed_is_shown() -> None:
    crash = attrs.evolve(
        sample_report().curve[1], trials=0, passes=0, failure=Cause.CRASHED_ON_FILL
    )
    assert "failed (crashed on fill)" in shown(sample_report(curve=(crash,))).words


def test_a_report_without_a_number_is_shown_too() -> None:
    report = sample_report(
        true_context=None, cause=Cause.MODEL_NOT_FOUND, curve=(), levels=(), usable=None
    )
    page = shown(report)
    assert "The model was not found." in page.words
    assert "certified" not in page.words


def test_a_map_shows_each_cell_and_none_where_nothing_was_asked() -> None:
    page = shown(sample_map())
    assert page.tags.count("td") == 20
    assert "A note & more." in page.words
    assert page.words.split().count("100") == 2
    assert "recall keeps 85% of its score at 512 up to 512 tokens." in page.words


def test_the_letters_of_a_theme_can_be_read_on_every_tint() -> None:
    text = map_table(sample_map())
    tints = {float(tint) for tint in re.findall(r"rgba\(66,133,244,([0-9.]+)\)", text)}
    assert len(tints) == 3
    for page, letters in ((30, 204), (17, 255), (255, 33)):  # of VS Code, dark; of Jupyter
        for tint in tints:
            behind = [tint * c + (1 - tint) * page for c in (66, 133, 244)]
            assert contrast(behind, [letters] * 3) >= 4.5


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """The ratio that WCAG 2 defines, of two colours as red, green and blue up to 255."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: Sequence[float]) -> float:
    """As WCAG 2 defines it."""
    parts = [c / 255 for c in color]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize(
    "fact",
    [
        sample_report(model=sample_model(key=HOSTILE)),
        sample_map(model=sample_model(key=HOSTILE)),
        ModelList([sample_model(key=HOSTILE, architecture=HOSTILE)]),
    ],
    ids=["report", "map", "models"],
)
def test_untrusted_text_stays_text(fact: object) -> None:
    page = shown(fact)
    assert "script" not in page.tags
    assert '<script>alert("1")</script>\\u202e' in page.words
    assert "\u202e" not in page.words


async def test_listed_models_are_a_tuple_that_shows_itself() -> None:
    adapter = SimulatedAdapter(SimulatedModel(key="a"), SimulatedModel(key="b", declared=None))
    async with LMStrix(adapter=adapter, store="memory") as lmstrix:
        models = await lmstrix.list_models()
    assert isinstance(models, tuple)
    assert [model.key for model in models] == ["a", "b"]
    page = shown(models)
    assert page.tags.count("tr") == 3
    assert "2 models" in page.words
    assert "unknown" in page.words
