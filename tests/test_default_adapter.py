"""Where a model is looked for when no adapter was named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmstrix import LMStrix, MeasureOptions
from lmstrix.errors import ConfigurationError, ModelInUse, ModelNotFound
from lmstrix.models import ModelInfo
from lmstrix.plugins import make_plugin
from lmstrix.search.bayes import Bayes
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.samples import sample_model
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators.recall import Recall


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("qwen2.5-0.5b-instruct", "lmstudio"),
        ("publisher/model", "lmstudio"),
        ("model.gguf", "llamacpp"),
        ("FOLDER/Model.GGUF", "llamacpp"),
        (ModelInfo(key="m", path="publisher/repository/m.gguf"), "lmstudio"),
        (ModelInfo(key="m", path=str(Path("m.gguf").absolute())), "llamacpp"),
        (ModelInfo(key="m"), "lmstudio"),
    ],
)
def test_a_file_needs_no_server(model: str | ModelInfo, name: str) -> None:
    client = LMStrix(store="memory")
    assert client.adapter_for(model).name == name
    assert client.adapter_for(model) is client.adapter_for(model)
    key = model if isinstance(model, str) else model.key
    report = client.unmeasured(key, ModelNotFound("x"))
    assert report.environment.adapter == client.adapter_for(key).name


def test_a_named_adapter_is_always_asked_and_settings_go_to_the_default_one() -> None:
    adapter = SimulatedAdapter()
    client = LMStrix(adapter=adapter, store="memory")
    for model in ("model.gguf", "key"):
        assert client.adapter_for(model) is client.adapter is adapter
    client = LMStrix(store="memory", adapter_settings={"no_such_setting": 1})
    assert client.adapter_for("model.gguf").name == "llamacpp"
    with pytest.raises(ConfigurationError, match="no_such_setting"):
        client.adapter_for("key")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_host_is_where_the_server_is() -> None:
    engine = SimulatedAdapter(SimulatedModel(key="there"))
    async with LMStudioServer(engine) as server:
        for adapter in (None, "lmstudio"):
            async with LMStrix(adapter=adapter, host=server.host, store="memory") as client:
                assert [model.key for model in await client.list_models()] == ["there"]
                assert client.adapter_for("model.gguf").name == (
                    "lmstudio" if adapter else "llamacpp"
                )


@pytest.mark.parametrize("adapter", [SimulatedAdapter(), "llamacpp"])
def test_a_host_needs_an_adapter_that_has_a_server(adapter: SimulatedAdapter | str) -> None:
    with pytest.raises(ConfigurationError, match="host"):
        LMStrix(adapter=adapter, host="127.0.0.1:1", store="memory")


@pytest.mark.parametrize(
    "parts",
    [
        {"adapter": SimulatedAdapter},
        {"strategy": Bayes},
        {"validator": Recall},
        {"store": SqliteStore},
        {"levels": "copy"},
    ],
)
def test_a_class_is_not_taken_for_an_object(parts: dict[str, Any]) -> None:
    sound: dict[str, Any] = {"adapter": SimulatedAdapter(), "store": "memory"}
    with pytest.raises(ConfigurationError):
        LMStrix(**(sound | parts))


async def test_other_objects_are_refused_in_words() -> None:
    async def observe(_: object) -> None:
        raise AssertionError

    path: Any = Path("model.gguf")
    deaf: Any = observe
    async with LMStrix(adapter=SimulatedAdapter(), store="memory") as client:
        with pytest.raises(ConfigurationError, match="not PosixPath"):
            await client.find_true_context(path)
        with pytest.raises(ConfigurationError, match="plain function"):
            await client.find_true_context("simulated", observers=[deaf])
        with pytest.raises(ConfigurationError, match="max_tokens"):
            await client.infer("simulated", "Why?", max_tokens=0)


def test_a_report_of_what_could_not_be_measured_has_the_facts_that_are_known() -> None:
    client = LMStrix(adapter=SimulatedAdapter(), store="memory")
    options = MeasureOptions(average=True, quick=True, absolute=True)
    report = client.unmeasured(sample_model(), ModelInUse("in use"), options)
    assert report.declared_context == sample_model().declared_context
    assert (report.method.average, report.method.quick, report.method.absolute) == (True,) * 3


class Closable(SimulatedAdapter):
    """Counts how often it was closed."""

    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


async def test_only_adapters_made_here_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made, given = Closable(), Closable()

    def make(group: str, name: str, **settings: object) -> object:
        return made if group == "lmstrix.adapters" else make_plugin(group, name, **settings)

    monkeypatch.setattr("lmstrix.plugins.make_plugin", make)
    async with LMStrix(adapter="closable", store="memory"):
        pass
    async with LMStrix(adapter=given, store="memory"):
        pass
    assert (made.closed, given.closed) == (1, 0)
