"""The adapter for a running llama-server: llama.cpp's own, in a child process of the test's."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest
from loads import load_error, loading
from processes import until

from lmstrix import LMStrix, errors
from lmstrix.adapters.llama_server import LlamaServerAdapter, SpawnedServerAdapter, llama_server
from lmstrix.adapters.llamacpp.engine import Engine, EngineSettings, running_engine
from lmstrix.json_values import as_text
from lmstrix.models import Cause, ModelInfo, Prompt
from lmstrix.testing.contracts.adapter import AdapterContract
from lmstrix.testing.http_server import Answer, HttpServer, Request, StandInError

LONG = Prompt(user="The river runs past the old mill. " * 100)


@pytest.fixture
async def engine(demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Engine, None]:
    settings = EngineSettings(model=str(demo_model), n_ctx=1024, batch_tokens=128, threads=1)
    async with running_engine(settings, stall_s=60) as engine:
        monkeypatch.setenv("LMSTRIX_API_KEY", engine.api_key)
        yield engine


# On every event loop the contract takes minutes here, and the engine is the same.
on_one_loop = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@on_one_loop
@pytest.mark.engine
class TestContract(AdapterContract):
    @pytest.fixture
    def adapter(self, engine: Engine) -> LlamaServerAdapter:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        return LlamaServerAdapter(engine.address)

    @pytest.fixture
    def model_name(self, demo_model: Path) -> str:
        return demo_model.stem


@pytest.mark.engine
async def test_it_serves_what_it_was_started_with(engine: Engine, demo_model: Path) -> None:
    adapter = LlamaServerAdapter(engine.address)
    (model,) = await adapter.list_models()
    assert (model.key, model.declared_context) == (demo_model.stem, 8192)
    async with adapter.load(model, 8192) as loaded:
        assert loaded.effective_context == 1024
        (warning,) = adapter.warnings
        assert "started with -c 1024; the model declares 8,192" in warning
        assert warning in (await adapter.status()).detail
        await engine.end()
        with pytest.raises(errors.ConnectionLost):
            await loaded.complete(LONG, max_tokens=4)
    assert not (await adapter.status()).available


class Router(HttpServer):
    """A router with models that the user runs, and others. A model that is loaded or unloaded is
    still listed as before for so many lists.
    """

    hasty = False
    """Whether the user loads a model between our look and our request."""
    loses = 0
    """How many requests to unload a model lose their connection."""

    def __init__(self, loads: int = 0, unloads: int = 0, **told: object) -> None:
        super().__init__()
        running = {"loaded": "loaded", "sleeping": "sleeping", "starting": "loading"}
        self.states = running | dict.fromkeys(("idle", "broken"), "unloaded")
        self.told = {"role": "router", **told}
        self.lists = {"loaded": loads, "unloaded": unloads}
        self.coming = {"starting": (3, "loaded")}  # the user's load ends

    def become(self, name: str, state: str) -> None:
        lists = self.lists.get(state, 0)
        self.coming[name] = (lists, state)
        if not lists:
            self.states[name] = state
        elif state == "loaded":
            self.states[name] = "loading"

    async def unload(self, name: str, answer: Answer) -> None:
        self.loses -= 1
        if self.loses >= 0:
            raise anyio.BrokenResourceError
        self.become(name, "unloaded")
        await answer.whole({"success": True})

    async def handle(self, request: Request, answer: Answer) -> None:
        path, _, query = request.path.partition("?model=")
        name = as_text(request.body.get("model"))
        if self.hasty and path == "/models/load":
            self.states[name] = "loaded"
        match path:
            case "/v1/models":
                data = [{"id": k, "status": {"value": v}} for k, v in self.states.items()]
                await answer.whole({"data": data})
                for key, (lists, state) in self.coming.items():
                    self.coming[key] = (lists - 1, state)
                    if lists == 1:
                        self.states[key] = state
            case "/models/load" if self.states[name] in ("loaded", "sleeping", "loading"):
                raise StandInError(400, {"error": {"message": "model is already running"}})
            case "/models/load":
                self.become(name, "failed" if name == "broken" else "loaded")
                await answer.whole({"success": True})
            case "/models/unload":
                await self.unload(name, answer)
            case "/props" if query in self.states:
                await answer.whole({"default_generation_settings": {"n_ctx": 4096}})
            case "/tokenize" if name in self.states:
                await answer.whole({"tokens": [1, 2, 3]})
            case _:
                await answer.whole(self.told)


@pytest.mark.parametrize("name", ["loaded", "sleeping", "starting", "idle"])
async def test_a_router_loads_only_what_is_asked_for_and_keeps_the_rest(name: str) -> None:
    async with Router() as router:
        adapter, before = LlamaServerAdapter(router.host), dict(router.states)
        async with loading(adapter, name, 4096) as loaded:
            assert loaded.effective_context == 4096
            assert await loaded.count_tokens("some text") == 3
            assert router.states[name] == ("sleeping" if name == "sleeping" else "loaded")
        assert router.states["starting"] in ("loading", "loaded")
        assert router.states | {"starting": ""} == before | {"starting": ""}


async def test_what_somebody_else_loads_meanwhile_is_theirs() -> None:
    async with Router() as router:
        router.hasty = True
        async with loading(LlamaServerAdapter(router.host), "idle"):
            pass
        assert router.states["idle"] == "loaded"


async def test_a_lost_request_to_unload_is_sent_again() -> None:
    async with Router() as router:
        router.loses = 1
        async with loading(LlamaServerAdapter(router.host), "idle"):
            pass
        assert router.states["idle"] == "unloaded"


async def test_a_router_has_unloaded_the_model_before_it_is_loaded_again() -> None:
    async with Router(unloads=3) as router:
        adapter = LlamaServerAdapter(router.host)
        for _ in range(2):
            async with loading(adapter, "idle"):
                assert router.states["idle"] == "loaded"
            assert router.states["idle"] == "unloaded"


async def test_a_router_that_would_unload_the_users_model_is_not_asked_to_load() -> None:
    async with Router(max_instances=3) as router:
        adapter, match = LlamaServerAdapter(router.host), "3 of at most 3"
        error = await load_error(adapter, errors.ModelInUse, "idle", match=match)
        assert "sleeping" in error.hint
        assert router.states["idle"] == "unloaded"


async def test_the_users_model_that_died_is_loaded_again_and_stays() -> None:
    async with Router() as router:
        adapter = LlamaServerAdapter(router.host)
        async with loading(adapter, "loaded"):
            router.states["loaded"] = "unloaded"  # of a prompt, say
        async with loading(adapter, "loaded"):
            pass
        assert router.states["loaded"] == "loaded"


async def test_a_router_that_loads_makes_progress() -> None:
    told: list[float] = []
    async with Router(loads=4) as router:
        adapter = LlamaServerAdapter(router.host)
        async with loading(adapter, "idle", on_progress=lambda p: told.append(p.fraction)):
            pass
    assert told.count(0.0) >= 2


class OtherProgram(HttpServer):
    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/props":
            raise StandInError(404, {"error": "not found"})
        await answer.whole({"status": True})


async def test_another_program_hides_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async with OtherProgram() as other, Router() as router:
        usual = [f"http://{other.host}", f"http://{router.host}"]
        monkeypatch.setattr("lmstrix.adapters.llama_server.DEFAULT_ADDRESSES", usual)
        monkeypatch.setenv("LMSTRIX_API_KEY", "sk-0123456789abcdef")
        assert (await LlamaServerAdapter().find_model("idle")).key == "idle"
        # Only what is known to be llama-server has heard the key.
        assert not any("authorization" in request.headers for request in other.requests)
        assert "authorization" in router.requests[-1].headers
        monkeypatch.setattr("lmstrix.adapters.llama_server.DEFAULT_ADDRESSES", usual[:1] * 2)
        with pytest.raises(errors.EngineUnavailable, match="another program"):
            await LlamaServerAdapter().list_models()
        assert not any("authorization" in request.headers for request in other.requests)


async def test_a_router_that_cannot_load() -> None:
    async with Router() as router:
        adapter = LlamaServerAdapter(router.host)
        await load_error(adapter, errors.LoadFailed, "broken")
        # No smaller size would help: its context is in the router's preset.
        async with LMStrix(adapter=adapter, store="memory") as client:
            report = await client.find_true_context("broken")
        assert (report.cause, report.cost.loads) == (Cause.LOAD_FAILED, 2)


class Served(HttpServer):
    """One model under a name of the user's (`-a`), or a router with it in a preset."""

    file = "/models/a.gguf"
    preset = ""

    async def handle(self, request: Request, answer: Answer) -> None:
        routed = {"status": {"value": "unloaded", "preset": self.preset}} if self.preset else {}
        if request.path == "/v1/models":
            await answer.whole({"data": [{"id": "mine", **routed}]})
        else:
            await answer.whole({"build_info": "b7000", "model_path": self.file})


async def test_another_file_or_preset_under_the_same_name_is_another_model() -> None:
    found: list[ModelInfo] = []
    async with Served() as server:
        for file, preset in (
            ("/models/a.gguf", ""),
            ("/models/b.gguf", ""),
            ("", "c = 4096"),
            ("", "c = 8192\napi-key = secret"),
            ("", "c = 4096"),
        ):
            server.file, server.preset = file, preset
            found += await LlamaServerAdapter(server.host).list_models()
    a, b, small, large, again = found
    assert a.identity != b.identity
    assert small.load_config != large.load_config
    assert small == again
    assert "secret" not in repr(found)


# Spawned -----------------------------------------------------------------------------------------


@pytest.fixture
def binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A program that takes llama-server's options. A proxy of the user's is not asked for it."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    program = tmp_path / "llama-server"
    # A copy of its own tells this test's processes from those of other tests.
    script = tmp_path / "llama_server.py"
    shutil.copy(Path(__file__).parent / script.name, script)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return str(program)


def spawning(binary: str, arguments: str = "-b 128") -> SpawnedServerAdapter:
    return SpawnedServerAdapter(binary, arguments, folders=[])


OF_LOADS = (
    "it_is_an_adapter",
    "the_memory_estimate_grows",
    "the_status_tells_what_is_loaded",
    "replies_are_greedy",
    "a_prediction_can_be_cancelled",
    "an_error_inside_passes_as_it_is",
    "cancelling_releases_the_model",
    "a_released_model_does_not_answer",
)


@on_one_loop
@pytest.mark.engine
@pytest.mark.parametrize("obligation", OF_LOADS)
async def test_contract_of_a_spawned_server(binary: str, demo_model: Path, obligation: str) -> None:
    """Of its loads: what is loaded is the same as above."""
    await getattr(AdapterContract(), f"test_{obligation}")(spawning(binary), str(demo_model))


@pytest.mark.engine
async def test_nothing_of_a_spawned_server_is_left(binary: str, demo_model: Path) -> None:
    async with loading(spawning(binary), str(demo_model), 512):
        running = servers(binary)
        assert running
        assert not any("LLAMA" in line or "api" in line for line in running)
    await until(lambda: not servers(binary))


KILLED = """
import os, signal, sys, anyio
from lmstrix.adapters.llama_server import SpawnedServerAdapter

async def main():
    adapter = SpawnedServerAdapter(sys.argv[1], "-b 128", folders=[])
    async with adapter.load(await adapter.find_model(sys.argv[2]), 512):
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


@on_one_loop
@pytest.mark.engine
async def test_a_spawned_server_dies_with_us(binary: str, demo_model: Path) -> None:
    command = [sys.executable, "-c", KILLED, binary, str(demo_model)]
    result = await anyio.run_process(command, check=False)
    assert result.returncode == -9
    await until(lambda: not servers(binary))


AFTER_HELP = '[ "$1" = --help ] && echo --ctx-size && exit;'


@on_one_loop
@pytest.mark.skipif(sys.platform == "win32", reason="a script with a shebang")
@pytest.mark.parametrize(
    ("script", "kind", "words", "stall_s"),
    [
        ("echo libcudart.so: cannot open >&2; exit 127", errors.EngineUnavailable, "libcudart", 30),
        (f"{AFTER_HELP} kill -9 $$", errors.OutOfMemory, "-9", 30),
        (
            f"{AFTER_HELP} echo unknown model architecture: y; exit 1",
            errors.UnsupportedModel,
            "e: y",
            30,
        ),
        (
            f"{AFTER_HELP} echo error: invalid argument: -foo; echo usage; exit 1",
            errors.EngineUnavailable,
            "invalid argument: -foo",
            30,
        ),
        ("echo usage: cat", errors.EngineUnavailable, "not that of llama-server", 30),
        # Busy: also one that is only asked whether it is ready would be.
        (f"{AFTER_HELP} while :; do :; done", errors.LoadHung, "", 1),
    ],
)
async def test_a_program_that_does_not_become_ready(
    tmp_path: Path, script: str, kind: type[errors.LMStrixError], words: str, stall_s: float
) -> None:
    """Also one that does not mark the lines of its log."""
    program = tmp_path / "llama-server"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    settings = EngineSettings(model="m.gguf", n_ctx=512, batch_tokens=64, binary=str(program))
    with anyio.fail_after(60), pytest.raises(kind, match=words or None):
        async with running_engine(settings, stall_s=stall_s, unseen_s=stall_s):
            raise AssertionError


async def test_the_arguments_are_part_of_what_a_result_is_stored_under() -> None:
    status = await spawning("/bin/true", "-ngl 99 -ctk 'q8_0'").status()
    assert status.load_config["arguments"] == "-ngl 99 -ctk q8_0"
    assert status.available


@pytest.mark.skipif(sys.platform == "win32", reason="a script with a shebang")
async def test_a_program_in_this_folder_is_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (".", "on-path"):
        program = tmp_path / folder / "llama-server"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho version: {folder}\n", encoding="utf-8")
        program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "on-path"), prepend=os.pathsep)
    assert (await spawning("./llama-server").status()).versions["llama-server"] == "version: ."
    assert (await spawning("llama-server").status()).versions["llama-server"] == "version: on-path"


def test_what_cannot_be_started_is_wrong_usage() -> None:
    for ours in ("-c 4096", "--ctx-size=1", "--port 1", "-np 4", "'"):
        with pytest.raises(errors.ConfigurationError):
            spawning("/bin/true", ours)
    with pytest.raises(errors.ConfigurationError, match="not a program"):
        spawning("/no/such/program")
    with pytest.raises(errors.ConfigurationError, match="LMStrix starts"):
        llama_server(server_args="-ngl 99")


def servers(binary: str) -> list[str]:
    """Command lines of processes that run the server's script for this test."""
    script = str(Path(binary).parent / "llama_server.py")
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text(encoding="utf-8").replace("\0", " ")
        except OSError:
            continue
        if script in words:
            found.append(words)
    return found
