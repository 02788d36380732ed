"""Where LM Studio is said to be, what it lists, and what it sends while it loads and answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import anyio
from fuzz_counts import put_through
from fuzz_values import NAMES, TEXTS, VALUES, changed, deep, fuzz, texts_of
from hypothesis import example, given
from hypothesis import strategies as st

from lmstrix.adapters.http import named_model
from lmstrix.adapters.llamacpp.catalogue import default_folders, list_models
from lmstrix.adapters.lmstudio.discovery import addresses, parse_host, told_port
from lmstrix.adapters.lmstudio.instances import effective_context, listed, load_instance, unload
from lmstrix.adapters.lmstudio.listing import device_of, parse_listing, wire_key
from lmstrix.adapters.lmstudio.protocol import Generation, call_error, load_error, prediction_error
from lmstrix.adapters.lmstudio.sdk import Connection, Deadlines
from lmstrix.adapters.lmstudio_home import existing_home
from lmstrix.errors import ConfigurationError, LMStrixError, SettingsError
from lmstrix.json_values import Json, as_object
from lmstrix.models import LoadProgress, ModelInfo, PrefillProgress, Reply
from lmstrix.serialize import to_json
from lmstrix.testing.samples import sample_model


@fuzz
@given(texts_of({"port": 41343, "host": "127.0.0.1"}))
@example("[" * 100_000)
def test_ports(text: str) -> None:
    with TemporaryDirectory() as folder:
        file = Path(folder, ".internal", "http-server.json")
        file.parent.mkdir()
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        port = put_through("LM Studio's http-server.json", lambda: told_port(Path(folder)))
        assert port is None or 0 < port < 65536


@fuzz
@given(NAMES | st.sampled_from(["127.0.0.1:1234", "http://[::1]:80/", "x:99999", "a:b@c:1"]))
def test_hosts(text: str) -> None:
    host = put_through("--host", lambda: parse_host(text), ConfigurationError)
    assert host is None or (host.isprintable() and not set("/?#@\\ ") & set(host))


@fuzz
@given(NAMES)
@example("/nul\0inside")
def test_pointers(pointer: str) -> None:
    file = Path.home() / ".lmstudio-home-pointer"
    file.write_bytes(pointer.encode("utf-8", "surrogatepass"))
    try:
        assert put_through("LM Studio's home pointer", lambda: addresses(None))
        put_through("LM Studio's home pointer", existing_home, SettingsError)
        found = put_through("LM Studio's home pointer", lambda: list_models(default_folders()[:1]))
        assert not found
    finally:
        file.unlink()


MODEL = {
    "type": "llm",
    "modelKey": "google/gemma-3-4b",
    "format": "gguf",
    "displayName": "Gemma 3 4B",
    "path": "google/gemma-3-4b/gemma.gguf",
    "sizeBytes": 3_000_000_000,
    "paramsString": "4B",
    "architecture": "gemma3",
    "maxContextLength": 131072,
    "quantization": {"name": "Q4_K_M", "bits": 4},
    "deviceIdentifier": None,
    "variants": ["google/gemma-3-4b@q4_k_m", "google/gemma-3-4b@q8_0"],
    "selectedVariant": "google/gemma-3-4b@q4_k_m",
}
LISTING = [MODEL, {**MODEL, "modelKey": "b", "deviceIdentifier": "attic"}]
WORDS = (
    "insufficient system resources",
    "cudaMalloc failed: out of memory",
    "trying to keep the first 5 tokens",
    "model unloaded",
    "exit code 9",
)


def _listed(answer: object) -> list[ModelInfo]:
    models = parse_listing(answer)
    for model in models:
        assert wire_key(model).strip() or model.key
        assert model.declared_context is None or model.declared_context > 0
        device_of(model)
    to_json(models)
    return models


@fuzz
@given(changed(LISTING), NAMES)
@example(deep(3000), "")
def test_listings(answer: object, name: str) -> None:
    models = put_through("LM Studio's listing", lambda: _listed(answer))
    assert models is not None
    put_through("name of a model", lambda: named_model(models, name, "LM Studio"))


@fuzz
@given(st.lists(st.sampled_from(WORDS) | TEXTS | st.text(), max_size=6).map(" ".join))
def test_messages(text: str) -> None:
    for make in (call_error, load_error, prediction_error):
        error = put_through("LM Studio's messages", lambda make=make: make(text))
        assert isinstance(error, LMStrixError)
        assert len(str(error)) < 1000
        json.dumps(str(error))


DETAILS = {"totalPromptTokenCount": 100, "unprocessedPromptTokenCount": 50, "cachedTokenCount": 20}
STATS = {"stopReason": "eosFound", "promptTokensCount": 100, "predictedTokensCount": 3}
PACKETS: list[dict[str, object]] = [
    {"type": "promptProcessingProgress", "progress": 0.5, "details": DETAILS},
    {"type": "fragment", "fragment": {"content": "<think>a", "reasoningType": "none"}},
    {"type": "fragment", "fragment": {"content": "b", "reasoningType": "reasoning"}},
    {"type": "success", "stats": STATS | {"timeToFirstTokenSec": 0.5, "tokensPerSecond": 20.5}},
]
LOAD: list[object] = [{"type": "resolved", "info": {}}, {"type": "progress", "progress": 0.5}]
INFO = {"identifier": "mine", "deviceIdentifier": None, "contextLength": 4096}
CONFIG = {"fields": [{"key": "llm.load.numParallelSessions", "value": 1}]}
ANSWERS = [INFO, CONFIG, [INFO], {}]
DEADLINES = Deadlines()


def _items(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _reply(packets: Sequence[Json], prompt_tokens: int | None) -> Reply:
    generation = Generation(
        prompt_tokens=prompt_tokens, max_tokens=9, context=512, in_thought=False
    )
    for packet in packets:
        for told in generation.feed(packet, 1.5):
            if isinstance(told, PrefillProgress):
                assert 0 <= told.cached_tokens <= told.processed_tokens <= told.prompt_tokens
    if generation.reply is None:
        raise LMStrixError("no reply")
    return generation.reply


def _stats(**changes: object) -> list[object]:
    last = {**PACKETS[-1], "stats": {**as_object(PACKETS[-1]["stats"]), **changes}}
    return [*PACKETS[:-1], last]


@fuzz
@given(changed(PACKETS))
@example([{**PACKETS[0], "details": {"totalPromptTokenCount": 2**31}}, *PACKETS])
@example(_stats(stopReason=deep(3000)))
@example(_stats(tokensPerSecond=10**400, timeToFirstTokenSec=float("nan")))
def test_predictions(packets: object) -> None:
    found = [as_object(packet) for packet in _items(packets)]
    for sent in (100, None):
        reply = put_through("LM Studio's reply", lambda sent=sent: _reply(found, sent))
        if reply is not None:
            assert json.loads(to_json(reply))["text"] == reply.text


class Told:
    """A connection whose other end says what it was given, in turn."""

    def __init__(self, told: Iterator[object]) -> None:
        self._told = told

    async def call(self, *_: object, **__: object) -> object:
        return next(self._told, None)

    @asynccontextmanager
    async def channel(self, *_: object, **__: object) -> AsyncGenerator[Told, None]:
        yield self

    async def next(self, _: float) -> Json | None:
        packet = next(self._told, None)
        return None if packet is None else as_object(packet)


async def _load(packets: object) -> int:
    connection = cast("Connection", Told(iter(_items(packets))))
    told: list[LoadProgress] = []
    await load_instance(
        connection, sample_model(), "mine", 4096, deadlines=DEADLINES, on_progress=told.append
    )
    assert all(0 <= progress.fraction <= 1 for progress in told)
    return len(told)


async def _ask(answers: object) -> list[Json]:
    notes: list[str] = []
    connection = cast("Connection", Told(iter(_items(answers))))
    context = await effective_context(
        connection, sample_model(), "mine", deadlines=DEADLINES, note=notes.append
    )
    assert context > 0
    assert all(len(note) < 1000 for note in notes)
    await unload(connection, {"mine"}, 1.0)
    return await listed(connection, 1.0)


@fuzz
@given(changed([*LOAD, {"type": "success", "info": INFO}]))
def test_loads(packets: object) -> None:
    put_through("LM Studio's load", lambda: anyio.run(_load, packets))


@fuzz
@given(changed(ANSWERS) | VALUES)
@example([INFO, {"fields": [{"key": "llm.load.numParallelSessions", "value": deep(3000)}]}])
@example([INFO, {"fields": [{"key": "llm.load.numParallelSessions", "value": "x" * 20_000}]}])
def test_answers(answers: object) -> None:
    put_through("LM Studio's answers", lambda: anyio.run(_ask, answers))
