"""The adapter for OpenAI's chat API over a stand-in, on both event loops."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest

from lmstrix.adapters.counted import CountedModel
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    EngineTimeout,
    EngineUnavailable,
)
from lmstrix.models import Prompt, StopReason
from lmstrix.testing.contracts.adapter import AdapterContract
from lmstrix.testing.http_server import Answer, Request
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

SENTENCE = "The river runs past the old mill. "
QUESTION = Prompt(user="What runs past the mill?", answer_prefix="The")


@asynccontextmanager
async def loading(
    script: OpenAIScript | None = None, **settings: object
) -> AsyncGenerator[tuple[OpenAIServer, OpenAIAdapter, CountedModel], None]:
    async with OpenAIServer(SimulatedAdapter(SimulatedModel(key="m")), script=script) as server:
        adapter = OpenAIAdapter(server.host, busy_s=5, **settings)  # pyright: ignore[reportArgumentType]
        model = await adapter.find_model("m")
        async with adapter.load(model, 8192) as loaded:
            yield server, adapter, loaded


class TestContract(AdapterContract):
    @pytest.fixture
    async def server(self) -> AsyncGenerator[OpenAIServer, None]:
        async with OpenAIServer(SimulatedAdapter(SimulatedModel(key="org/m"))) as server:
            yield server

    @pytest.fixture
    def adapter(self, server: OpenAIServer) -> OpenAIAdapter:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        return OpenAIAdapter(server.host)

    @pytest.fixture
    def model_name(self) -> str:
        return "m"


@pytest.mark.parametrize(
    "script",
    [
        OpenAIScript(),
        OpenAIScript(echoes=True),
        OpenAIScript(strict=True),
        OpenAIScript(strict=True, prefill=False),
        OpenAIScript(usage_asked=False, prefill=False),
    ],
    ids=["continued", "repeated", "last message", "asked for", "without asking for counts"],
)
async def test_the_first_words_are_given_in_a_form_that_the_server_takes(
    script: OpenAIScript,
) -> None:
    async with loading(script) as (server, _, loaded):
        prompt = Prompt(user=f"{SENTENCE}\n\nSay it.", answer_prefix="The river runs")
        assert (await loaded.complete(prompt, max_tokens=8)).text == " past the old mill."
        before = len(server.requests)
        await loaded.complete(prompt, max_tokens=8)
        assert len(server.requests) == before + 1


async def test_cached_tokens_are_what_the_server_says() -> None:
    async with loading() as (_, _, loaded):
        await loaded.complete(Prompt(user=SENTENCE * 50), max_tokens=4)
        reply = await loaded.complete(Prompt(user=SENTENCE * 50), max_tokens=4)
        assert reply.cached_tokens is not None
        assert reply.cached_tokens > 0.9 * reply.prompt_tokens


async def test_a_declared_length_may_be_given() -> None:
    async with loading(OpenAIScript(declares=False)) as (_, _, loaded):
        assert loaded.model.declared_context is None
        assert loaded.effective_context == 8192
    async with loading(OpenAIScript(declares=False), declared=4096) as (_, _, loaded):
        assert loaded.model.declared_context == loaded.effective_context == 4096


async def test_a_reply_that_ends_without_a_reason_is_whole() -> None:
    """If the server says at least that it is done."""
    async with loading(OpenAIScript(reasons=False)) as (_, _, loaded):
        assert (await loaded.complete(QUESTION, max_tokens=4)).text


class WaitingServer(OpenAIServer):
    """Sends comments in place of a reply, as if it was still at work."""

    async def handle(self, request: Request, answer: Answer) -> None:
        """Comments without an end to a request for a reply."""
        if request.method == "POST":
            await answer.begin("text/event-stream")
            while True:
                await answer.piece(b": waiting\n\n")
                await anyio.sleep(0.05)
        await super().handle(request, answer)


async def test_comments_without_an_event_are_no_progress() -> None:
    async with WaitingServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        adapter = OpenAIAdapter(server.host, stall_timeout_s=0.2)
        with anyio.fail_after(30), pytest.raises(EngineTimeout):
            async with adapter.load(await adapter.find_model("m"), 8192):
                raise AssertionError


END = b'"finish_reason": "stop"}], "usage": {"prompt_tokens": 9}}'


class FixedServer(OpenAIServer):
    """Answers the same bytes to every request for a reply."""

    data = b""

    async def handle(self, request: Request, answer: Answer) -> None:
        """The bytes."""
        if request.method == "POST":
            await answer.begin("application/json")
            await answer.piece(self.data)
            await answer.end()
        else:
            await super().handle(request, answer)


async def test_an_error_inside_a_stream_has_its_own_status() -> None:
    """Too many requests say nothing about the prompt, however long it is."""
    async with FixedServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        adapter = OpenAIAdapter(server.host)
        server.data = b'data: {"error": {"code": 429, "message": "Provider returned error"}}\n\n'
        with pytest.raises(EngineUnavailable) as caught:
            async with adapter.load(await adapter.find_model("m"), 8192):
                raise AssertionError
    assert type(caught.value) is EngineUnavailable


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"choices": [{"delta": {"content": "x"}, ' + END,
        b'data: {"choices": [{"delta": {"content": "x"},\r\n: waiting\r\ndata: ' + END,
        b'{"choices": [{"message": {"content": "x"}, ' + END,
    ],
    ids=["last line without an end", "one event in two lines", "not streamed"],
)
async def test_replies_in_other_forms(data: bytes) -> None:
    async with FixedServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        server.data = data
        adapter = OpenAIAdapter(server.host)
        async with adapter.load(await adapter.find_model("m"), 8192) as loaded:
            assert (await loaded.complete(QUESTION, max_tokens=4)).text == "x"
        server.data = data[:-9]
        with pytest.raises(ConnectionLost, match="too early"):
            async with adapter.load(await adapter.find_model("m"), 8192):
                raise AssertionError


async def test_a_filtered_reply_is_no_answer() -> None:
    async with loading(OpenAIScript(filters=True)) as (_, _, loaded):
        reply = await loaded.complete(QUESTION, max_tokens=4)
        assert (reply.text, reply.stop_reason) == ("", StopReason.CANCELLED)


async def test_a_server_elsewhere_costs_money() -> None:
    """It is refused before anything is sent there."""
    adapter = OpenAIAdapter("https://models.example.invalid/v1")
    async with loading() as (_, _, loaded):
        with pytest.raises(ConfigurationError, match="32,768 tokens") as caught:
            async with adapter.load(loaded.model, 8192):
                raise AssertionError
    assert "--budget-tokens" in caught.value.hint
    accepting = OpenAIAdapter("https://models.example.invalid/v1", accept_cost=True)
    with pytest.raises(EngineUnavailable):
        async with accepting.load(loaded.model, 8192):
            raise AssertionError


@pytest.mark.parametrize(
    "host",
    [
        "",
        "http://",
        "ftp://a:1",
        "a b:1",
        "http://user:secret@host:1",
        "host:x",
        "h:1?k=v",
        "192.168.1.256:1",
    ],
)
def test_an_address_that_is_none(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTRIX_HOST", "::nonsense::")
    with pytest.raises(ConfigurationError) as caught:
        OpenAIAdapter(host)
    assert "secret" not in str(caught.value)
