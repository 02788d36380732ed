"""Runs every Python snippet of the README and the documentation as a test.

The snippets are what a user types, so they say `LMStrix()` and name a GGUF file. Here a
simulated engine that knows ``model.gguf`` stands in for the embedded one, and nothing is
stored: no snippet needs an engine, a download or a minute. ``examples/`` runs the real one.
"""

from __future__ import annotations

from doctest import ELLIPSIS

import pytest
from sybil import Sybil
from sybil.parsers.myst import PythonCodeBlockParser, SkipParser

from lmstrix import plugins
from lmstrix.plugins import ADAPTERS, STORES, make_plugin
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="model.gguf", declared=8192, true_context=6000)


def make_simulated(group: str, name: str, **settings: object) -> object:
    """What `lmstrix.plugins.make_plugin` makes, with stand-ins for the defaults."""
    if group == ADAPTERS and name in (plugins.DEFAULT_ADAPTER, plugins.EMBEDDED_ADAPTER):
        return SimulatedAdapter(MODEL)
    if (group, name) == (STORES, plugins.DEFAULT_STORE):
        return SqliteStore(":memory:")
    return make_plugin(group, name, **settings)


@pytest.fixture
def simulated_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins in place for one snippet."""
    monkeypatch.setattr(plugins, "make_plugin", make_simulated)


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/guides/*.md"],
    fixtures=["simulated_defaults"],
).pytest()
