"""Headers of GGUF files, damaged or built to lie, and what the embedded engine's server sends."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest
from fuzz_counts import put_through
from fuzz_values import NAMES, TEXTS, VALUES, as_text, changed, damaged, deep, fuzz, texts_of
from hypothesis import example, given
from hypothesis import strategies as st

from lmstrix.adapters.llamacpp import loaded
from lmstrix.adapters.llamacpp.catalogue import described_model, find_model, list_models
from lmstrix.adapters.llamacpp.gguf import GgufHeader, read_header
from lmstrix.adapters.llamacpp.loaded import Generation, read_events, server_error
from lmstrix.errors import EngineUnavailable, InvalidModel, LMStrixError
from lmstrix.json_values import Json, parse_object
from lmstrix.models import Reply
from lmstrix.serialize import to_json

HUGE = st.sampled_from([2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1])
COUNTS = st.integers(0, 5) | HUGE
KEYS = (
    "general.architecture",
    "general.alignment",
    "general.file_type",
    "general.name",
    "general.type",
    "llama.context_length",
    "llama.attention.head_count_kv",
    "llama.attention.causal",
    "split.count",
    "tokenizer.ggml.tokens",
    "tokenizer.chat_template",
)
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def _u64(number: int) -> bytes:
    return struct.pack("<Q", number)


@st.composite
def texts(draw: st.DrawFn, text: st.SearchStrategy[str] = NAMES) -> bytes:
    """A string, of which one in ten says another length than it has."""
    data = draw(text).encode("utf-8", "surrogatepass")
    length = draw(COUNTS) if draw(st.integers(0, 9)) == 0 else len(data)
    return _u64(length) + data


@st.composite
def bodies(draw: st.DrawFn, kind: int, depth: int = 0) -> bytes:
    if kind == 8:
        return draw(texts())
    if kind != 9:
        size = SIZES.get(kind, 3)
        return draw(st.binary(min_size=size, max_size=size) | st.just(b"\xff" * size))
    kinds = [*SIZES, 8, 77, *([9, 9, 9] if depth < 6 else [])]
    inner = draw(st.sampled_from(kinds))
    items = [draw(bodies(inner, depth + 1)) for _ in range(draw(st.integers(0, 3)))]
    length = draw(COUNTS) if draw(st.integers(0, 9)) == 0 else len(items)
    return struct.pack("<I", inner) + _u64(length) + b"".join(items)


@st.composite
def pairs(draw: st.DrawFn) -> bytes:
    key = draw(texts(st.sampled_from(KEYS) | NAMES))
    kind = draw(st.sampled_from([*SIZES, 8, 8, 9, 9]) | st.integers(0, 2**32 - 1))
    return key + struct.pack("<I", kind) + draw(bodies(kind))


@st.composite
def tensors(draw: st.DrawFn) -> bytes:
    shape = draw(st.lists(st.integers(1, 8) | HUGE, max_size=9))
    count = draw(COUNTS) & 0xFFFFFFFF if draw(st.integers(0, 9)) == 0 else len(shape)
    kind = draw(st.sampled_from([0, 1, 2, 8, 12, 30, 99, 2**32 - 1]))
    offset = draw(st.sampled_from([0, 0, 0, 32, 2**63]))
    head = draw(texts(st.text(max_size=5))) + struct.pack("<I", count)
    return head + b"".join(map(_u64, shape)) + struct.pack("<IQ", kind, offset)


def _file(pairs: list[bytes], tensors: list[bytes], version: int = 3) -> bytes:
    named = _pair("general.architecture", 8, _u64(5) + b"llama")
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs) + 1)
    header = head + named + b"".join(pairs + tensors)
    return header + b"\0" * (-len(header) % 32 + 512)


def _pair(key: str, kind: int, body: bytes) -> bytes:
    return _u64(len(key)) + key.encode() + struct.pack("<I", kind) + body


GOOD = _file(
    [
        _pair("general.name", 8, _u64(4) + b"Tiny"),
        _pair("general.file_type", 4, struct.pack("<I", 15)),
        _pair("llama.context_length", 4, struct.pack("<I", 4096)),
        _pair("llama.attention.head_count_kv", 9, struct.pack("<IQII", 4, 2, 2, 0)),
        _pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + (_u64(1) + b"a") * 2),
    ],
    [_u64(1) + b"t" + struct.pack("<IQIQ", 1, 32, 0, 0)],
)
LIES = st.builds(_file, st.lists(pairs(), max_size=4), st.lists(tensors(), max_size=3))
VAST = _u64(1) + b"t" + struct.pack("<I8QIQ", 8, *[2**64 - 1] * 8, 99, 0)
FILE_NAMES = st.sampled_from(["m.gguf", "m-00001-of-00002.gguf", "m-00001-of-99999.gguf"])


def _sound(header: GgufHeader) -> GgufHeader:
    assert header.context_length is None or 1 <= header.context_length <= 2**31
    assert header.file_bytes < 2**20
    return header


@fuzz
@given(
    damaged(GOOD) | LIES | st.binary(max_size=200).map(lambda rest: b"GGUF\3\0\0\0" + rest),
    FILE_NAMES,
    NAMES,
)
@example(_file([], [VAST]), "m.gguf", "m")
def test_files(content: bytes, file_name: str, name: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, file_name)
        path.write_bytes(content)
        put_through("GGUF header", lambda: _sound(read_header(path)), InvalidModel)
        models = put_through("GGUF file", lambda: list_models([path.parent]))
        assert models is not None
        [model] = models
        assert model == described_model(model.key, path)
        # A vast shape of a type that nobody knows makes no vast text.
        assert len(model.parameters) < 2000
        put_through("name of a GGUF file", lambda: find_model([path.parent], name))


# What the engine's server sends ------------------------------------------------------------------

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
STREAM = (
    b": a comment\n\nevent: message\nid: 1\n"
    + b"".join(b"data: " + json.dumps(event).encode() + b"\r\n\r\n" for event in EVENTS)
    + b'data:{"a": "\xc3\xa4"}\n\ndata: [DONE]\n\nerror: {"message": "no"}\n\n'
)
SENT = [*EVENTS, {"a": "ä"}, {"error": {"message": "no"}}]


def _objects(value: object) -> list[Json]:
    items = value if isinstance(value, list) else [value]  # pyright: ignore[reportUnknownVariableType]
    return [item for item in items if isinstance(item, dict)]  # pyright: ignore[reportUnknownVariableType]


async def _read(data: bytes, size: int) -> list[Json]:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(data), size):
            yield data[at : at + size]

    async with aclosing(chunks()) as pieces, aclosing(read_events(pieces)) as events:
        return [event async for event in events]


def _reply(events: list[Json]) -> Reply:
    generation = Generation(prompt_tokens=5, max_tokens=9, in_thought=False)
    for event in events:
        generation.feed(event, 1.5)
    if generation.reply is None:
        raise LMStrixError("no reply")
    return generation.reply


@fuzz
@given(damaged(STREAM), st.sampled_from([1, 7, 1000]))
@example(STREAM, 1)
def test_streams(data: bytes, size: int) -> None:
    events = put_through("engine's event stream", lambda: anyio.run(_read, data, size))
    whole = put_through("engine's event stream", lambda: anyio.run(_read, data, 10**6))
    assert events == whole  # wherever the pieces end
    assert data != STREAM or events == SENT


async def test_what_is_no_event_is_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in (b"data: {", b"data: 7", b"data: [1]", b"data: \xff\xfe"):
        with pytest.raises(EngineUnavailable, match="not JSON"):
            await _read(line + b"\n", 7)
    monkeypatch.setattr(loaded, "MAX_LINE_BYTES", 100)
    with pytest.raises(EngineUnavailable, match="without an end"):
        await _read(b"data: " + b"x" * 200, 7)


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
@given(texts_of({"error": ERROR}) | (VALUES | TEXTS).map(as_text), st.integers(-1, 999))
def test_errors(text: str, status: int) -> None:
    data = text.encode("utf-8", "surrogateescape")
    answer = put_through("engine's answer", lambda: parse_object(data) or {})
    error = put_through("engine's error", lambda: server_error(status, answer or None))
    assert len(str(error)) < 1000
