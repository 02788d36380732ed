"""What a script makes the stand-in LM Studio do wrong, as LM Studio's own SDK sees it."""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from lmstudio import (
    AsyncClient,
    AsyncLLM,
    LlmPredictionConfig,
    LMStudioClientError,
    LMStudioServerError,
    LMStudioUnknownMessageWarning,
    LMStudioWebsocketError,
)

from lmstrix.testing.lmstudio import (
    ODD_LISTING,
    OVERFLOW_TEXTS,
    LMStudioServer,
    LoadFate,
    OddPacket,
    Script,
    Step,
)
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=8192, true_context=1500)
STOP = LlmPredictionConfig(max_tokens=16, context_overflow_policy="stopAtLimit")
SOON = 0.3
UNSEEN = {Step.GREETING, Step.UPGRADE, Step.AUTH, Step.ESTIMATE}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        (LoadFate.REFUSED, "insufficient system resources"),
        (LoadFate.FAILED, "could not load"),
        (LoadFate.OUT_OF_MEMORY, "unable to allocate"),
    ],
)
async def test_loads_meet_their_fate(fate: LoadFate, words: str) -> None:
    script = Script(load=fate, load_above=1000, load_times=1)
    async with scripted(script) as (server, client):
        await load(client, 1000)
        with pytest.raises(LMStudioServerError, match=words):
            await load(client, 1001)
        await load(client, 1001)
        assert server.counters.loads == 2


async def test_the_context_is_not_always_the_one_that_was_asked_for() -> None:
    async with scripted(Script(clamps_to=1000)) as (server, client):
        assert await (await load(client)).get_context_length() == 1000
        assert server.loads[0].fields == {"llm.load.contextLength": 2000}
    async with scripted(Script(raises_to=6553)) as (_, client):
        assert await (await load(client)).get_context_length() == 6553


async def test_a_load_that_hangs_ends_with_its_socket() -> None:
    async with scripted(Script(load=LoadFate.HANGS)) as (server, _):
        async with AsyncClient(server.host) as impatient:
            with anyio.move_on_after(SOON):
                await load(impatient)
            assert server.counters.cancels == 0  # the SDK says nothing when its caller gives up
        assert server.left_behind == []


async def test_a_hung_load_does_not_keep_others_waiting() -> None:
    script = Script(load=LoadFate.HANGS, load_above=1000)
    async with scripted(script) as (server, client), anyio.create_task_group() as tasks:
        tasks.start_soon(load, client)
        await server.reached(lambda: len(server.loads) == 1)
        async with AsyncClient(server.host) as other:
            assert await other.llm.list_loaded() == []
            assert await (await load(other, 1000)).get_context_length() == 1000
        tasks.cancel_scope.cancel()


async def test_a_crash_drops_every_connection_and_the_server_comes_back() -> None:
    script = Script(crash_drops_all_above=100)
    async with scripted(script) as (server, client), AsyncClient(server.host) as bystander:
        model = await load(client)
        assert (await model.complete("word " * 20, config=STOP)).content
        assert await bystander.llm.list_loaded()
        with pytest.raises(LMStudioWebsocketError):
            await model.complete("word " * 200, config=STOP)
        with pytest.raises(LMStudioWebsocketError):
            await bystander.llm.list_loaded()
        await server.reached(lambda: server.left_behind == [])
        async with AsyncClient(server.host) as again:
            assert await again.llm.list_loaded() == []
            assert (await (await load(again)).complete("word", config=STOP)).content
        assert server.counters.crashes == 1


async def test_after_a_crash_it_may_be_away_for_a_while() -> None:
    script = Script(crash_drops_all_above=100, crash_away_s=60)
    async with scripted(script) as (server, client):
        model = await load(client)
        with pytest.raises(LMStudioWebsocketError):
            await model.complete("word " * 200, config=STOP)
        async with httpx.AsyncClient() as plain:
            with pytest.raises(httpx.HTTPError):
                await plain.get(f"http://{server.host}/lmstudio-greeting")


async def test_truncation_against_the_policy() -> None:
    text = "word " * 3000
    async with scripted(Script(truncates=True)) as (_, client):
        stats = (await (await load(client)).complete(text, config=STOP)).stats
        assert stats.stop_reason == "eosFound"
        assert (stats.prompt_tokens_count or 0) < 2000
    async with scripted(Script(truncates=True, hides_truncation=True)) as (_, client):
        stats = (await (await load(client)).complete(text, config=STOP)).stats
        assert (stats.prompt_tokens_count or 0) > 3000


async def test_a_raw_completion_may_count_other_tokens() -> None:
    async with scripted(Script(raw_prompt_offset=3)) as (_, client):
        model = await load(client)
        raw = await model.complete("<|im_start|>user\nword<|im_end|>\n<|im_start|>assistant\n")
        spoken = await model.respond("word")
        assert raw.stats.prompt_tokens_count == (spoken.stats.prompt_tokens_count or 0) + 3


async def test_a_slow_load_and_a_slow_prefill_show_their_progress() -> None:
    script = Script(load_s=0.05, load_progress=4, prefill_s=0.2, fragment_s=0.01)
    async with scripted(script) as (_, client):
        loading: list[float] = []
        prefill: list[float] = []
        model = await client.llm.load_new_instance("m", on_load_progress=loading.append)
        text = "word " * 100
        await model.complete(text, config=STOP, on_prompt_processing_progress=prefill.append)
        assert len(loading) >= 6
        assert len(prefill) >= 4
        assert (loading, prefill) == (sorted(loading), sorted(prefill))


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


async def test_a_socket_is_dropped_in_a_prediction() -> None:
    async with scripted(Script(drop_in_prediction=2)) as (server, client):
        model = await load(client)
        await model.complete("word", config=STOP)
        with pytest.raises(LMStudioWebsocketError):
            await model.complete("word", config=STOP)
        async with AsyncClient(server.host) as again:
            (there,) = await again.llm.list_loaded()
            assert (await there.complete("word", config=STOP)).content


@pytest.mark.parametrize("step", sorted(set(Step) - UNSEEN))
async def test_silence_after_the_connection(step: Step) -> None:
    async with scripted(Script(silent_at=frozenset({step}))) as (server, client):
        reached: list[str] = []
        with anyio.move_on_after(SOON) as scope:
            await client.llm.list_downloaded()
            reached.append("list")
            model = await load(client)
            reached.append("load_created load_after_progress")
            await model.get_context_length()
            reached.append("info")
            await model.apply_prompt_template("word")
            reached.append("template")
            await model.count_tokens("word")
            reached.append("count")
            await model.complete("word", config=STOP)
            reached.append("predict_created predict_mid_stream")
            await model.unload()
            reached.append("unload")
        assert scope.cancelled_caught
        assert not any(step in passed.split() for passed in reached)
        if step is Step.LOAD_AFTER_PROGRESS:
            await server.reached(lambda: server.left_behind == ["m"])


class Estimate:
    """Parameters of a call that the SDK does not have."""

    def to_dict(self) -> dict[str, object]:
        return {"modelKey": "m", "loadConfigStack": {"layers": []}}


async def test_silence_at_an_estimate() -> None:
    script = Script(silent_at=frozenset({Step.ESTIMATE}), silent_after=1)
    async with scripted(script) as (_, client):
        parameter: Any = Estimate()
        answered = await client.llm.remote_call("estimateModelUsage", parameter)
        assert answered["passesGuardrails"] is True
        with anyio.move_on_after(SOON) as scope:
            await client.llm.remote_call("estimateModelUsage", parameter)
        assert scope.cancelled_caught


@pytest.mark.parametrize("step", [Step.UPGRADE, Step.AUTH])
async def test_silence_before_the_connection_and_then_no_more(step: Step) -> None:
    script = Script(silent_at=frozenset({step}), silent_times=1)
    async with LMStudioServer(SimulatedAdapter(MODEL), script=script) as server:
        with anyio.move_on_after(SOON) as scope:
            async with AsyncClient(server.host):
                pytest.fail("it connected")
        assert scope.cancelled_caught
        async with AsyncClient(server.host) as client:
            assert len(await client.llm.list_downloaded()) == 1


async def test_silence_at_the_greeting_reaches_the_sdks_own_deadline() -> None:
    script = Script(silent_at=frozenset({Step.GREETING}))
    async with LMStudioServer(SimulatedAdapter(MODEL), script=script) as server:
        with pytest.raises(httpx.ReadTimeout):
            await AsyncClient.is_valid_api_host(server.host)
        server.script = Script()
        assert await AsyncClient.is_valid_api_host(server.host)


async def test_unknown_packets_warn_or_kill_the_session() -> None:
    script = Script(odd_packets=frozenset({OddPacket.IN_CHANNEL}))
    async with scripted(script) as (_, client):
        with pytest.warns(LMStudioUnknownMessageWarning):
            await load(client)
    script = Script(odd_packets=frozenset({OddPacket.TOP_LEVEL}))
    async with scripted(script) as (_, client):
        with pytest.raises(LMStudioWebsocketError):
            await load(client)


async def test_values_can_be_replaced() -> None:
    replaced = {"promptTokensCount": -1, "contextLength": 77, "tokensPerSecond": math.nan}
    async with scripted(Script(replaced=replaced)) as (_, client):
        model = await load(client)
        assert await model.get_context_length() == 77
        stats = (await model.complete("word", config=STOP)).stats
        assert stats.prompt_tokens_count == -1
        assert math.isnan(stats.tokens_per_second or 0.0)


async def test_a_listing_that_the_sdk_cannot_read() -> None:
    async with scripted(Script(listing=ODD_LISTING, listing_extras={"publisher": "p"})) as (
        _,
        client,
    ):
        with pytest.raises(LMStudioClientError, match="drafter"):
            await client.llm.list_downloaded()
        entries = await client.system.remote_call("listDownloadedModels")
        assert [entry["modelKey"] for entry in entries] == [
            "m",
            *(e["modelKey"] for e in ODD_LISTING),
        ]
        assert entries[0]["publisher"] == "p"


async def test_authentication_can_be_refused() -> None:
    async with LMStudioServer(SimulatedAdapter(), script=Script(auth_refused=True)) as server:
        with pytest.raises(LMStudioServerError, match="Authentication failed"):
            async with AsyncClient(server.host):
                pytest.fail("it authenticated")
