"""The Ollama adapter over a stand-in, on both event loops."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import httpx
import pytest

from lmstrix.adapters.counted import CountedModel
from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.adapters.ollama import OllamaAdapter
from lmstrix.errors import LoadFailed, ModelInUse, OutOfMemory, PromptTruncated
from lmstrix.json_values import as_count, as_object
from lmstrix.models import Prompt
from lmstrix.testing.contracts.adapter import AdapterContract
from lmstrix.testing.http_server import Answer, Request, StandInError
from lmstrix.testing.ollama import OllamaScript, OllamaServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

SENTENCE = "The river runs past the old mill. "
QUESTION = Prompt(user="What runs past the mill?", answer_prefix="The")


@asynccontextmanager
async def serving(
    script: OllamaScript | None = None,
    *,
    preload: bool = False,
    reply_s: float = 0,
    **truth: object,
) -> AsyncGenerator[tuple[OllamaServer, OllamaAdapter], None]:
    model = SimulatedModel(key="m:latest", **truth)  # pyright: ignore[reportArgumentType] - its fields
    server = OllamaServer(
        SimulatedAdapter(model, reply_seconds=reply_s),
        script=script,
        preload=[("m:latest", 4096)] if preload else (),
    )
    async with server:
        yield server, OllamaAdapter(server.host, busy_s=5)
        assert server.left_behind == []


@asynccontextmanager
async def loading(
    adapter: OllamaAdapter, context: int = 8192
) -> AsyncGenerator[CountedModel, None]:
    model = await adapter.find_model("m")
    async with adapter.load(model, context) as loaded:
        yield loaded


class TestContract(AdapterContract):
    @pytest.fixture
    async def server(self) -> AsyncGenerator[OllamaServer, None]:
        async with OllamaServer(SimulatedAdapter(SimulatedModel(key="m:latest"))) as server:
            yield server
        assert server.left_behind == []

    @pytest.fixture
    def adapter(self, server: OllamaServer) -> OllamaAdapter:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        return OllamaAdapter(server.host)

    @pytest.fixture
    def model_name(self) -> str:
        return "m"


# The simulated models' contract runs on every event loop; here one is enough.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.engine
@pytest.mark.slow
class TestContractOverTheRealEngine(AdapterContract):
    @pytest.fixture
    async def server(self, demo_model: Path) -> AsyncGenerator[OllamaServer, None]:
        engine = LlamaCppAdapter([demo_model.parent], threads=1)
        async with OllamaServer(engine) as server:
            yield server

    @pytest.fixture
    def adapter(self, server: OllamaServer) -> OllamaAdapter:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        return OllamaAdapter(server.host)

    @pytest.fixture
    def model_name(self, demo_model: Path) -> str:
        return demo_model.stem


async def test_every_request_forbids_truncation_in_the_same_words() -> None:
    async with serving() as (server, adapter), loading(adapter) as loaded:
        await loaded.complete(QUESTION, max_tokens=4)
        sent = [r.body for r in server.requests if "options" in r.body]
    assert {(r["truncate"], r["shift"], r["options"]["num_ctx"]) for r in sent} == {  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]
        (False, False, 8192)
    }
    assert server.loads == 1


@pytest.mark.parametrize(
    "script", [OllamaScript(window=2048), OllamaScript(window=2048, ignores_flags=True)]
)
async def test_a_prompt_that_is_cut_without_a_word_is_found_out(script: OllamaScript) -> None:
    async with serving(script) as (_, adapter), loading(adapter) as loaded:
        whole = Prompt(user=SENTENCE * 200)
        assert (await loaded.complete(whole, max_tokens=4)).prompt_tokens > 1600
        for sentences in (500, 300):
            with pytest.raises(PromptTruncated) as caught:
                await loaded.complete(Prompt(user=SENTENCE * sentences), max_tokens=4)
            assert caught.value.read_tokens <= 1026
            assert abs(caught.value.sent_tokens - 8 * sentences) < 16


async def test_the_users_model_is_left_alone() -> None:
    async with serving(preload=True) as (server, adapter):
        with pytest.raises(ModelInUse, match="4,096") as caught:
            async with loading(adapter):
                raise AssertionError
        assert "--force" in caught.value.hint
        assert (server.loaded, server.loads) == ({"m:latest": 4096}, 0)
        (instance,) = (await adapter.status()).loaded
        assert not instance.ours


async def test_with_force_the_users_context_is_loaded_again() -> None:
    async with serving(preload=True) as (server, _):
        async with loading(OllamaAdapter(server.host, force=True)) as loaded:
            assert loaded.effective_context == 8192
        assert server.loaded == {"m:latest": 4096}
        await server.close()


class OneFile(OllamaServer):
    """All its models have the same weights."""

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path == "/api/show":
            weights = f"/models/blobs/sha256-{'0' * 64}"
            await answer.whole({"modelfile": f"# by Ollama\nFROM {weights}\nTEMPLATE x\n"})
            return
        await super().handle(request, answer)


async def test_the_users_model_of_another_name_has_the_same_weights() -> None:
    """Ollama holds the weights once, so a load would replace it."""
    models = [SimulatedModel(key="m:latest"), SimulatedModel(key="long:latest")]
    async with OneFile(SimulatedAdapter(*models), preload=[("long:latest", 4096)]) as server:
        with pytest.raises(ModelInUse, match="same weights as 'm:latest'"):
            async with loading(OllamaAdapter(server.host)):
                raise AssertionError
        assert (server.loaded, server.loads) == ({"long:latest": 4096}, 0)
        async with loading(OllamaAdapter(server.host, force=True)):
            assert list(server.loaded) == ["m:latest"]
        assert server.loaded == {"long:latest": 4096}
        await server.close()


async def test_what_could_not_be_loaded_again_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmstrix.adapters.ollama.LOAD_S", 0.2)
    async with serving(preload=True) as (server, _):
        adapter = OllamaAdapter(server.host, force=True)
        async with loading(adapter):
            server.script = attrs.evolve(server.script, load_s=3)
        await adapter.aclose()
        assert any("4,096 tokens" in warning for warning in adapter.warnings)
        await server.close()


class BrokenServer(OllamaServer):
    """Is restarted while a model is loaded: it answers nothing for a while, and has nothing."""

    broken = False

    async def handle(self, request: Request, answer: Answer) -> None:
        if self.broken:
            raise StandInError(404, {"error": "no"})
        await super().handle(request, answer)


async def test_what_was_not_unloaded_may_be_the_users_by_now() -> None:
    async with BrokenServer(SimulatedAdapter(SimulatedModel(key="m:latest"))) as server:
        adapter = OllamaAdapter(server.host, busy_s=0.1)
        async with loading(adapter):
            server.broken = True
        server.broken = False
        other = {"model": "m:latest", "options": {"num_ctx": 2048}}
        async with httpx.AsyncClient(base_url=f"http://{server.host}") as client:
            await client.post("/api/generate", json=other)
        with pytest.raises(ModelInUse):
            async with loading(adapter):
                raise AssertionError
        await adapter.aclose()
        assert server.loaded == {"m:latest": 2048}
        await server.close()


class TightServer(OllamaServer):
    """Its runner dies of the first prompt in a context of more than 4,096 tokens."""

    words = "llama runner process has terminated: CUDA error"

    async def handle(self, request: Request, answer: Answer) -> None:
        options = as_object(request.body.get("options"))
        if request.path == "/api/chat" and (as_count(options.get("num_ctx")) or 0) > 4096:
            raise StandInError(500, {"error": self.words})
        await super().handle(request, answer)


@pytest.mark.parametrize(
    ("words", "kind"),
    [(TightServer.words, LoadFailed), ("CUDA error: out of memory", OutOfMemory)],
)
async def test_a_runner_that_dies_of_any_prompt_has_not_loaded(
    words: str, kind: type[LoadFailed]
) -> None:
    async with TightServer(SimulatedAdapter(SimulatedModel(key="m:latest"))) as server:
        server.words = words
        adapter = OllamaAdapter(server.host)
        with pytest.raises(kind) as caught:
            async with loading(adapter):
                raise AssertionError
        assert type(caught.value) is kind
        async with loading(adapter, 4096) as loaded:
            assert loaded.effective_context == 4096


class MuteServer(OllamaServer):
    """One that stops to say what is loaded."""

    mute = False

    async def handle(self, request: Request, answer: Answer) -> None:
        if self.mute and request.path == "/api/ps":
            raise StandInError(500, {"error": "no"})
        await super().handle(request, answer)


async def test_what_is_loaded_is_unloaded_although_the_server_no_longer_lists_it() -> None:
    async with MuteServer(SimulatedAdapter(SimulatedModel(key="m:latest"))) as server:
        adapter = OllamaAdapter(server.host, busy_s=5)
        with anyio.CancelScope() as scope:
            async with loading(adapter):
                server.mute = True
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        assert server.loaded == {}


async def test_what_somebody_else_loads_meanwhile_is_left_alone() -> None:
    """Their context replaces ours, so there is nothing of ours to unload."""
    async with serving() as (server, adapter):
        async with loading(adapter):
            other = {"model": "m:latest", "options": {"num_ctx": 2048}}
            async with httpx.AsyncClient(base_url=f"http://{server.host}") as client:
                await client.post("/api/generate", json=other)
        assert server.loaded == {"m:latest": 2048}
        await adapter.aclose()
        assert server.loaded == {"m:latest": 2048}
        await server.close()


KILLED = """
import os, sys, anyio
from lmstrix.adapters.ollama import OllamaAdapter

async def main():
    adapter = OllamaAdapter(sys.argv[1])
    async with adapter.load(await adapter.find_model("m"), 1024):
        os._exit(0)

anyio.run(main)
"""


async def test_what_a_killed_process_left_is_taken_over() -> None:
    async with serving() as (server, adapter):
        await anyio.run_process([sys.executable, "-c", KILLED, server.host])
        assert server.loaded == {"m:latest": 1024}
        async with loading(adapter) as loaded:
            assert loaded.effective_context == 8192
        assert server.loaded == {}


async def test_cancelling_a_load_leaves_nothing() -> None:
    async with serving() as (server, adapter):
        model = await adapter.find_model("m")
        server.script = OllamaScript(load_s=0.5)
        with anyio.move_on_after(0.2):
            async with adapter.load(model, 512):
                raise AssertionError
        await adapter.aclose()
        await server.reached(lambda: server.left_behind == [])
