"""What the adapters for Ollama and OpenAI's chat API have in common; and the second of them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from loads import load_error, loading

from lmstrix import Cause, ContextReport, LMStrix, MeasureOptions, errors
from lmstrix.adapters.counted import CountedModel
from lmstrix.adapters.llama_server import LlamaServerAdapter
from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.adapters.ollama import OllamaAdapter
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.errors import EngineUnavailable
from lmstrix.json_values import as_object
from lmstrix.models import Prompt, StopReason
from lmstrix.ports import Adapter
from lmstrix.testing.contracts.adapter import AdapterContract
from lmstrix.testing.http_server import Answer, Request, StandInError
from lmstrix.testing.ollama import OllamaScript, OllamaServer
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

SENTENCE = "The river runs past the old mill. "
QUESTION = Prompt(user="What runs past the mill?", answer_prefix="The")


@attrs.frozen
class Kind:
    """A stand-in, how it is told to misbehave, the adapter for it, and a key that ``m`` means."""

    server: Any
    script: Any
    adapter: Any
    key: str

    @asynccontextmanager
    async def loading(self, **misbehaviour: object) -> AsyncGenerator[tuple[Any, Any, Any]]:
        engine = SimulatedAdapter(SimulatedModel(key=self.key))
        async with self.server(engine, script=self.script(**misbehaviour)) as server:
            adapter = self.adapter(server.host, busy_s=5)
            async with loading(adapter) as loaded:
                yield server, adapter, loaded


KINDS = {
    "ollama": Kind(OllamaServer, OllamaScript, OllamaAdapter, "m:latest"),
    "openai": Kind(OpenAIServer, OpenAIScript, OpenAIAdapter, "org/m"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


class TestContract(AdapterContract):
    @pytest.fixture
    async def adapter(self, kind: Kind) -> AsyncGenerator[Adapter, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        async with kind.server(SimulatedAdapter(SimulatedModel(key=kind.key))) as server:
            yield kind.adapter(server.host)
        assert not getattr(server, "left_behind", [])

    @pytest.fixture
    def model_name(self) -> str:
        return "m"


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
        reply = await loaded.complete(Prompt(user=SENTENCE * 200), max_tokens=4)
        assert reply.prompt_tokens == pytest.approx(server.prompt_tokens[-1], rel=1 / 8)
        assert "estimated" in (await adapter.status()).detail


async def test_another_kind_of_server_is_told_with_what_to_do(kind: Kind) -> None:
    (other,) = (one for one in KINDS.values() if one is not kind)
    async with other.server(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        with pytest.raises(EngineUnavailable, match="another program may answer") as caught:
            await kind.adapter(server.host).list_models()
        assert "--host" in (caught.value.hint or "")


async def measured(kind: Kind, opening: str) -> ContextReport:
    """A model of 1,024 reliable tokens whose replies begin with `opening`."""
    model = SimulatedModel(key=kind.key, declared=1024, opening=opening)
    async with (
        kind.server(SimulatedAdapter(model)) as server,
        LMStrix(adapter=kind.adapter(server.host), store="memory", levels=()) as client,
    ):
        return await client.find_true_context("m", MeasureOptions(certify=False))


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("opening", ["\n\n", "<think>\n\n</think>\n\n"])
async def test_an_empty_line_or_thought_is_no_answer(kind: Kind, opening: str) -> None:
    assert (await measured(kind, opening)).true_context == 1024


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


async def test_penalties_of_the_models_own_settings_are_off(kind: Kind) -> None:
    """They would punish repeating a fact of the prompt."""
    async with kind.loading() as (server, _, loaded):
        await ask(loaded)
        body = server.requests[-1].body
        sent = body | as_object(body.get("options"))
        penalties = {name: value for name, value in sent.items() if "penalty" in name}
        assert penalties
        for name, value in penalties.items():
            assert value == (1 if name in {"repeat_penalty", "repetition_penalty"} else 0)
        assert sent["temperature"] == 0


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


# OpenAI's chat API -------------------------------------------------------------------------------


@asynccontextmanager
async def serving(
    script: OpenAIScript | None = None,
) -> AsyncGenerator[tuple[OpenAIServer, CountedModel], None]:
    async with (
        OpenAIServer(SimulatedAdapter(SimulatedModel(key="m")), script=script) as server,
        loading(OpenAIAdapter(server.host, busy_s=5)) as loaded,
    ):
        yield server, loaded


@pytest.mark.parametrize(
    ("script", "repeats"),
    [
        (OpenAIScript(), False),
        (OpenAIScript(echoes=True), True),
        (OpenAIScript(strict=True), False),
        (OpenAIScript(strict=True, prefill=False), True),
        (OpenAIScript(usage_asked=False, prefill=False), True),
    ],
    ids=["continued", "repeated", "last message", "asked for", "without asking for counts"],
)
async def test_the_first_words_in_the_form_that_the_server_takes(
    script: OpenAIScript, repeats: bool
) -> None:
    """A reply that begins with them itself gets room for that."""
    async with serving(script) as (server, loaded):
        prompt = Prompt(user=f"{SENTENCE}\n\nSay it.", answer_prefix="The river runs")
        assert (await loaded.complete(prompt, max_tokens=8)).text == " past the old mill."
        before = len(server.requests)
        await loaded.complete(prompt, max_tokens=8)
        assert len(server.requests) == before + 1
        body = server.requests[-1].body
        most = body.get("max_tokens") or body["max_completion_tokens"]
        assert most == (8 + 5 if repeats else 8)


class SlowAtFirst(OpenAIServer):
    """Takes far longer for its first prompt of more than a few words."""

    waits = True

    async def handle(self, request: Request, answer: Answer) -> None:
        if self.waits and len(str(request.body)) > 1000:
            self.waits = False
            await anyio.sleep(0.5)
        await super().handle(request, answer)


async def test_a_slow_first_prompt_is_no_sign_of_a_cache() -> None:
    models = SimulatedAdapter(SimulatedModel(key="m", reuses_prefixes=False))
    script = OpenAIScript(cached=False, prefill_s=0.05)
    async with (
        SlowAtFirst(models, script=script) as server,
        loading(OpenAIAdapter(server.host)) as loaded,
    ):
        await loaded.complete(Prompt(user=SENTENCE * 50), max_tokens=4)
        reply = await loaded.complete(Prompt(user=SENTENCE * 50), max_tokens=4)
        assert not reply.cached_tokens


class Hidden(OpenAIServer):
    """Counts its reasoning, and shows none of it."""

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path != "/v1/chat/completions":
            await super().handle(request, answer)
            return
        most = request.body["max_tokens"]
        counts = {
            "completion_tokens": most,
            "completion_tokens_details": {"reasoning_tokens": most},
        }
        message = {"index": 0, "message": {"content": ""}, "finish_reason": "length"}
        await answer.whole({"choices": [message], "usage": {"prompt_tokens": 9, **counts}})


async def test_reasoning_that_is_only_counted_is_no_empty_answer() -> None:
    models = SimulatedAdapter(SimulatedModel(key="m"))
    async with Hidden(models) as server, loading(OpenAIAdapter(server.host)) as loaded:
        reply = await loaded.complete(QUESTION, max_tokens=4)
        assert (reply.text, reply.answer) == ("", None)


class Thoughtful(OpenAIServer):
    """Counts 300 tokens of reasoning that it does not show, and streams an answer of five."""

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path != "/v1/chat/completions":
            await super().handle(request, answer)
            return
        counts = {
            "completion_tokens": 305,
            "completion_tokens_details": {"reasoning_tokens": 300},
        }
        words = [{"content": f" {n}"} for n in range(5)]
        pieces: list[Any] = [{"choices": [{"index": 0, "delta": word}]} for word in words]
        end = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}]}
        await answer.begin("text/event-stream")
        usage: Any = {"choices": [], "usage": {"prompt_tokens": 9, **counts}}
        for piece in (*pieces, end, usage):
            await answer.piece(b"data: " + json.dumps(piece).encode() + b"\n\n")
            await anyio.sleep(0.005)
        await answer.end()


async def test_tokens_that_are_not_streamed_are_no_part_of_a_speed() -> None:
    models = SimulatedAdapter(SimulatedModel(key="m"))
    async with Thoughtful(models) as server, loading(OpenAIAdapter(server.host)) as loaded:
        reply = await loaded.complete(QUESTION, max_tokens=400)
        assert (reply.generated_tokens, reply.tokens_per_second) == (305, None)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_another_server_on_this_machine_has_other_results(tmp_path: Path) -> None:
    models = [SimulatedModel(key="m", declared=2048, true_context=n) for n in (1024, 2048)]
    found: list[object] = []
    for model in models:
        async with OpenAIServer(SimulatedAdapter(model)) as server:
            adapter = OpenAIAdapter(server.host)
            async with LMStrix(adapter=adapter, store=tmp_path / "s.sqlite3", levels=()) as client:
                with pytest.raises(errors.ContextOverflow, match="tested: not yet"):
                    await client.infer("m", "A word. " * 3000)
                options = MeasureOptions(certify=False)
                assert not await client.known_reports(await client.list_models(), options)
                found.append((await client.find_true_context("m", options)).cause)
                assert await client.known_reports(await client.list_models(), options)
    assert found == [Cause.FORGETS, Cause.DECLARED_MAXIMUM]


async def test_cached_tokens_are_what_the_server_says() -> None:
    async with serving() as (_, loaded):
        await loaded.complete(Prompt(user=SENTENCE * 50), max_tokens=4)
        reply = await loaded.complete(Prompt(user=SENTENCE * 50), max_tokens=4)
        assert reply.cached_tokens is not None
        assert reply.cached_tokens > 0.9 * reply.prompt_tokens


async def test_a_reply_that_ends_without_a_reason_is_whole() -> None:
    async with serving(OpenAIScript(reasons=False)) as (_, loaded):
        assert (await loaded.complete(QUESTION, max_tokens=4)).text


def ends_with_an_answer(request: Request) -> bool:
    messages: Any = request.body["messages"]
    return messages[-1]["role"] == "assistant"


class SomeRefuse(OpenAIServer):
    """Model ``m`` takes the first words as a last message; ``hard`` only if asked for them, and
    answers 404 to anything else, as mlx_lm does.
    """

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.body.get("model") == "hard" and ends_with_an_answer(request):
            raise StandInError(404, {"error": "the last message must be the user's"})
        await super().handle(request, answer)


async def test_what_one_model_refuses_says_nothing_of_another() -> None:
    models = [SimulatedModel(key="hard"), SimulatedModel(key="m")]
    async with SomeRefuse(SimulatedAdapter(*models)) as server:
        adapter = OpenAIAdapter(server.host)
        forms: dict[str, bool] = {}
        for key in ("hard", "m"):
            async with loading(adapter, key) as loaded:
                assert await ask(loaded)
            forms[key] = ends_with_an_answer(server.requests[-1])
    assert forms == {"hard": False, "m": True}


class FixedServer(OpenAIServer):
    data, repeats = b"", False

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.method != "POST":
            await super().handle(request, answer)
            return
        await answer.begin("text/event-stream" if self.repeats else "application/json")
        await answer.piece(self.data)
        while self.repeats:
            await anyio.sleep(0.05)
            await answer.piece(self.data)
        await answer.end()


async def test_comments_without_an_event_are_no_progress() -> None:
    async with FixedServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        server.data, server.repeats = b": waiting\n\n", True
        adapter = OpenAIAdapter(server.host, stall_timeout_s=0.2)
        with anyio.fail_after(30):
            await load_error(adapter, errors.EngineTimeout)


class ClosingServer(OpenAIServer):
    """Ends a reply that it has begun, as a proxy does after its time limit."""

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.method != "POST":
            await super().handle(request, answer)
            return
        await answer.begin("text/event-stream")
        await anyio.sleep(0.3)
        await answer.end()


@pytest.mark.parametrize(
    ("limit", "kind"), [(0.3, errors.EngineTimeout), (9, errors.ConnectionLost)]
)
async def test_a_proxys_time_limit_is_no_crash(
    limit: float, kind: type[errors.LMStrixError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmstrix.adapters.http.PROXY_LIMITS_S", (limit,))
    async with ClosingServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        error = await load_error(OpenAIAdapter(server.host), kind)
    assert ("proxy" in error.hint) == (limit < 1)


LAST = b'"finish_reason": "stop"}], "usage": {"prompt_tokens": 9}}'


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"choices": [{"delta": {"content": "x"}, ' + LAST,
        b'data: {"choices": [{"delta": {"content": "x"},\r\n: waiting\r\ndata: ' + LAST,
        b'{"choices": [{"message": {"content": "x"}, ' + LAST,
    ],
    ids=["last line without an end", "one event in two lines", "not streamed"],
)
async def test_replies_in_other_forms(data: bytes) -> None:
    async with FixedServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        server.data, adapter = data, OpenAIAdapter(server.host)
        async with loading(adapter) as loaded:
            assert (await loaded.complete(QUESTION, max_tokens=4)).text == "x"
        server.data = data[:-9]
        await load_error(adapter, errors.ConnectionLost, match="too early")


async def test_an_error_inside_a_stream_has_its_own_status() -> None:
    """Too many requests say nothing about the prompt, however long it is."""
    async with FixedServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        server.data = b'data: {"error": {"code": 429, "message": "Provider returned error"}}\n\n'
        error = await load_error(OpenAIAdapter(server.host))
    assert type(error) is errors.EngineUnavailable


async def test_a_filtered_reply_is_no_answer() -> None:
    async with serving(OpenAIScript(filters=True)) as (_, loaded):
        reply = await loaded.complete(QUESTION, max_tokens=4)
        assert (reply.text, reply.stop_reason) == ("", StopReason.CANCELLED)


@pytest.mark.parametrize("host", ["0.0.0.0:1", "http://localhost.:1", "[::ffff:127.0.0.1]:1"])
def test_this_machine_costs_nothing(host: str) -> None:
    adapter = OpenAIAdapter(host)
    adapter.check_cost(8192)
    assert adapter.turn == OpenAIAdapter("127.0.0.1:1").turn


HOSTS = "|http://|ftp://a:1|a b:1|http://user:secret@host:1|host:x|h:1?k=v|192.168.1.256:1"


@pytest.mark.parametrize("host", HOSTS.split("|"))
def test_an_address_that_is_none(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTRIX_HOST", "::nonsense::")
    with pytest.raises(errors.ConfigurationError) as caught:
        OpenAIAdapter(host)
    assert "secret" not in str(caught.value)
