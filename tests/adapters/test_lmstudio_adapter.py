"""The LM Studio adapter against a stand-in server that misbehaves."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from lmstrix import LMStrix
from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.adapters.lmstudio.loaded import LMStudioModel
from lmstrix.adapters.lmstudio.sdk import Connection
from lmstrix.errors import (
    EngineTimeout,
    EngineUnavailable,
    InfrastructureError,
    LoadHung,
    PromptTruncated,
    UnsupportedModel,
)
from lmstrix.models import LoadProgress, Prompt
from lmstrix.testing.lmstudio import (
    LMStudioServer,
    LoadFate,
    Script,
    Step,
)
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

QUESTION = Prompt(user="What runs past the mill?", answer_prefix="The")
LONG = Prompt(user="The river runs past the old mill. " * 40)


pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as the SDK


@asynccontextmanager
async def serving(
    script: Script | None = None, **model: object
) -> AsyncGenerator[tuple[LMStudioServer, LMStudioAdapter], None]:
    """A server, and an adapter with short deadlines."""
    engine = SimulatedAdapter(
        SimulatedModel(key="m", **model)  # pyright: ignore[reportArgumentType] - any of its fields
    )
    server = LMStudioServer(engine, script=script, preload=[("m", "users-own", 4096)])
    async with server:
        yield server, LMStudioAdapter(server.host, connect_s=2.0)
        assert server.user_instances_untouched
    assert not server.counters.warnings


@asynccontextmanager
async def loading(
    server: LMStudioServer, adapter: LMStudioAdapter, context: int = 512
) -> AsyncGenerator[LMStudioModel, None]:
    model = await adapter.find_model("m")
    async with adapter.load(model, context) as loaded:
        yield loaded


async def test_what_is_sent() -> None:
    async with serving() as (server, adapter), loading(server, adapter) as loaded:
        reply = await loaded.complete(QUESTION, max_tokens=9, stop=["zzz"])
        (load,), prediction = server.loads, server.predictions[-1]
        assert load.fields == {
            "llm.load.contextLength": 512,
            "llm.load.numParallelSessions": 1,
            "llm.load.useUnifiedKvCache": True,
            "llm.load.llama.autoFit": False,
            "llm.load.mlx.autoFit": False,
        }
        assert load.identifier is not None
        assert load.identifier.startswith("lmstrix-")
        assert isinstance(load.ttl_ms, int)
        assert load.ttl_ms > 0
        assert prediction.raw
        fields = {key.rpartition(".")[2]: value for key, value in prediction.fields.items()}
        del fields["promptTemplate"]
        assert fields == {
            "contextOverflowPolicy": "stopAtLimit",
            "maxPredictedTokens": {"checked": True, "value": 9},
            "temperature": 0,
            "topKSampling": 1,
            "repeatPenalty": {"checked": True, "value": 1.0},
            "stopStrings": ["zzz"],
        }
        assert reply.prompt_tokens == await loaded.count_prompt_tokens(QUESTION)
        assert adapter.warnings == ()


SILENT = sorted(set(Step) - {Step.UNLOAD, Step.ESTIMATE})


@pytest.mark.parametrize("step", SILENT)
async def test_silence_ends_in_an_error(step: Step) -> None:
    async with serving(Script(silent_at=frozenset({step}))) as (server, _):
        adapter = LMStudioAdapter(server.host, connect_s=1, call_s=0.5, stall_s=0.5, load_s=0.5)

        async def use() -> None:
            async with loading(server, adapter) as loaded:
                await loaded.count_tokens("text")
                await loaded.complete(QUESTION, max_tokens=4)

        silent_load = step in (Step.LOAD_CREATED, Step.LOAD_AFTER_PROGRESS)
        with anyio.fail_after(30):
            with pytest.raises(LoadHung if silent_load else InfrastructureError):
                await use()
        await server.reached(lambda: server.left_behind == [])


async def test_what_is_left_behind_is_not_forgotten() -> None:
    """What could not be unloaded is unloaded when the server answers again."""
    script = Script(silent_at=frozenset({Step.UNLOAD}), silent_times=1)
    async with serving(script) as (server, _):
        adapter = LMStudioAdapter(server.host, call_s=1)
        with pytest.raises(ZeroDivisionError):
            async with loading(server, adapter):
                raise ZeroDivisionError
        assert len(server.left_behind) == 1
        async with loading(server, adapter):
            assert len(server.left_behind) == 1
        assert server.left_behind == []


async def test_what_fails_after_the_load_is_not_forgotten() -> None:
    """LM Studio has said that the instance is there, so the error is no word that it is not."""
    async with serving() as (server, _):
        adapter = LMStudioAdapter(server.host, call_s=1)
        model = await adapter.find_model("m")
        server.script = Script(
            listing_extras={"deviceIdentifier": "elsewhere"},
            silent_at=frozenset({Step.UNLOAD}),
            silent_times=1,
        )
        with pytest.raises(UnsupportedModel, match="another device"):
            async with adapter.load(model, 512):
                raise AssertionError
        assert len(server.left_behind) == 1
        await adapter.aclose()
        assert server.left_behind == []


@pytest.mark.parametrize("script", [Script(load=LoadFate.HANGS), Script(load_s=30)])
async def test_a_hung_load_leaves_nothing(script: Script) -> None:
    async with serving(script) as (server, _):
        adapter = LMStudioAdapter(server.host, load_s=0.3)
        with anyio.fail_after(10), pytest.raises(LoadHung, match="no progress"):
            async with loading(server, adapter):
                raise AssertionError
        assert server.counters.cancels == 1
        assert server.left_behind == []
        server.script = Script()
        async with loading(server, adapter):
            pass


async def test_progress_puts_off_the_end_of_patience() -> None:
    """A load that takes longer than it may be silent is not hung."""
    async with serving(Script(load_s=1.2, load_progress=12)) as (server, _):
        adapter = LMStudioAdapter(server.host, load_s=0.6)
        async with loading(server, adapter) as loaded:
            assert loaded.effective_context == 512


async def test_a_listing_that_is_no_list_does_not_mean_that_nothing_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as (server, adapter):
        call = Connection.call

        async def spoilt(self: Connection, *args: Any, **more: Any) -> object:
            answer = await call(self, *args, **more)
            return {} if "listLoaded" in args else answer

        with monkeypatch.context() as patch:
            async with loading(server, adapter):
                patch.setattr(Connection, "call", spoilt)
                assert not (await adapter.status()).available
        assert len(server.left_behind) == 1
        await adapter.aclose()
        assert server.left_behind == []


async def test_an_unanswered_estimate_is_none_and_asked_once() -> None:
    async with serving(Script(silent_at=frozenset({Step.ESTIMATE}))) as (server, _):
        adapter = LMStudioAdapter(server.host, call_s=0.5)
        model = await adapter.find_model("m")
        assert await adapter.estimate_memory(model, 1024) is None
        assert await adapter.estimate_memory(model, 2048) is None


@pytest.mark.parametrize("step", [Step.LOAD_CREATED, Step.LOAD_AFTER_PROGRESS])
async def test_cancelling_a_load(step: Step) -> None:
    async with serving(Script(silent_at=frozenset({step}))) as (server, adapter):
        model = await adapter.find_model("m")
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await server.reached(lambda: len(server.loads) == 1)
                    scope.cancel()

                tasks.start_soon(cancel)
                async with adapter.load(model, 512):
                    raise AssertionError
        assert server.counters.cancels == 1
        assert server.left_behind == []


async def test_a_load_that_ignores_cancel_is_unloaded() -> None:
    """It ends soon after the cancellation, with an instance that nobody waits for."""
    async with serving(Script(ignores_cancel=True, load_s=0.3)) as (server, adapter):
        model = await adapter.find_model("m")
        with anyio.CancelScope() as scope:
            async with adapter.load(model, 512, on_progress=lambda _: scope.cancel()):
                raise AssertionError
        assert (server.counters.loads, server.counters.unloads) == (1, 1)
        assert server.left_behind == []


async def test_cancelling_a_prefill() -> None:
    async with serving(Script(prefill_s=1.6)) as (server, adapter):
        async with loading(server, adapter, 1024) as loaded:
            with anyio.CancelScope() as scope:
                await loaded.complete(LONG, max_tokens=4, on_progress=lambda _: scope.cancel())
            assert scope.cancelled_caught
            assert server.counters.cancels == 1
            assert server.predictions[-1].stop_reason == "userStopped"
        assert server.left_behind == []


async def test_a_cut_prompt_is_an_overflow() -> None:
    """Here the server thinks that its context is smaller than it said."""
    script = Script(truncates=True, clamps_to=256, replaced={"contextLength": 4096})
    async with serving(script) as (server, adapter), loading(server, adapter) as loaded:
        with pytest.raises(PromptTruncated, match="shortened") as caught:
            await loaded.complete(LONG, max_tokens=4)
        assert caught.value.read_tokens <= 256
        assert caught.value.sent_tokens == await loaded.count_prompt_tokens(LONG)


@pytest.mark.parametrize("extra", [1, -1])
async def test_a_beginning_of_sequence_is_learned(extra: int) -> None:
    script = Script(raw_prompt_offset=extra)
    async with serving(script) as (server, adapter), loading(server, adapter) as loaded:
        counted = await loaded.count_prompt_tokens(QUESTION)
        assert (await loaded.complete(QUESTION, max_tokens=2)).prompt_tokens == counted
        assert server.predictions[-1].raw
        assert adapter.warnings == ()


async def test_a_server_that_wraps_raw_text_is_asked_in_chats() -> None:
    script = Script(raw_prompt_offset=12)
    async with serving(script) as (server, adapter), loading(server, adapter) as loaded:
        counted = await loaded.count_prompt_tokens(QUESTION)
        assert (await loaded.complete(QUESTION, max_tokens=2)).prompt_tokens == counted
        assert not server.predictions[-1].raw
        (warning,) = adapter.warnings
        assert warning in (await adapter.status()).detail


@pytest.mark.parametrize("value", ["many", float("nan"), None, -3, True])
async def test_a_context_that_is_no_number(value: object) -> None:
    async with serving(Script(replaced={"contextLength": value})) as (server, adapter):
        with pytest.raises(EngineUnavailable):
            async with loading(server, adapter):
                pass
        assert server.left_behind == []


async def test_what_a_listener_raises_passes() -> None:
    async with serving() as (server, adapter):
        model = await adapter.find_model("m")

        def complain(_: LoadProgress) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            async with adapter.load(model, 512, on_progress=complain):
                pass
        await server.reached(lambda: server.left_behind == [])


async def test_the_status_tells_ours_from_the_users() -> None:
    async with serving() as (server, adapter), loading(server, adapter):
        status = await adapter.status()
        assert status.versions["LM Studio"] == "0.0.0"
        assert sorted(i.ours for i in status.loaded) == [False, True]
        other = await LMStudioAdapter(server.host).status()  # as another process sees it
        assert other.loaded == status.loaded
        assert server.host in status.detail


async def test_a_reply_that_never_ends_is_no_limit() -> None:
    async with serving(Script(endless_from=2)) as (server, adapter):
        async with loading(server, adapter) as loaded:
            with anyio.fail_after(20), pytest.raises(EngineUnavailable, match="did not end"):
                await loaded.complete(QUESTION, max_tokens=8)
        assert server.counters.cancels == 1
        assert server.left_behind == []


async def test_a_stream_that_is_left_stops_the_engine_and_releases_the_model() -> None:
    async with (
        serving(Script(fragment_s=0.05)) as (server, adapter),
        LMStrix(adapter=adapter, store="memory") as lmstrix,
    ):
        async with lmstrix.stream("m", QUESTION, max_tokens=50) as pieces:
            async for _ in pieces:
                break
        assert server.left_behind == []
        assert server.counters.cancels == 1
        assert adapter.warnings == ()


async def test_a_stall_while_generating() -> None:
    script = Script(silent_at=frozenset({Step.PREDICT_MID_STREAM}), silent_after=1)
    async with serving(script) as (server, _):
        adapter = LMStudioAdapter(server.host, stall_s=0.5)
        async with loading(server, adapter) as loaded:
            with pytest.raises(EngineTimeout, match=r"did not answer within 0\.5 s"):
                await loaded.complete(QUESTION, max_tokens=20)
            assert server.counters.cancels == 1
