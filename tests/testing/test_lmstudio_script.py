"""What a script makes the stand-in LM Studio do wrong, as LM Studio's own SDK sees it."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import pytest
from lmstudio import (
    AsyncClient,
    AsyncLLM,
    LlmPredictionConfig,
    LMStudioServerError,
    LMStudioWebsocketError,
)

from lmstrix.testing.lmstudio import (
    OVERFLOW_TEXTS,
    LMStudioServer,
    Script,
)
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=8192, true_context=1500)
STOP = LlmPredictionConfig(max_tokens=16, context_overflow_policy="stopAtLimit")


pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as the SDK


@asynccontextmanager
async def scripted(
    script: Script, model: SimulatedModel = MODEL
) -> AsyncGenerator[tuple[LMStudioServer, AsyncClient], None]:
    with anyio.fail_after(20):
        async with (
            LMStudioServer(SimulatedAdapter(model), script=script) as server,
            AsyncClient(server.host) as client,
        ):
            yield server, client


async def load(client: AsyncClient, context: int = 2000) -> AsyncLLM:
    return await client.llm.load_new_instance("m", ttl=60, config={"contextLength": context})


async def test_truncation_against_the_policy() -> None:
    text = "word " * 3000
    async with scripted(Script(truncates=True)) as (_, client):
        stats = (await (await load(client)).complete(text, config=STOP)).stats
        assert stats.stop_reason == "eosFound"
        assert (stats.prompt_tokens_count or 0) < 2000
    async with scripted(Script(truncates=True, hides_truncation=True)) as (_, client):
        stats = (await (await load(client)).complete(text, config=STOP)).stats
        assert (stats.prompt_tokens_count or 0) > 3000


@pytest.mark.parametrize(
    ("script", "stays"), [(Script(drop_at_load=1), []), (Script(drop_after_load=1), ["m"])]
)
async def test_a_socket_is_dropped_at_a_load_and_the_next_client_is_served(
    script: Script, stays: list[str]
) -> None:
    async with scripted(script) as (server, client):
        with pytest.raises(LMStudioWebsocketError):
            await load(client)
        assert server.left_behind == stays
        async with AsyncClient(server.host) as again:
            for instance in stays:
                await again.llm.unload(instance)
            assert await (await load(again)).get_context_length() == 2000


async def test_an_overflow_may_look_like_an_error_or_like_success() -> None:
    for text in OVERFLOW_TEXTS:
        async with scripted(Script(overflow_error=text)) as (_, client):
            model = await load(client)
            with pytest.raises(LMStudioServerError, match=re.escape(text)):
                await model.complete("word " * 3000, config=STOP)
    async with scripted(Script(overflow_empty=True)) as (_, client):
        result = await (await load(client)).complete("word " * 3000, config=STOP)
        assert (result.content, result.stats.stop_reason) == ("", "eosFound")
