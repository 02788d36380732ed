"""What a notebook shows of reports, maps and lists of models."""

from __future__ import annotations

import html.parser
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from lmstrix import LMStrix
from lmstrix.models import ModelList
from lmstrix.notebook import load_ipython_extension
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

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

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
