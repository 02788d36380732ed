"""The LM Studio adapter against a stand-in server, which mostly misbehaves."""

from __future__ import annotations

import asyncio  # noqa: TID251 - a cancellation from outside of anyio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from lmstudio import AsyncClient, async_api
from loads import load_error, loading
from processes import started

from lmstrix import LMStrix, errors
from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.adapters.lmstudio import LMStudioAdapter, discovery, instances, sdk
from lmstrix.adapters.lmstudio.instances import is_orphan, new_identifier, unload
from lmstrix.adapters.lmstudio.loaded import LMStudioModel
from lmstrix.adapters.lmstudio.sdk import Connection
from lmstrix.json_values import Json
from lmstrix.models import LoadProgress, ModelInfo, Prompt
from lmstrix.testing.contracts.adapter import AdapterContract
from lmstrix.testing.lmstudio import LMStudioServer, Script, Step
from lmstrix.testing.lmstudio.state import ServerState
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

QUESTION = Prompt(user="What runs past the mill?", answer_prefix="The")
TOLD = Prompt(user="The code is 7.\n\nWhat is the code?", answer_prefix="The code is")
posix = pytest.mark.skipif(sys.platform == "win32", reason="nobody asks there what process lives")


@pytest.fixture
def anyio_backend() -> str:
    """As LM Studio's SDK."""
    return "asyncio"


def stand_in(**settings: Any) -> LMStudioServer:
    return LMStudioServer(SimulatedAdapter(SimulatedModel(key="m")), **settings)


class TestContract(AdapterContract):
    @pytest.fixture
    async def adapter(self) -> AsyncGenerator[LMStudioAdapter, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        async with stand_in() as server:
            yield LMStudioAdapter(server.host)
        assert server.left_behind == []

    @pytest.fixture
    def model_name(self) -> str:
        return "m"


@pytest.mark.engine
async def test_the_contract_over_a_real_tokenizer(demo_model: Path) -> None:
    contract, name = AdapterContract(), demo_model.stem
    async with LMStudioServer(LlamaCppAdapter([demo_model.parent], threads=1)) as server:
        adapter = LMStudioAdapter(server.host)
        await contract.test_prompts_are_counted_as_they_are_sent(adapter, name)
        await contract.test_the_effective_context_can_be_filled(adapter, name)
        await contract.test_an_overflow_is_refused(adapter, name)
        await contract.test_a_stream_is_the_reply_in_pieces(adapter, name)
        await contract.test_stop_strings_stop(adapter, name)
    assert server.left_behind == []


@asynccontextmanager
async def serving(
    script: Script | None = None,
) -> AsyncGenerator[tuple[LMStudioServer, LMStudioAdapter], None]:
    async with stand_in(script=script, preload=[("m", "users-own", 4096)]) as server:
        yield server, LMStudioAdapter(server.host, connect_s=2.0)
        assert server.user_instances_untouched
    assert not server.counters.warnings


async def test_what_is_sent() -> None:
    async with serving() as (server, adapter), loading(adapter, context=512) as loaded:
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
            async with loading(adapter, context=512) as loaded:
                await loaded.count_tokens("text")
                await loaded.complete(QUESTION, max_tokens=4)

        silent_load = step in (Step.LOAD_CREATED, Step.LOAD_AFTER_PROGRESS)
        with anyio.fail_after(30):
            with pytest.raises(errors.LoadHung if silent_load else errors.InfrastructureError):
                await use()
        await server.reached(lambda: server.left_behind == [])


async def test_what_is_left_behind_is_not_forgotten() -> None:
    script = Script(silent_at=frozenset({Step.UNLOAD}), silent_times=1)
    async with serving(script) as (server, _):
        adapter = LMStudioAdapter(server.host, call_s=1)
        with pytest.raises(ZeroDivisionError):
            async with loading(adapter, context=512):
                raise ZeroDivisionError
        assert len(server.left_behind) == 1
        async with loading(adapter, context=512):
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
        await load_error(adapter, errors.UnsupportedModel, model, match="another device")
        assert len(server.left_behind) == 1
        await adapter.aclose()
        assert server.left_behind == []


async def test_progress_puts_off_the_end_of_patience() -> None:
    async with serving(Script(load_s=1.2, load_progress=12)) as (server, _):
        adapter = LMStudioAdapter(server.host, load_s=0.6)
        async with loading(adapter, context=512) as loaded:
            assert loaded.effective_context == 512


async def test_a_listing_that_is_no_list_is_not_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as (server, adapter):
        call = Connection.call

        async def spoilt(self: Connection, *args: Any, **more: Any) -> object:
            answer = await call(self, *args, **more)
            return {} if "listLoaded" in args else answer

        with monkeypatch.context() as patch:
            async with loading(adapter, context=512):
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
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel() -> None:
                    await server.reached(lambda: len(server.loads) == 1)
                    scope.cancel()

                tasks.start_soon(cancel)
                async with loading(adapter):
                    raise AssertionError
        assert server.counters.cancels == 1
        assert server.left_behind == []


async def test_a_load_that_ignores_cancel_is_unloaded() -> None:
    async with serving(Script(ignores_cancel=True, load_s=0.3)) as (server, adapter):
        with anyio.CancelScope() as scope:
            async with loading(adapter, on_progress=lambda _: scope.cancel()):
                raise AssertionError
        assert (server.counters.loads, server.counters.unloads) == (1, 1)
        assert server.left_behind == []


async def test_cancelling_a_prefill() -> None:
    long = Prompt(user="The river runs past the old mill. " * 40)
    async with serving(Script(prefill_s=1.6)) as (server, adapter):
        async with loading(adapter, context=1024) as loaded:
            with anyio.CancelScope() as scope:
                await loaded.complete(long, max_tokens=4, on_progress=lambda _: scope.cancel())
            assert scope.cancelled_caught
            assert server.counters.cancels == 1
            assert server.predictions[-1].stop_reason == "userStopped"
        assert server.left_behind == []


@pytest.mark.parametrize("extra", [1, -1, 12])
async def test_tokens_around_raw_text_are_learned_or_it_is_asked_in_chats(extra: int) -> None:
    script = Script(raw_prompt_offset=extra)
    async with serving(script) as (server, adapter), loading(adapter, context=512) as loaded:
        counted = await loaded.count_prompt_tokens(QUESTION)
        assert (await loaded.complete(QUESTION, max_tokens=2)).prompt_tokens == counted
        wraps = extra == 12  # too many for a beginning of sequence
        assert server.predictions[-1].raw is not wraps
        assert len(adapter.warnings) == wraps
        assert "".join(adapter.warnings) in (await adapter.status()).detail


async def test_what_a_listener_raises_passes() -> None:
    async with serving() as (server, adapter):

        def complain(_: LoadProgress) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            async with loading(adapter, on_progress=complain):
                pass
        await server.reached(lambda: server.left_behind == [])


async def test_the_status_tells_ours_from_the_users() -> None:
    async with serving() as (server, adapter), loading(adapter, context=512):
        status = await adapter.status()
        assert status.versions["LM Studio"] == "0.0.0"
        assert sorted(i.ours for i in status.loaded) == [False, True]
        other = await LMStudioAdapter(server.host).status()  # as another process sees it
        assert other.loaded == status.loaded
        assert server.host in status.detail


async def test_a_reply_that_never_ends_is_no_limit() -> None:
    async with serving(Script(endless_from=2)) as (server, adapter):
        async with loading(adapter, context=512) as loaded:
            with anyio.fail_after(20), pytest.raises(errors.EngineUnavailable, match="did not end"):
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


# Single malformed frames: trouble with the connection, never a fact about the model ---------------

Frame = dict[str, Any]
Change = Callable[[Frame], str]


def spoil(monkeypatch: pytest.MonkeyPatch, part: str, change: Change) -> list[str]:
    """Changes the first frame that holds `part`, and no other one: what is sent in its place."""
    sent: list[str] = []

    def written(_: ServerState, frame: Frame) -> str:
        text = json.dumps(frame)
        if sent or part not in text:
            return text
        sent.append(change(frame))
        return sent[0]

    monkeypatch.setattr(ServerState, "written", written)
    return sent


def setting(*path: str, to: object) -> Change:
    def change(frame: Frame) -> str:
        at = frame
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to
        return json.dumps(frame)

    return change


def closed(frame: Frame) -> str:
    """The end of the channel, where its result was to come."""
    return json.dumps({"type": "channelClose", "channelId": frame["channelId"]})


COUNT = "promptTokensCount"
SPOILT: dict[str, tuple[str, Change]] = {
    "a load without a result": ('"type": "success"', closed),
    # SDK 1.5.0 would go round in circles here, and stop the event loop.
    "a frame that is null": ("fragment", lambda _: "null"),
    "a piece without text": ("fragment", setting("message", "fragment", "content", to=5)),
    "a piece of no kind": ("fragment", setting("message", "fragment", "reasoningType", to=[1])),
    "a message without a type": ("fragment", setting("message", "type", to=0.5)),
    "more tokens than bytes": ("tokenCount", setting("result", "tokenCount", to=10**12)),
    "a prompt beyond the context": (COUNT, setting("message", "stats", COUNT, to=10**12)),
}
for value in (10**12, "many", float("nan"), None, -3, True):
    change = setting("result", "contextLength", to=value)
    SPOILT[f"a context of {value}"] = ('"result": {"type": "llm"', change)


@pytest.mark.parametrize(("part", "change"), SPOILT.values(), ids=SPOILT.keys())
async def test_a_spoilt_frame(part: str, change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stand_in() as server:
        adapter = LMStudioAdapter(server.host)
        model = await adapter.find_model("m")
        sent = spoil(monkeypatch, part, change)
        with anyio.fail_after(10):
            with pytest.raises(errors.EngineUnavailable):
                async with adapter.load(model, 1024) as loaded:
                    await loaded.complete(TOLD, max_tokens=8)
            async with adapter.load(model, 1024) as loaded:
                await loaded.complete(TOLD, max_tokens=8)
        assert sent
        assert server.left_behind == []


DEEP = "[" * 100_000 + "]" * 100_000
FRAMES = {
    "deep": '{"type": "rpcResult", "callId": CALL, "result": ' + DEEP + "}",
    "number": '{"type": "rpcResult", "callId": ' + "9" * 5000 + ', "result": 1}',
    "error": '{"type": "rpcError", "callId": CALL, "error": {"title": [[]], "stack": 7}}',
    "surrogate": '{"type": "rpcError", "callId": CALL, "error": "\\ud800"}',
}


@pytest.mark.parametrize("text", FRAMES.values(), ids=FRAMES.keys())
async def test_a_frame_that_the_sdk_cannot_read(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with stand_in() as server:
        sent = spoil(
            monkeypatch, '"callId"', lambda frame: text.replace("CALL", str(frame["callId"]))
        )
        with anyio.fail_after(60), pytest.raises(errors.EngineUnavailable):
            await LMStudioAdapter(server.host).list_models()
    assert sent


async def test_a_version_that_is_lost_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another version a measurement is another one, and would begin anew."""
    async with stand_in() as server:
        adapter = LMStudioAdapter(server.host)
        whole = await adapter.status()
        sent = spoil(monkeypatch, '"build"', setting("result", "version", to=17))
        assert (await adapter.status()).versions == whole.versions
    assert sent
    assert "LM Studio" in whole.versions


# What a killed process left loaded is unloaded by the next one -----------------------------------

KILLED_WHILE_LOADED = """
import os, signal, sys, anyio
from lmstrix.adapters.lmstudio import LMStudioAdapter
async def main():
    adapter = LMStudioAdapter(host=sys.argv[1])
    async with adapter.load(await adapter.find_model("m"), 512):
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main)
"""


@posix
def test_only_what_a_dead_process_of_ours_left_is_an_orphan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "from lmstrix.adapters.lmstudio.instances import new_identifier as n; print(n())"
    dead = subprocess.check_output([sys.executable, "-c", code], text=True).strip()
    assert is_orphan(dead)
    assert not is_orphan(new_identifier())
    prefix, here, pid, rest = dead.split("-")
    for other in (
        f"{prefix}-{'0' * len(here)}-{pid}-{rest}",
        f"{prefix}-{here}-{os.getppid()}-{rest}",
        f"{prefix}-{here}-0-{rest}",
        f"{prefix}-{here}-{'9' * 30}-{rest}",
        f"my-{dead}",
        f"{dead}-2",
        "lmstrix-of-the-user",
        "",
    ):
        assert not is_orphan(other)

    # A machine of the same name is another one: the numbers of its processes mean nothing here.
    def another_boot(*_: object, **__: object) -> str:
        return "another boot"

    monkeypatch.setattr(Path, "read_text", another_boot)
    monkeypatch.setattr("uuid.getnode", lambda: 1)
    monkeypatch.setattr(instances, "_here", instances._here.__wrapped__)
    assert not is_orphan(dead)


@posix
async def test_one_that_will_not_go_does_not_hold_up_ours() -> None:
    unloaded: list[str] = []
    dead = new_identifier().replace(f"-{os.getpid()}-", "-99999999-")
    mine = "lmstrix-mine"

    class Stuck:
        async def call(self, _: str, name: str, sent: Json | None = None, **__: object) -> object:
            if name == "listLoaded":
                return [{"identifier": one} for one in (dead, mine, "users-own")]
            assert sent is not None
            unloaded.append(str(sent["identifier"]))
            if sent["identifier"] == dead:
                raise errors.EngineTimeout("it is busy")
            return None

    assert await unload(cast("Connection", Stuck()), {mine}, 1.0) == {mine}
    assert unloaded == [mine, dead]


@posix
async def test_the_next_load_lets_go_of_it() -> None:
    async with stand_in(preload=[("m", "users-own", 4096)]) as server:
        command = [sys.executable, "-c", KILLED_WHILE_LOADED, server.host]
        with anyio.fail_after(60):
            done = await anyio.run_process(command, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        (orphan,) = server.left_behind
        async with loading(LMStudioAdapter(host=server.host)):
            assert len(server.left_behind) == 1
            assert orphan not in server.left_behind
        assert server.left_behind == []
        assert server.user_instances_untouched


# What is used of LM Studio's SDK ----------------------------------------------------------------


def test_a_changed_sdk_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(async_api.AsyncChannel, "rx_stream")
    with pytest.raises(errors.ConfigurationError, match=r"no AsyncChannel\.rx_stream") as caught:
        sdk.check_sdk()
    assert "pip install" in caught.value.hint


SILENCE = """
import anyio, sys
from lmstudio import json_api
from lmstudio._logging import new_logger
from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.simulated import SimulatedAdapter

async def main():
    async with LMStudioServer(SimulatedAdapter()) as server:
        await LMStudioAdapter(server.host).list_models()
    for name in ("PredictionEndpoint", "AsyncRemoteCall", "_AsyncLMStudioWebsocket"):
        new_logger(name).warn("a frame with a secret")

anyio.run(main)
"""


def test_what_the_sdk_logs_does_not_reach_the_terminal() -> None:
    """Python prints warnings that nobody handles; those of the SDK quote prompts and replies."""
    done = subprocess.run(
        [sys.executable, "-c", SILENCE], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""


def test_under_trio_every_call_says_what_to_do() -> None:
    adapter, model = LMStudioAdapter("127.0.0.1:9"), ModelInfo(key="m")

    async def load() -> None:
        async with adapter.load(model, 512):
            pass

    async def refused() -> None:
        for call in (
            adapter.list_models,
            adapter.status,
            load,
            lambda: adapter.find_model("m"),
            lambda: adapter.estimate_memory(model, 512),
        ):
            with pytest.raises(errors.ConfigurationError, match="asyncio") as caught:
                await call()
            assert 'adapter="llamacpp"' in caught.value.hint

    anyio.run(refused, backend="trio")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
async def test_this_machine_is_asked_without_a_proxy(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    async with stand_in() as server:
        assert await LMStudioAdapter(server.host).list_models()


async def test_a_token_goes_where_the_sdk_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class TakesToken(AsyncClient):
        def __init__(self, api_host: str, *, api_token: str = "") -> None:
            told.append(api_token)
            super().__init__(api_host)

    async with stand_in() as server:
        with pytest.raises(errors.ConfigurationError, match="token"):
            await LMStudioAdapter(server.host, api_token="secret").list_models()
        monkeypatch.setattr("lmstudio.AsyncClient", TakesToken)
        monkeypatch.setenv(sdk.TOKEN_VARIABLE, "from outside")
        await LMStudioAdapter(server.host, api_token="secret").list_models()
        await LMStudioAdapter(server.host).list_models()
    assert told == ["secret", "from outside"]


async def test_the_port_in_the_home_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "studio" / ".internal" / "http-server.json"
    told.parent.mkdir(parents=True)
    (tmp_path / ".lmstudio-home-pointer").write_text(str(tmp_path / "studio"))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(discovery, "DEFAULT_PORTS", ())
    for text in ("", "[]", '{"port": "x"}', '{"port": 70000}', "[" * 9000):
        told.write_text(text)
        with pytest.raises(errors.EngineUnavailable) as caught:
            await discovery.find_server(None, 1.0)
        assert "--host" in caught.value.hint
    async with stand_in() as server:
        told.write_text(json.dumps({"port": server.port}))
        assert await discovery.find_server(None, 2.0) == server.host
        assert (await LMStudioAdapter().status()).available


async def test_the_variant_that_is_selected_is_the_model() -> None:
    extras = {
        "quantization": {"name": "Q4_K_M", "bits": 4},
        "variants": ["pub/m@q4_k_m", "pub/m@q8_0"],
        "selectedVariant": "pub/m@q4_k_m",
    }
    model = SimulatedAdapter(SimulatedModel(key="pub/m"))
    async with LMStudioServer(model, script=Script(listing_extras=extras)) as server:
        adapter = LMStudioAdapter(server.host)
        for name, key in (
            ("pub/m@q4_k_m", "pub/m"),
            ("pub/m@q8_0", "pub/m@q8_0"),
            ("m", "pub/m"),
        ):
            assert (await adapter.find_model(name)).key == key
        with pytest.raises(errors.ModelNotFound):
            await adapter.find_model("pub/m@q2_k")


async def test_a_result_depends_on_the_settings_of_its_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    home = tmp_path / ".lmstudio" / ".internal"
    settings = home / "user-concrete-model-default-config" / "pub" / "m" / "m.gguf.json"
    settings.parent.mkdir(parents=True)
    cache = "llm.load.llama.kCacheQuantizationType"

    def set_fields(fields: object) -> None:
        document = {"preset": "", "operation": {}, "load": {"fields": fields}}
        settings.write_text(json.dumps(document))

    def fields(**values: object) -> list[dict[str, object]]:
        return [{"key": f"llm.load.{key}", "value": value} for key, value in values.items()]

    async with (
        LMStudioServer(SimulatedAdapter(SimulatedModel(key="pub/m", declared=600))) as server,
        LMStrix(host=server.host, store="memory", levels=()) as client,
    ):

        async def is_known() -> bool:
            return bool(await client.known_reports(await client.list_models()))

        await client.find_true_context("pub/m")
        for same in (fields(contextLength=600, numParallelSessions=4), 7, [7, {"key": 7}], []):
            set_fields(same)  # `apply` sets the context, and each load the number of sessions
            assert await is_known()
        for odd in ("", "[]", "[" * 9000):
            settings.write_text(odd)
            assert await is_known()
        set_fields([{"key": cache, "value": {"checked": True, "value": "q8_0"}}])
        assert not await is_known()
        report = await client.find_true_context("pub/m")
        assert report.environment.load_config == {"llama.kCacheQuantizationType": "q8_0"}
        assert await is_known()
        set_fields([{"key": cache, "value": {"checked": False, "value": "q8_0"}}])
        assert not await is_known()
        (model,) = await client.list_models()
        assert model.load_config == {"llama.kCacheQuantizationType": "off"}


# An interruption waits for no deadline of the server's, and what stays loaded is named -----------

ASKED = Prompt(user="What runs past the mill?")
HANGS_S = 60.0
"""Only an interruption that hangs takes longer, on a slow machine too."""
FOR_EVER_S = 3600.0
"""What waits for the server's answer hangs."""
SERVER = """
import sys, anyio
from lmstrix.testing.lmstudio import LMStudioServer, Script
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

async def main():
    script = eval(sys.argv[1])
    async with LMStudioServer(SimulatedAdapter(SimulatedModel(key="m")), script=script) as server:
        print(server.host, flush=True)
        while True:
            await anyio.sleep(0.1)
            print(*server.left_behind, flush=True)

anyio.run(main)
"""


class Server:
    """A stand-in LM Studio in a process of its own, so that it can be frozen."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.signal = process.send_signal
        assert process.stdout is not None
        self._lines = process.stdout
        self.host = self._line()

    def _line(self) -> str:
        return self._lines.readline().strip()

    async def has_nothing_loaded(self) -> bool:
        with anyio.move_on_after(HANGS_S):
            while await anyio.to_thread.run_sync(self._line):
                pass
            return True
        return False


@contextmanager
def in_a_process(script: str) -> Generator[Server]:
    with started("-c", SERVER, script, stdout=subprocess.PIPE) as process:
        yield Server(process)


async def interrupted(
    work: Callable[[], Coroutine[Any, Any, None]], under_way: anyio.Event, way: str
) -> None:
    if way == "by task":  # as Ctrl-C does it in `asyncio.run`: the task is cancelled once
        task = asyncio.ensure_future(work())
        await under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return
    async with anyio.create_task_group() as tasks:  # as the command line does it
        tasks.start_soon(work)
        await under_way.wait()
        tasks.cancel_scope.cancel()


FAULTS = {
    "frozen while it reads": "Script(prefill_s=2)",
    "frozen before it is sent everything": "Script()",
    "flooding": "Script(endless_from=2, ignores_cancel=True)",
}


WAYS = ((False, "by scope"), (True, "by task"), (False, "by task"), (True, "by scope"))
CASES = [(fault, *way) for fault in FAULTS for way in WAYS[: 4 if "reads" in fault else 2]]


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a process cannot be frozen")
@pytest.mark.parametrize(("fault", "hidden", "way"), CASES)
async def test_an_interruption_waits_for_no_server(fault: str, hidden: bool, way: str) -> None:
    """With `hidden` the caller releases the model in a `finally`, as a measurement does."""
    under_way = anyio.Event()
    with in_a_process(FAULTS[fault]) as server:
        adapter = LMStudioAdapter(
            server.host, call_s=FOR_EVER_S, stall_s=FOR_EVER_S, load_s=FOR_EVER_S
        )
        model = await adapter.find_model("m")

        def freeze() -> None:
            server.signal(signal.SIGSTOP)
            under_way.set()

        async def ask(loaded: LMStudioModel) -> None:
            await loaded.count_prompt_tokens(ASKED)
            if fault == "flooding":
                async for _ in loaded.stream(ASKED, max_tokens=3000):
                    under_way.set()
            elif fault == "frozen while it reads":
                await loaded.complete(ASKED, max_tokens=9, on_progress=lambda _: freeze())
            else:
                freeze()
                await loaded.count_tokens("river " * 4_000_000)  # more than the socket takes

        async def work() -> None:
            try:
                if not hidden:
                    async with adapter.load(model, 4096) as loaded:
                        await ask(loaded)
                else:
                    stack = AsyncExitStack()
                    try:
                        await ask(await stack.enter_async_context(adapter.load(model, 4096)))
                    finally:
                        await stack.aclose()
            finally:
                await adapter.aclose()

        with anyio.fail_after(HANGS_S):
            await interrupted(work, under_way, way)
        if fault != "flooding":
            (warning,) = adapter.warnings
            assert "lmstrix-" in warning
            server.signal(signal.SIGCONT)
            async with loading(adapter):
                pass
        assert adapter.warnings == ()
        assert await server.has_nothing_loaded()


async def test_a_stall_while_generating_cancels_it() -> None:
    script = Script(silent_at=frozenset({Step.PREDICT_MID_STREAM}), silent_after=1)
    async with serving(script) as (server, _):
        adapter = LMStudioAdapter(server.host, stall_s=0.5)
        async with loading(adapter, context=512) as loaded:
            with pytest.raises(errors.EngineTimeout, match=r"did not answer within 0\.5 s"):
                await loaded.complete(QUESTION, max_tokens=20)
            assert server.counters.cancels == 1
