"""What a notebook shows of reports, maps and lists of models."""

from __future__ import annotations

import html
import re
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


def shown(fact: object) -> tuple[list[str], str]:
    """The tags and the words of the HTML that a notebook shows for a value."""
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    load_ipython_extension(shell)
    show: Any = shell.display_formatter.formatters["text/html"]
    page: str = show(fact)
    return re.findall(r"<(\w+)", page), html.unescape(re.sub(r"<[^>]*>", " ", page))


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
