"""What the embedded engine's server sends."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
from fuzz_counts import put_through
from fuzz_values import TEXTS, VALUES, as_text, changed, damaged, deep, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from lmstrix.adapters.llamacpp.loaded import EventReader, Generation, server_error
from lmstrix.errors import LMStrixError
from lmstrix.json_values import Json, parse_object
from lmstrix.models import Reply
from lmstrix.serialize import to_json

PROGRESS = {"prompt_progress": {"total": 5, "cache": 1, "processed": 3, "time_ms": 4}}
PIECE = {"content": "<think>a</think>b", "stop": False, "tokens": [1]}
LAST = {
    "content": "",
    "stop": True,
    "stop_type": "limit",
    "truncated": False,
    "tokens_evaluated": 5,
    "tokens_predicted": 2,
    "timings": {"cache_n": 3, "prompt_n": 2, "predicted_n": 2, "predicted_per_second": 80.5},
}
ERROR = {"code": 400, "message": "no", "type": "exceed_context_size_error", "n_ctx": 5}
EVENTS = [PROGRESS, PIECE, LAST]
STREAM = b": a comment\n\n" + b"".join(
    b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in EVENTS
)


def _objects(value: object) -> list[Json]:
    items = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
    return [item for item in items if isinstance(item, dict)]  # pyright: ignore[reportUnknownVariableType]


async def _chunks(data: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def _read(data: bytes, size: int) -> list[Json]:
    async with aclosing(_chunks(data, size)) as chunks:
        reader = EventReader(chunks)
        events: list[Json] = []
        while (event := await reader.next()) is not None:
            events.append(event)
        return events


def _reply(events: list[Json]) -> Reply:
    generation = Generation(prompt_tokens=5, max_tokens=9, in_thought=False)
    for event in events:
        generation.feed(event, 1.5)
    if generation.reply is None:
        raise LMStrixError("no reply")
    return generation.reply


@fuzz
@given(damaged(STREAM), st.sampled_from([1, 7, 1000]))
def test_streams(data: bytes, size: int) -> None:
    events = put_through("engine's event stream", lambda: anyio.run(_read, data, size))
    whole = put_through("engine's event stream", lambda: anyio.run(_read, data, 10**6))
    assert events == whole  # wherever the pieces end


@fuzz
@given(changed(EVENTS))
@example([{**LAST, "timings": {"predicted_n": 2, "predicted_per_second": 10**400}}])
@example([{**LAST, "stop_type": deep(3000)}])
@example([{**LAST, "tokens_predicted": 10**4299, "timings": {}}])
@example([{"error": {"message": deep(3000)}}])
def test_replies(value: object) -> None:
    reply = put_through("engine's reply", lambda: _reply(_objects(value)))
    if reply is not None:
        assert 0 <= reply.generated_tokens < 2**64
        assert json.loads(to_json(reply))["text"] == reply.text


@fuzz
@given(changed({"error": ERROR}) | VALUES | TEXTS, st.integers(-1, 999))
def test_errors(body: object, status: int) -> None:
    answer = parse_object(as_text(body).encode())
    error = put_through("engine's error", lambda: server_error(status, answer))
    assert len(str(error)) < 1000


@fuzz
@given(damaged(json.dumps(ERROR).encode()) | st.binary(max_size=50))
def test_answers(data: bytes) -> None:
    assert put_through("engine's answer", lambda: parse_object(data) or {}) is not None
