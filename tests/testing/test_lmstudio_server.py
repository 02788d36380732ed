"""The stand-in LM Studio through LM Studio's own SDK, which runs on asyncio only."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import lmstudio
import pytest
from lmstudio import AsyncClient, AsyncLLM, LlmPredictionConfig

from lmstrix.testing.lmstudio import OVERFLOW_TEXTS, LMStudioServer, Script
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=8192, true_context=1500)
STOP = LlmPredictionConfig(max_tokens=16, temperature=0.0, context_overflow_policy="stopAtLimit")


pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as the SDK


@asynccontextmanager
async def connected(server: LMStudioServer) -> AsyncGenerator[AsyncClient, None]:
    with anyio.fail_after(20):
        async with server, AsyncClient(server.host) as client:
            yield client


async def load(client: AsyncClient, name: str = "ours", context: int = 2000) -> AsyncLLM:
    return await client.llm.load_new_instance("m", name, ttl=60, config={"contextLength": context})


def serving(model: SimulatedModel = MODEL, **settings: object) -> LMStudioServer:
    return LMStudioServer(SimulatedAdapter(model), **settings)  # type: ignore[arg-type]  # as given


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
            with pytest.raises(lmstudio.LMStudioServerError, match="unloaded"):
                await model.complete("word", config=STOP)
        assert server.left_behind == []


async def test_an_idle_instance_goes_after_its_time_to_live() -> None:
    server = serving()
    async with connected(server) as client:
        await client.llm.load_new_instance("m", "short", ttl=1)
        await load(client, "long")
        await server.reached(lambda: server.left_behind == ["long"], within_s=10)


async def test_it_serves_only_the_models_that_were_named() -> None:
    adapter = SimulatedAdapter(SimulatedModel(key="folder/b.GGUF"), SimulatedModel(key="m"))
    async with connected(LMStudioServer(adapter, models=("folder/b.GGUF",))) as client:
        (listed,) = await client.llm.list_downloaded()
        assert (listed.model_key, listed.path) == ("b", "b/b.gguf")
        assert (await client.llm.load_new_instance("b/b.gguf")).identifier == "b"
        with pytest.raises(lmstudio.LMStudioModelNotFoundError):
            await client.llm.load_new_instance("m")


async def test_starting_it_again_is_a_new_start_on_the_same_port() -> None:
    server = serving()
    async with connected(server) as client:
        await load(client)
        host = server.host
    async with connected(server) as client:
        assert (server.host, server.counters.loads) == (host, 0)
        assert await client.llm.list_loaded() == []


async def test_truncation_against_the_policy() -> None:
    text = "word " * 3000
    async with connected(serving(script=Script(truncates=True))) as client:
        stats = (await (await load(client)).complete(text, config=STOP)).stats
        assert stats.stop_reason == "eosFound"
        assert (stats.prompt_tokens_count or 0) < 2000
    async with connected(serving(script=Script(truncates=True, hides_truncation=True))) as client:
        stats = (await (await load(client)).complete(text, config=STOP)).stats
        assert (stats.prompt_tokens_count or 0) > 3000


@pytest.mark.parametrize(
    ("script", "stays"), [(Script(drop_at_load=1), []), (Script(drop_after_load=1), ["ours"])]
)
async def test_a_dropped_socket_and_the_next_client(script: Script, stays: list[str]) -> None:
    server = serving(script=script)
    async with connected(server) as client:
        with pytest.raises(lmstudio.LMStudioWebsocketError):
            await load(client)
        assert server.left_behind == stays
        async with AsyncClient(server.host) as again:
            for instance in stays:
                await again.llm.unload(instance)
            assert await (await load(again)).get_context_length() == 2000


async def test_an_overflow_may_look_like_an_error_or_like_success() -> None:
    for text in OVERFLOW_TEXTS:
        async with connected(serving(script=Script(overflow_error=text))) as client:
            model = await load(client)
            with pytest.raises(lmstudio.LMStudioServerError, match=re.escape(text)):
                await model.complete("word " * 3000, config=STOP)
    async with connected(serving(script=Script(overflow_empty=True))) as client:
        result = await (await load(client)).complete("word " * 3000, config=STOP)
        assert (result.content, result.stats.stop_reason) == ("", "eosFound")
