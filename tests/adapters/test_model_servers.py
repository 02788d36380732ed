"""What the adapters for Ollama and for OpenAI's chat API have in common, over stand-ins."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest

from lmstrix import Cause, ContextReport, LMStrix
from lmstrix.adapters.counted import CountedModel
from lmstrix.adapters.llama_server import LlamaServerAdapter
from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.adapters.ollama import OllamaAdapter
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.errors import EngineUnavailable
from lmstrix.models import Prompt
from lmstrix.ports import Adapter
from lmstrix.testing.ollama import OllamaScript, OllamaServer
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

QUESTION = Prompt(user="What runs past the mill?", answer_prefix="The")


@attrs.frozen
class Kind:
    """A stand-in, how it is told to misbehave, and the adapter for it."""

    server: Any
    script: Any
    adapter: Any

    @asynccontextmanager
    async def loading(self, **misbehaviour: object) -> AsyncGenerator[tuple[Any, Any, Any]]:
        """The server, the adapter, and a loaded model."""
        engine = SimulatedAdapter(SimulatedModel(key="m:latest"))
        async with self.server(engine, script=self.script(**misbehaviour)) as server:
            adapter = self.adapter(server.host, busy_s=5)
            async with adapter.load(await adapter.find_model("m:latest"), 8192) as loaded:
                yield server, adapter, loaded


KINDS = {
    "ollama": Kind(OllamaServer, OllamaScript, OllamaAdapter),
    "openai": Kind(OpenAIServer, OpenAIScript, OpenAIAdapter),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


async def ask(loaded: CountedModel) -> str:
    return (await loaded.complete(QUESTION, max_tokens=4)).text


async def test_a_busy_server_is_waited_for(kind: Kind) -> None:
    failing = {"failures": 1} if kind.script is OpenAIScript else {}
    async with kind.loading(busy=2, **failing) as (_, _, loaded):
        assert await ask(loaded)


async def test_a_reply_without_an_end_is_trouble_with_the_server(kind: Kind) -> None:
    async with kind.loading() as (server, _, loaded):
        server.script = kind.script(endless=True)
        with anyio.fail_after(20), pytest.raises(EngineUnavailable, match="did not end"):
            await ask(loaded)
        await server.reached(lambda: server.working == 0)


async def test_without_counts_lengths_are_estimated_and_it_says_so(kind: Kind) -> None:
    silent = {"usage" if kind.script is OpenAIScript else "counts": False}
    async with kind.loading(**silent) as (server, adapter, loaded):
        prompt = Prompt(user="The river runs past the old mill. " * 200)
        reply = await loaded.complete(prompt, max_tokens=4)
        assert reply.prompt_tokens == pytest.approx(server.prompt_tokens[-1], rel=1 / 8)
        assert "estimated" in (await adapter.status()).detail


async def test_another_kind_of_server_is_told_with_what_to_do(kind: Kind) -> None:
    (other,) = (one for one in KINDS.values() if one is not kind)
    async with other.server(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        with pytest.raises(EngineUnavailable, match="another program may answer") as caught:
            await kind.adapter(server.host).list_models()
        assert "--host" in (caught.value.hint or "")


async def measured(kind: Kind, opening: str) -> ContextReport:
    """A model of 1,500 reliable tokens whose replies begin with `opening`."""
    model = SimulatedModel(key="m:latest", declared=2048, true_context=1500, opening=opening)
    async with (
        kind.server(SimulatedAdapter(model)) as server,
        LMStrix(adapter=kind.adapter(server.host), store="memory", levels=()) as client,
    ):
        return await client.find_true_context("m:latest")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("opening", ["\n\n", "<think>\n\n</think>\n\n"])
async def test_an_empty_line_or_thought_before_an_answer_is_no_answer(
    kind: Kind, opening: str
) -> None:
    report = await measured(kind, opening)
    assert report.true_context is not None
    assert abs(report.true_context - 1500) <= 256


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_model_that_does_not_stop_thinking_is_told_apart(kind: Kind) -> None:
    report = await measured(kind, "<think>\nLet me think." + " Again." * 100)
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert "turn off thinking" in " ".join(report.notes)


async def test_cancelling_a_prefill_stops_the_servers_work(kind: Kind) -> None:
    async with kind.loading() as (server, _, loaded):
        server.script = kind.script(prefill_s=60)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, loaded)
            await server.reached(lambda: server.working == 1)
            tasks.cancel_scope.cancel()
        await server.reached(lambda: server.working == 0, within_s=2)


async def test_the_key_is_sent_and_appears_nowhere(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-secret")
    async with kind.loading() as (server, adapter, loaded):
        server.script = kind.script(repeats_key=True)
        with pytest.raises(EngineUnavailable) as caught:
            await ask(loaded)
        assert {r.headers.get("authorization") for r in server.requests} == {"Bearer sk-secret"}
        said = f"{caught.value!r} {caught.value.hint} {await adapter.status()}"
        assert "LMSTRIX_API_KEY" in said
        assert "secret" not in said


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as LM Studio's SDK
@pytest.mark.parametrize(
    ("adapter", "advice"),
    [
        (OllamaAdapter, "ollama serve"),
        (LlamaServerAdapter, "llama-server -m"),
        (LMStudioAdapter, "lms server start"),
    ],
)
async def test_a_server_that_is_away(adapter: Any, advice: str, free_tcp_port: int) -> None:
    away: Adapter = adapter(f"127.0.0.1:{free_tcp_port}")
    status = await away.status()
    assert not status.available
    assert advice in status.hint
    with pytest.raises(EngineUnavailable):
        await away.list_models()
