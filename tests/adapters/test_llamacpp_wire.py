"""The engine's server on the wire: events, replies, errors, and replies that are left early."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import cast

import anyio
import httpx
import pytest
from anyio.abc import ByteStream, SocketAttribute

from lmstrix import errors
from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.adapters.llamacpp.engine import Engine, load_failure
from lmstrix.adapters.llamacpp.loaded import Generation, LlamaCppModel, server_error
from lmstrix.errors import (
    ConnectionLost,
    ContextOverflow,
    EngineTimeout,
    EngineUnavailable,
    PredictionError,
    PromptTruncated,
)
from lmstrix.json_values import Json
from lmstrix.models import Prompt, Reply, ReplyChunk, StopReason
from lmstrix.testing.samples import sample_model

LAST = {
    "content": "",
    "stop": True,
    "stop_type": "limit",
    "truncated": False,
    "tokens_evaluated": 5,
    "tokens_predicted": 2,
    "timings": {"cache_n": 3, "prompt_n": 2, "predicted_n": 2, "predicted_per_second": 80.5},
    "a key of a later version": None,
}


def generation() -> Generation:
    return Generation(prompt_tokens=5, max_tokens=2, in_thought=False)


def finished(**changes: object) -> Reply:
    reply = generation()
    reply.feed({**LAST, **changes}, 1.0)
    assert reply.reply is not None
    return reply.reply


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stop_type": "eos"}, {"stop_reason": StopReason.END}),
        ({"stop_type": "word"}, {"stop_reason": StopReason.STOP_STRING}),
        ({"stop_type": "none"}, {"stop_reason": StopReason.UNKNOWN}),
        ({"stop_type": None}, {"stop_reason": StopReason.UNKNOWN}),
        (  # what is not told is not known
            {"timings": {"predicted_per_second": "fast"}, "tokens_evaluated": "many"},
            {"cached_tokens": None, "tokens_per_second": None, "generated_tokens": 2},
        ),
        (  # a single token has no speed
            {"timings": {"predicted_n": 1, "predicted_per_second": 1e6}},
            {"tokens_per_second": None},
        ),
        ({"truncated": True}, {"generated_tokens": 2}),  # full, but the reply is whole
    ],
)
def test_the_last_event_tells(changes: dict[str, object], told: dict[str, object]) -> None:
    reply = finished(**changes)
    assert {name: getattr(reply, name) for name in told} == told


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"truncated": True, "timings": {"predicted_n": 1}}, ContextOverflow, ""),
        ({"tokens_evaluated": 4}, PromptTruncated, "read 4 prompt tokens of 5"),
        ({"tokens_evaluated": 6}, PredictionError, "read 6 prompt tokens of 5"),
    ],
)
def test_a_reply_that_is_none(changes: dict[str, object], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said or None):
        finished(**changes)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"type": "exceed_context_size_error", "message": "m"}}, ContextOverflow),
        (500, {"error": {"message": "Context size has been exceeded."}}, ContextOverflow),
        (500, {"error": {"message": "Compute error."}}, PredictionError),
        (400, {"error": {"message": "bad template"}}, PredictionError),
        (401, {"error": {"message": "Invalid API Key"}}, EngineUnavailable),
        (503, {"error": {"message": "Loading model"}}, EngineUnavailable),
        (200, None, EngineUnavailable),
        (502, {"error": None}, ConnectionLost),
        (503, None, EngineUnavailable),
        (504, None, EngineTimeout),
        (500, {"error": "words"}, EngineUnavailable),
        (429, {"error": {"message": "slow down"}}, EngineUnavailable),
        (502, {"error": {"message": "bad gateway"}}, ConnectionLost),
    ],
)
def test_server_errors(status: int, body: Json | None, kind: type[Exception]) -> None:
    assert type(server_error(status, body)) is kind


# Failed loads ----------------------------------------------------------------------------------

STAMP = "0.00.243.008 "
SAID = {"error": "RuntimeError: Failed to init server", "kind": "load"}
ERRORS = {
    "ggml_aligned_malloc: insufficient memory (attempted to allocate 9 MB)": errors.OutOfMemory,
    "error loading model: mmap failed: Cannot allocate memory": errors.OutOfMemory,
    "load: tensor 'x' data is not within the file bounds, model is corrupted": errors.InvalidModel,
    "gguf_init_from_reader: failed to read key-value pairs": errors.InvalidModel,
    "error loading model: unknown model architecture: 'new'": errors.UnsupportedModel,
    "common_init_: something else": errors.LoadFailed,
    "load: error: invalid argument in a tensor": errors.LoadFailed,
}


@pytest.mark.parametrize(("words", "kind"), ERRORS.items())
def test_the_log_tells_why_a_load_failed(words: str, kind: type[Exception]) -> None:
    error = load_failure(SAID, 3, [f"{STAMP}I loading", f"{STAMP}E {words}"])
    assert type(error) is kind
    assert words in str(error)
    error = load_failure(SAID, 3, [f"{STAMP}I only information"])
    assert type(error) is errors.LoadFailed
    assert "Failed to init server" in str(error)


def test_impossible_settings_are_refused() -> None:
    for settings in ({"threads": 0}, {"stall_timeout_s": 0.0}, {"stall_timeout_s": float("nan")}):
        with pytest.raises(errors.ConfigurationError):
            LlamaCppAdapter([], **settings)  # pyright: ignore[reportArgumentType] - on purpose


# Replies that are left early -------------------------------------------------------------------

PIECE = b'data: {"content": "word ", "stop": false}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Alive:
    async def death(self, wait_s: float) -> None:
        del wait_s


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@asynccontextmanager
async def serving(reply: bytes, *, endless: bool = False) -> AsyncGenerator[LlamaCppModel]:
    """A model whose server begins every reply with `reply`, and never ends it."""

    async def serve(stream: ByteStream) -> None:
        with suppress(anyio.BrokenResourceError):
            async with stream:
                seen = b""
                while b"\r\n\r\n" not in seen:
                    seen += await stream.receive()
                path = seen.split(b" ", 2)[1]
                if path == b"/props":
                    await stream.send(answer({"default_generation_settings": {"n_ctx": 512}}))
                elif path == b"/tokenize":
                    await stream.send(answer({"tokens": [1, 2, 3]}))
                else:
                    await stream.send(HEAD + reply)
                    while endless:
                        await stream.send(reply)
                async for _ in stream:  # until it is left
                    pass

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(SocketAttribute.local_port)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", limits=httpx.Limits(max_keepalive_connections=0)
        ) as client:
            model = LlamaCppModel(
                cast("Engine", Alive()),
                client,
                sample_model(size_bytes=1),
                has_template=False,
                stall_timeout_s=5.0,
            )
            await model.read_properties()
            yield model
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    "reply",
    [chunk(PIECE), chunk(PIECE * 3), chunk(PIECE) * 3, chunk(PIECE) + chunk(b"data: no JSON\n\n")],
    ids=["one", "at once", "in chunks", "broken"],
)
async def test_what_was_sent_already_is_let_go(reply: bytes) -> None:
    """Whatever had come of the reply: trio warns of a reader that is left half way."""
    async with serving(reply) as model:
        stream = model.stream(Prompt(user="Go on."), max_tokens=8)
        async with aclosing(stream):
            assert isinstance(await anext(stream), ReplyChunk)
        with anyio.fail_after(5):
            assert await model.count_tokens("it goes on") == 3
        del stream
        gc.collect()


async def test_a_reply_that_never_ends_is_given_up() -> None:
    async with serving(chunk(PIECE), endless=True) as model:
        with anyio.fail_after(20), pytest.raises(EngineUnavailable, match="did not end"):
            await model.complete(Prompt(user="Go on."), max_tokens=8)
