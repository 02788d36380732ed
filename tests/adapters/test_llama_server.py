"""The adapter for a running llama-server: llama.cpp's own, in a child process of the test's."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from lmstrix.adapters.llama_server import (
    LlamaServerAdapter,
    SpawnedServerAdapter,
    llama_server,
)
from lmstrix.adapters.llamacpp.engine import Engine, EngineSettings, running_engine
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    EngineUnavailable,
    LMStrixError,
    LoadFailed,
    LoadHung,
    ModelInUse,
    OutOfMemory,
    UnsupportedModel,
)
from lmstrix.json_values import as_text
from lmstrix.models import Prompt
from lmstrix.testing.contracts.adapter import AdapterContract
from lmstrix.testing.http_server import Answer, HttpServer, Request, StandInError

LONG = Prompt(user="The river runs past the old mill. " * 100)


@pytest.fixture
async def engine(demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Engine, None]:
    settings = EngineSettings(model=str(demo_model), n_ctx=1024, batch_tokens=128, threads=1)
    async with running_engine(settings, stall_s=60) as engine:
        monkeypatch.setenv("LMSTRIX_API_KEY", engine.api_key)
        yield engine


@pytest.fixture
def adapter(engine: Engine) -> LlamaServerAdapter:
    return LlamaServerAdapter(engine.address)


# On every event loop the contract takes minutes here, and the engine is the same.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.engine
class TestContract(AdapterContract):
    @pytest.fixture
    def adapter(self, engine: Engine) -> LlamaServerAdapter:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        return LlamaServerAdapter(engine.address)

    @pytest.fixture
    def model_name(self, demo_model: Path) -> str:
        return demo_model.stem


@pytest.mark.engine
async def test_it_serves_what_it_was_started_with(
    adapter: LlamaServerAdapter, demo_model: Path
) -> None:
    (model,) = await adapter.list_models()
    assert (model.key, model.declared_context) == (demo_model.stem, 8192)
    async with adapter.load(model, 8192) as loaded:
        assert loaded.effective_context == 1024
    (warning,) = adapter.warnings
    assert "started with -c 1024; the model declares 8,192" in warning
    assert warning in (await adapter.status()).detail


@pytest.mark.engine
async def test_a_server_that_dies_is_a_lost_connection(
    adapter: LlamaServerAdapter, engine: Engine
) -> None:
    (model,) = await adapter.list_models()
    async with adapter.load(model, 1024) as loaded:
        await engine.end()
        with pytest.raises(ConnectionLost):
            await loaded.complete(LONG, max_tokens=4)
    assert not (await adapter.status()).available


class Router(HttpServer):
    """A router with one model loaded by the user, and one that is not."""

    def __init__(self) -> None:
        super().__init__()
        self.states = {
            "loaded": "loaded",
            "sleeping": "sleeping",
            "starting": "loading",
            "idle": "unloaded",
            "broken": "unloaded",
        }
        self.listed = 0

    async def handle(self, request: Request, answer: Answer) -> None:
        path, _, query = request.path.partition("?model=")
        name = as_text(request.body.get("model"))
        match path:
            case "/v1/models":
                data = [{"id": k, "status": {"value": v}} for k, v in self.states.items()]
                await answer.whole({"data": data})
                self.listed += 1
                if self.listed == 3:  # the user's load ends
                    self.states["starting"] = "loaded"
            case "/models/load" if self.states[name] in ("loaded", "sleeping", "loading"):
                raise StandInError(400, {"error": {"message": "model is already running"}})
            case "/models/load":
                self.states[name] = "failed" if name == "broken" else "loaded"
                await answer.whole({"success": True})
            case "/models/unload":
                self.states[name] = "unloaded"
                await answer.whole({"success": True})
            case "/props" if query in self.states:
                await answer.whole({"default_generation_settings": {"n_ctx": 4096}})
            case "/tokenize" if name in self.states:
                await answer.whole({"tokens": [1, 2, 3]})
            case _:
                await answer.whole({"status": "ok"})


@pytest.mark.parametrize("name", ["sleeping", "starting"])
async def test_a_router_keeps_what_the_user_runs(name: str) -> None:
    async with Router() as router:
        adapter = LlamaServerAdapter(router.host)
        async with adapter.load(await adapter.find_model(name), 4096) as loaded:
            assert loaded.effective_context == 4096
        assert router.states[name] in ("sleeping", "loaded")


class HastyRouter(Router):
    """The user loads a model between our look and our request."""

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/models/load":
            self.states["idle"] = "loaded"
        await super().handle(request, answer)


async def test_what_somebody_else_loads_meanwhile_is_theirs() -> None:
    async with HastyRouter() as router:
        adapter = LlamaServerAdapter(router.host)
        async with adapter.load(await adapter.find_model("idle"), 4096):
            pass
        assert router.states["idle"] == "loaded"


@pytest.mark.parametrize("name", ["loaded", "idle"])
async def test_a_router_loads_only_what_is_asked_for(name: str) -> None:
    async with Router() as router:
        adapter, before = LlamaServerAdapter(router.host), dict(router.states)
        async with adapter.load(await adapter.find_model(name), 4096) as loaded:
            assert loaded.effective_context == 4096
            assert await loaded.count_tokens("some text") == 3
            assert router.states[name] == "loaded"
        before["starting"] = router.states["starting"]
        assert router.states == before


class SlowRouter(Router):
    """A model that is unloaded is still listed as loaded for a while, and a request loads it."""

    ending = 0

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/models/unload":
            self.ending = 3
            await answer.whole({"success": True})
            return
        if request.path == "/v1/models" and self.ending:
            self.ending -= 1
            if not self.ending:
                self.states["idle"] = "unloaded"
        await super().handle(request, answer)


async def test_a_router_has_unloaded_the_model_before_it_is_loaded_again() -> None:
    async with SlowRouter() as router:
        adapter = LlamaServerAdapter(router.host)
        model = await adapter.find_model("idle")
        for _ in range(2):
            async with adapter.load(model, 4096):
                assert router.states["idle"] == "loaded"
            assert router.states["idle"] == "unloaded"


class FullRouter(Router):
    """Runs no more models than it runs now."""

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/props":
            await answer.whole({"role": "router", "max_instances": 3})
            return
        await super().handle(request, answer)


async def test_a_router_that_would_unload_the_users_model_is_not_asked_to_load() -> None:
    async with FullRouter() as router:
        adapter = LlamaServerAdapter(router.host)
        with pytest.raises(ModelInUse, match="3 of at most 3") as caught:
            async with adapter.load(await adapter.find_model("idle"), 4096):
                raise AssertionError
        assert "sleeping" in caught.value.hint
        assert router.states["idle"] == "unloaded"


class LoadingRouter(Router):
    """Loads until somebody has asked five times."""

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/models/load":
            self.listed, self.states["starting"] = -2, "loading"
            self.states["idle"] = "loading"
            await answer.whole({"success": True})
            return
        await super().handle(request, answer)
        if self.states["idle"] == "loading" and self.listed >= 3:
            self.states["idle"] = "loaded"


async def test_a_router_that_loads_makes_progress() -> None:
    """So that a large model is not taken for a load that hangs."""
    told: list[float] = []
    async with LoadingRouter() as router:
        adapter = LlamaServerAdapter(router.host)
        model = await adapter.find_model("idle")
        async with adapter.load(model, 4096, on_progress=lambda p: told.append(p.fraction)):
            pass
    assert told.count(0.0) >= 2


class OtherProgram(HttpServer):
    """Says that it is well, and is no llama-server."""

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/props":
            raise StandInError(404, {"error": "not found"})
        await answer.whole({"status": True})


async def test_another_program_at_the_usual_port_hides_no_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with OtherProgram() as other, Router() as router:
        usual = [f"http://{other.host}", f"http://{router.host}"]
        monkeypatch.setattr("lmstrix.adapters.llama_server.DEFAULT_ADDRESSES", usual)
        assert (await LlamaServerAdapter().find_model("idle")).key == "idle"


async def test_a_router_that_cannot_load() -> None:
    async with Router() as router:
        adapter = LlamaServerAdapter(router.host)
        with pytest.raises(LoadFailed):
            async with adapter.load(await adapter.find_model("broken"), 4096):
                raise AssertionError


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


# On every event loop the contract takes minutes here, and the engine is the same.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.engine
class TestContractSpawned(AdapterContract):
    @pytest.fixture
    def adapter(self, binary: str) -> SpawnedServerAdapter:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        return spawning(binary)

    @pytest.fixture
    def model_name(self, demo_model: Path) -> str:
        return str(demo_model)


@pytest.mark.engine
async def test_nothing_of_a_spawned_server_is_left(binary: str, demo_model: Path) -> None:
    adapter = spawning(binary)
    async with adapter.load(await adapter.find_model(str(demo_model)), 512):
        running = servers(binary)
        assert running
        assert not any("LLAMA" in line or "api" in line for line in running)
    await gone(binary)


@pytest.mark.skipif(sys.platform == "win32", reason="a script with a shebang")
async def test_a_server_that_never_becomes_ready_is_given_up(tmp_path: Path) -> None:
    """Although it is busy: also one that is only asked whether it is ready would be."""
    program = tmp_path / "llama-server"
    busy = '#!/bin/sh\n[ "$1" = --help ] || while :; do :; done\n'
    program.write_text(busy, encoding="utf-8")
    program.chmod(0o755)
    settings = EngineSettings(model="m.gguf", n_ctx=512, batch_tokens=64, binary=str(program))
    with anyio.fail_after(30), pytest.raises(LoadHung):
        async with running_engine(settings, stall_s=1, unseen_s=1):
            raise AssertionError


KILLED = """
import os, signal, sys, anyio
from lmstrix.adapters.llama_server import SpawnedServerAdapter

async def main():
    adapter = SpawnedServerAdapter(sys.argv[1], "-b 128", folders=[])
    async with adapter.load(await adapter.find_model(sys.argv[2]), 512):
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(main)
"""


@pytest.mark.engine
async def test_a_spawned_server_dies_with_us(binary: str, demo_model: Path) -> None:
    command = [sys.executable, "-c", KILLED, binary, str(demo_model)]
    result = await anyio.run_process(command, check=False)
    assert result.returncode == -9
    await gone(binary)


@pytest.mark.engine
async def test_a_spawned_server_that_cannot_load(demo_model: Path) -> None:
    adapter = spawning("/bin/false")
    model = await adapter.find_model(str(demo_model))
    with pytest.raises(LoadFailed):
        async with adapter.load(model, 512):
            raise AssertionError


AFTER_HELP = '[ "$1" = --help ] && exit;'


@pytest.mark.skipif(sys.platform == "win32", reason="a script with a shebang")
@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("echo libcudart.so: cannot open >&2; exit 127", EngineUnavailable, "libcudart"),
        (f"{AFTER_HELP} kill -9 $$", OutOfMemory, "-9"),
        (f"{AFTER_HELP} echo unknown model architecture: y; exit 1", UnsupportedModel, "ture: y"),
        (f"{AFTER_HELP} echo unknown argument: -foo; exit 1", LoadFailed, "-foo"),
    ],
)
async def test_what_a_program_says_when_it_ends(
    tmp_path: Path, script: str, kind: type[LMStrixError], words: str
) -> None:
    """Also one that does not mark the lines of its log."""
    program = tmp_path / "llama-server"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    settings = EngineSettings(model="m.gguf", n_ctx=512, batch_tokens=64, binary=str(program))
    with pytest.raises(kind, match=words):
        async with running_engine(settings, stall_s=30):
            raise AssertionError


async def test_the_arguments_are_part_of_what_a_result_is_stored_under() -> None:
    status = await spawning("/bin/true", "-ngl 99 -ctk 'q8_0'").status()
    assert status.load_config["arguments"] == "-ngl 99 -ctk q8_0"
    assert status.available


@pytest.mark.parametrize("arguments", ["-c 4096", "--ctx-size=1", "--port 1", "-np 4", "'"])
def test_arguments_of_our_own_cannot_be_given(arguments: str) -> None:
    with pytest.raises(ConfigurationError):
        spawning("/bin/true", arguments)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ConfigurationError, match="not a program"):
        spawning("/no/such/program")
    with pytest.raises(ConfigurationError, match="LMStrix starts"):
        llama_server(server_args="-ngl 99")


async def gone(binary: str) -> None:
    """The server is killed, and the system takes a moment to clear it away."""
    with anyio.fail_after(20):
        while servers(binary):  # noqa: ASYNC110 - other processes
            await anyio.sleep(0.05)


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
