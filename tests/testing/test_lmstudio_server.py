"""The stand-in LM Studio through LM Studio's own SDK, which runs on asyncio only."""

from __future__ import annotations

import errno
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from lmstudio import (
    AsyncClient,
    AsyncLLM,
    LlmPredictionConfig,
    LMStudioModelNotFoundError,
    LMStudioServerError,
)

from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=8192, true_context=1500)
STOP = LlmPredictionConfig(max_tokens=16, temperature=0.0, context_overflow_policy="stopAtLimit")
FACT = "The mill stands at river 42. "


def chat(user: str, answer_prefix: str = "") -> dict[str, object]:
    turns = [("user", user)] + ([("assistant", answer_prefix)] if answer_prefix else [])
    return {"messages": [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in turns]}


QUESTION = chat(FACT + "Where is the mill?", "The mill stands at")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def connected(server: LMStudioServer) -> AsyncGenerator[AsyncClient, None]:
    with anyio.fail_after(20):
        async with server, AsyncClient(server.host) as client:
            yield client


async def load(client: AsyncClient, name: str = "ours", context: int = 2000) -> AsyncLLM:
    return await client.llm.load_new_instance("m", name, ttl=60, config={"contextLength": context})


def serving(model: SimulatedModel = MODEL, **settings: object) -> LMStudioServer:
    return LMStudioServer(SimulatedAdapter(model), **settings)  # type: ignore[arg-type]  # as given


async def test_it_lists_loads_and_unloads() -> None:
    server = serving()
    async with connected(server) as client:
        (listed,) = await client.llm.list_downloaded()
        assert (listed.model_key, listed.info.max_context_length) == ("m", 8192)
        seen: list[float] = []
        model = await client.llm.load_new_instance(
            "m",
            "ours",
            ttl=60,
            config={"contextLength": 2000, "flashAttention": True},
            on_load_progress=seen.append,
        )
        assert await model.get_context_length() == 2000
        assert [i.identifier for i in await client.llm.list_loaded()] == ["ours"]
        assert server.left_behind == ["ours"]
        assert (seen[0], seen[-1]) == (0.0, 1.0)
        await model.unload()
        assert await client.llm.list_loaded() == []
    assert (server.counters.loads, server.counters.unloads, server.left_behind) == (1, 1, [])
    (record,) = server.loads
    assert (record.key, record.identifier) == ("m", "ours")
    assert (record.ttl_ms, record.context) == (60000, 2000)
    assert record.fields == {"llm.load.contextLength": 2000, "llm.load.llama.flashAttention": True}


async def test_a_raw_completion_of_its_template_is_the_chat() -> None:
    server = serving()
    async with connected(server) as client:
        model = await load(client)
        text = await model.apply_prompt_template(QUESTION)  # type: ignore[arg-type]  # a dict is a chat
        counted = await model.count_tokens(text)
        assert len(await model.tokenize(text)) == counted
        progress: list[float] = []
        stream = await model.complete_stream(
            text, config=STOP, on_prompt_processing_progress=progress.append
        )
        fragments = [fragment.content async for fragment in stream]
        result = stream.result()
        assert "".join(fragments) == result.content == " river 42. "
        assert result.stats.prompt_tokens_count == counted
        assert result.stats.stop_reason == "eosFound"
        assert result.load_config.context_length == 2000
        assert progress[-1] == 1.0
        spoken = await model.respond(QUESTION, config=STOP)  # type: ignore[arg-type]  # a dict is a chat
        assert spoken.content == result.content
        assert spoken.stats.prompt_tokens_count == counted
    record, _ = server.predictions
    assert record.raw
    assert record.fields["llm.prediction.contextOverflowPolicy"] == "stopAtLimit"


async def test_a_prompt_that_does_not_fit_stops_or_is_cut() -> None:
    async with connected(serving()) as client:
        model = await load(client)
        long = FACT + "word " * 3000
        stopped = await model.complete(long, config=STOP)
        assert (stopped.content, stopped.stats.stop_reason) == ("", "contextLengthReached")
        assert (stopped.stats.prompt_tokens_count or 0) > 3000
        cut = await model.complete(long, config={"maxTokens": 16})
        assert cut.content
        assert 1000 < (cut.stats.prompt_tokens_count or 0) < 2000


async def test_reasoning_comes_apart_from_the_answer() -> None:
    model = SimulatedModel(key="m", reasoning="Let me think.")
    async with connected(serving(model)) as client:
        stream = await (await load(client)).respond_stream("Where?", config=STOP)
        pieces = [(f.reasoning_type, f.content) async for f in stream]
    assert "".join(text for kind, text in pieces if kind == "reasoning") == "Let me think."
    assert "".join(text for kind, text in pieces if kind == "none") == " something else."


async def test_unknown_models_and_identifiers_are_told_as_lm_studio_does() -> None:
    async with connected(serving()) as client:
        with pytest.raises(LMStudioModelNotFoundError):
            await client.llm.load_new_instance("nonsense")
        with pytest.raises(LMStudioServerError, match="identifierNotFound"):
            await client.llm.unload("nobody")
        await load(client)
        with pytest.raises(LMStudioServerError, match="already loaded"):
            await load(client)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (SimulatedModel(key="m", refused_above=1000), "insufficient system resources"),
        (SimulatedModel(key="m", loadable=1000), "Failed to load model"),
    ],
)
async def test_a_load_that_fails_leaves_nothing(model: SimulatedModel, words: str) -> None:
    server = serving(model)
    async with connected(server) as client:
        with pytest.raises(LMStudioServerError, match=words):
            await load(client)
        assert await client.llm.list_loaded() == []
        await load(client, context=1000)


async def test_a_crash_takes_the_instance_with_it() -> None:
    server = serving(SimulatedModel(key="m", true_context=500, beyond=Beyond.CRASHES))
    async with connected(server) as client:
        model = await load(client)
        with pytest.raises(LMStudioServerError, match="has crashed without additional"):
            await model.complete("word " * 1000, config=STOP)
        assert await client.llm.list_loaded() == []
        assert (await (await load(client)).complete("word", config=STOP)).content


@pytest.mark.parametrize(
    ("preload", "taken"), [([("m", "mine", 4096)], ("mine", 4096)), ([], ("m", 512))]
)
async def test_get_or_load_takes_what_is_there(preload: object, taken: object) -> None:
    async with connected(serving(preload=preload)) as client:
        model = await client.llm.model("m", config={"contextLength": 512})
        assert (model.identifier, await model.get_context_length()) == taken


async def test_users_own_instances_are_watched() -> None:
    server = serving(preload=[("m", "mine", 4096)])
    async with connected(server) as client:
        model = await load(client)
        await model.complete("word", config=STOP)
        await model.unload()
        assert server.user_instances_untouched
    assert server.user_instances_untouched
    async with connected(server) as client:
        await client.llm.unload("mine")
        assert not server.user_instances_untouched


async def test_cancelling_a_prediction_stops_the_adapter() -> None:
    adapter = SimulatedAdapter(MODEL, reply_seconds=60)
    server = LMStudioServer(adapter)
    async with connected(server) as client:
        model = await load(client)
        stream = await model.complete_stream("word", config=STOP)
        async with stream:  # this starts it
            await server.reached(lambda: adapter.counters.replies == 1)
            await stream.cancel()
            assert [fragment async for fragment in stream] == []
        assert stream.result().stats.stop_reason == "userStopped"
        assert server.predictions[0].stop_reason == "userStopped"
        await model.unload()
    assert (server.counters.cancels, adapter.counters.left_behind) == (1, 0)


async def test_unloading_while_it_answers_ends_the_answer() -> None:
    adapter = SimulatedAdapter(MODEL, reply_seconds=60)
    server = LMStudioServer(adapter)
    async with connected(server) as client:
        model = await load(client)
        async with anyio.create_task_group() as tasks:

            async def unload() -> None:
                await server.reached(lambda: adapter.counters.replies == 1)
                await client.llm.unload("ours")

            tasks.start_soon(unload)
            with pytest.raises(LMStudioServerError, match="unloaded"):
                await model.complete("word", config=STOP)
        assert server.left_behind == []


async def test_an_idle_instance_goes_after_its_time_to_live() -> None:
    server = serving()
    async with connected(server) as client:
        await client.llm.load_new_instance("m", "short", ttl=1)
        await load(client, "long")
        await server.reached(lambda: server.left_behind == ["long"], within_s=10)


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with serving(preload=[("m", "mine", 4096)]):
            _ = 1 / 0


async def test_two_servers_do_not_share_a_port() -> None:
    async with serving() as server:
        with pytest.raises(OSError) as caught:  # noqa: PT011 - its words are the system's
            await serving(port=server.port).__aenter__()
        assert caught.value.errno == errno.EADDRINUSE


async def test_it_serves_only_the_models_that_were_named() -> None:
    adapter = SimulatedAdapter(SimulatedModel(key="folder/b.GGUF"), SimulatedModel(key="m"))
    async with connected(LMStudioServer(adapter, models=("folder/b.GGUF",))) as client:
        (listed,) = await client.llm.list_downloaded()
        assert (listed.model_key, listed.path) == ("b", "b/b.gguf")
        assert (await client.llm.load_new_instance("b/b.gguf")).identifier == "b"
        with pytest.raises(LMStudioModelNotFoundError):
            await client.llm.load_new_instance("m")


async def test_starting_it_again_is_a_new_start_on_the_same_port() -> None:
    server = serving()
    async with connected(server) as client:
        await load(client)
        host = server.host
    async with connected(server) as client:
        assert (server.host, server.counters.loads) == (host, 0)
        assert await client.llm.list_loaded() == []
