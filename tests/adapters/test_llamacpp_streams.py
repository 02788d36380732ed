"""Leaving a reply early, before a server of ours that writes as it is told to."""

from __future__ import annotations

import gc
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import cast

import anyio
import httpx
import pytest
from anyio.abc import ByteStream, SocketAttribute

from lmstrix.adapters.llamacpp.engine import Engine
from lmstrix.adapters.llamacpp.loaded import LlamaCppModel
from lmstrix.models import Prompt, ReplyChunk
from lmstrix.testing.samples import sample_model

PIECE = b'data: {"content": "word ", "stop": false}\n\n'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Alive:
    """An engine whose process lives."""

    async def death(self, wait_s: float) -> None:
        del wait_s


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@asynccontextmanager
async def serving(reply: bytes) -> AsyncGenerator[LlamaCppModel]:
    """A model whose server begins every reply with `reply`, and never ends it."""

    async def serve(stream: ByteStream) -> None:
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
            async for _ in stream:  # until it is left
                pass

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(SocketAttribute.local_port)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            limits=httpx.Limits(max_keepalive_connections=0),
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
    [
        chunk(PIECE),
        chunk(PIECE * 3),
        chunk(PIECE) * 3,
        chunk(PIECE) + chunk(b"data: no JSON\n\n"),
    ],
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
