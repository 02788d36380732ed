"""What LM Studio sends while it loads and while it answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import anyio
from fuzz_counts import put_through
from fuzz_values import VALUES, changed, deep, fuzz
from hypothesis import example, given

from lmstrix.adapters.lmstudio.instances import effective_context, listed, load_instance, unload
from lmstrix.adapters.lmstudio.protocol import Generation
from lmstrix.adapters.lmstudio.sdk import Connection, Deadlines
from lmstrix.errors import LMStrixError
from lmstrix.json_values import Json, as_object
from lmstrix.models import LoadProgress, PrefillProgress, Reply
from lmstrix.serialize import to_json
from lmstrix.testing.samples import sample_model

PACKETS = [
    {
        "type": "promptProcessingProgress",
        "progress": 0.5,
        "details": {
            "totalPromptTokenCount": 100,
            "unprocessedPromptTokenCount": 50,
            "cachedTokenCount": 20,
        },
    },
    {"type": "fragment", "fragment": {"content": "<think>a", "reasoningType": "none"}},
    {"type": "fragment", "fragment": {"content": "b", "reasoningType": "reasoning"}},
    {
        "type": "success",
        "stats": {
            "stopReason": "eosFound",
            "promptTokensCount": 100,
            "predictedTokensCount": 3,
            "timeToFirstTokenSec": 0.5,
            "tokensPerSecond": 20.5,
        },
    },
]
LOAD: list[object] = [{"type": "resolved", "info": {}}, {"type": "progress", "progress": 0.5}]
INFO = {"identifier": "mine", "deviceIdentifier": None, "contextLength": 4096}
CONFIG = {"fields": [{"key": "llm.load.numParallelSessions", "value": 1}]}
ANSWERS = [INFO, CONFIG, [INFO], {}]
DEADLINES = Deadlines()


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


def _items(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


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
    deadlines = DEADLINES
    await load_instance(
        connection, sample_model(), "mine", 4096, deadlines=deadlines, on_progress=told.append
    )
    assert all(0 <= progress.fraction <= 1 for progress in told)
    return len(told)


async def _ask(answers: object) -> list[Json]:
    notes: list[str] = []
    connection = cast("Connection", Told(iter(_items(answers))))
    deadlines = DEADLINES
    context = await effective_context(
        connection, sample_model(), "mine", deadlines=deadlines, note=notes.append
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
