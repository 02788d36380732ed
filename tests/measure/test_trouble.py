"""Failures of a server or a machine do not become context limits."""

from __future__ import annotations

import anyio
import attrs
import pytest
from simulations import AT_ONCE, Failing, Giving, is_near, measure

from lmstrix import Cause, ContextReport, MeasureOptions
from lmstrix.adapters.ollama import OllamaAdapter
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.errors import (
    ContextOverflow,
    EngineCrashed,
    EngineUnavailable,
    PredictionTooSlow,
    PromptTruncated,
)
from lmstrix.json_values import as_count, as_object
from lmstrix.ports import Adapter
from lmstrix.testing.http_server import Answer, Request, StandInError
from lmstrix.testing.ollama import OllamaServer
from lmstrix.testing.openai import OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

TRUTH = 4000
SOUND = SimulatedModel(key="m", declared=8192, true_context=10**6)
FORGETS = attrs.evolve(SOUND, true_context=TRUTH, beyond=Beyond.FORGETS_ALL)
DIED = EngineCrashed("it died (simulated)")


async def recall(adapter: Adapter, **options: object) -> ContextReport:
    """The report of recall alone."""
    return await measure(adapter, MeasureOptions(**options), levels=())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("every", [15, 25, 30])
async def test_an_engine_that_dies_now_and_then_is_no_limit(every: int) -> None:
    def now_and_then(engine: Failing, _: int) -> bool:
        return engine.counters.replies % every == 0

    report = await recall(Failing(SOUND, DIED, now_and_then))
    assert (report.true_context, report.cause) == (8192, Cause.DECLARED_MAXIMUM)
    report = await recall(Failing(FORGETS, DIED, now_and_then))
    assert report.cause is Cause.FORGETS
    assert is_near(report, TRUTH)


@pytest.mark.parametrize("at", [5, 20, 60, 100])
@pytest.mark.parametrize(
    "error",
    [
        ContextOverflow("too long (simulated)"),
        PromptTruncated("cut (simulated)", read_tokens=5, sent_tokens=500),
        PredictionTooSlow("too slow (simulated)"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_limit_that_the_engine_reports_once_is_none(error: Exception, at: int) -> None:
    """In the baseline, the search or the certificate."""
    failed: list[int] = []

    def once(engine: Failing, _: int) -> bool:
        if engine.counters.replies == at and not failed:
            failed.append(at)
            return True
        return False

    report = await recall(Failing(FORGETS, error, once))
    assert failed
    assert report.cause is Cause.FORGETS
    assert is_near(report, TRUTH)
    assert report.certified


async def test_an_engine_that_dies_of_reading_much_at_once_is_asked_cold() -> None:
    """The shorter prompt that is asked after a crash must not make the longer one cheaper."""
    read = 0

    def much(engine: Failing, _: int) -> bool:
        nonlocal read
        new, read = engine.counters.prompt_tokens - read, engine.counters.prompt_tokens
        return new > 1200

    report = await recall(Failing(SOUND, DIED, much))
    assert report.cause is Cause.CRASHED_ON_FILL
    assert report.true_context is not None
    assert report.true_context <= 1280


async def test_an_engine_that_dies_of_every_prompt_from_now_on_is_no_limit() -> None:
    def breaks(engine: Failing, _: int) -> bool:
        return engine.counters.most_prompt_tokens > 3000

    with pytest.raises(EngineUnavailable, match="again and again"):
        await recall(Failing(SOUND, DIED, breaks))


async def test_an_engine_that_dies_of_its_first_prompt_has_no_true_context() -> None:
    report = await recall(Failing(SOUND, DIED, lambda _, tokens: tokens > 0))
    assert (report.true_context, report.cause) == (None, Cause.CRASHED_ON_FILL)


@pytest.mark.parametrize(("loads", "raises"), [({2}, False), ({2, 3, 4, 5}, True)])
async def test_a_load_that_gives_less_is_no_limit(loads: set[int], *, raises: bool) -> None:
    """Another program has taken memory, and the server fits itself into what is left."""

    def fitting(engine: Giving, wanted: int) -> int:
        return min(wanted, 2048) if engine.counters.loads + 1 in loads else wanted

    adapter = Giving(FORGETS, fitting)
    if raises:
        with pytest.raises(EngineUnavailable, match="only 2,048 now"):
            await recall(adapter)
    else:
        report = await recall(adapter)
        assert (report.true_context, report.cause) == (3968, Cause.FORGETS)
        assert report.certified


@pytest.mark.parametrize("parts", [7, 2])
async def test_an_engine_that_always_gives_less_is_asked_for_as_much_again(parts: int) -> None:
    """A server that divides its context, or keeps some for itself."""
    model = attrs.evolve(SOUND, declared=16_384)
    report = await recall(Giving(model, lambda _, wanted: wanted * parts // 8))
    assert (report.true_context, report.cause) == (16_384 * parts // 8, Cause.CLAMPED)
    assert report.certified


async def test_a_crash_at_the_first_length_of_a_level_is_the_level_s_own() -> None:
    dies = Failing(SOUND, DIED, lambda _, tokens: tokens > 900)
    report = await measure(dies, levels=["tracing"])
    assert report.cause is Cause.CRASHED_ON_FILL
    assert 832 <= (report.true_context or 0) <= 960


async def test_a_load_that_falls_back_is_a_size_that_failed() -> None:
    """To less than what has loaded."""
    model = attrs.evolve(SOUND, declared=32_768, loadable=20_000)
    falls = Giving(model, lambda _, wanted: 1024 if 5000 < wanted < 20_000 else wanted)
    report = await recall(falls)
    assert report.loadable_context is not None
    assert 4800 <= report.loadable_context <= 5000
    assert (report.true_context, report.cause) == (report.loadable_context, Cause.LOAD_FAILED)


# Servers.


class Slow(OpenAIServer):
    """Its first answer comes late."""

    late_s = 0.8

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path.endswith("/chat/completions"):
            late_s, self.late_s = self.late_s, 0.0
            await anyio.sleep(late_s)
        await super().handle(request, answer)


async def test_a_server_that_loads_nothing_has_no_load_that_hangs() -> None:
    async with Slow(SimulatedAdapter(SOUND)) as server:
        report = await recall(OpenAIAdapter(server.host), load_timeout_s=0.4)
    assert (report.loadable_context, report.true_context) == (8192, 8192)


async def test_a_model_that_ollama_loads_late_does_not_hang() -> None:
    """It may wait for another program's request; Ollama tells itself if a load hangs."""
    async with OllamaServer(SimulatedAdapter(SOUND)) as server:
        server.script = attrs.evolve(server.script, load_s=0.8)
        report = await recall(OllamaAdapter(server.host), load_timeout_s=0.4)
        await server.close()
    assert (report.loadable_context, report.true_context) == (8192, 8192)


class Impatient(OllamaServer):
    """A proxy before it gives up long loads."""

    async def handle(self, request: Request, answer: Answer) -> None:
        options = as_object(request.body.get("options"))
        if request.path == "/api/generate" and (as_count(options.get("num_ctx")) or 0) > 4000:
            raise StandInError(504, {"error": "Gateway Time-out"})
        await super().handle(request, answer)


async def test_a_load_that_a_proxy_gives_up_does_not_hang() -> None:
    async with Impatient(SimulatedAdapter(SOUND)) as server:
        with pytest.raises(EngineUnavailable, match="504"):
            await recall(OllamaAdapter(server.host, busy_s=0.1))
        await server.close()


class Repeats(OllamaServer):
    """Breaks off a reply of many blanks, without its last line, as Ollama does."""

    async def handle(self, request: Request, answer: Answer) -> None:
        options = as_object(request.body.get("options"))
        room, prompt = as_count(options.get("num_predict")) or 0, len(str(request.body))
        if request.path == "/api/chat" and room > 30 and prompt > 18_000:
            await answer.begin("application/x-ndjson")
            for _ in range(31):
                await answer.piece(b'{"message": {"content": " "}, "done": false}\n')
            await answer.end()
            return
        await super().handle(request, answer)


async def test_a_reply_that_ollama_breaks_off_is_no_lost_connection() -> None:
    async with Repeats(SimulatedAdapter(SOUND)) as server:
        report = await measure(OllamaAdapter(server.host))
        await server.close()
    assert report.cause is Cause.GIBBERISH
    assert 3000 <= (report.true_context or 0) <= 5000
    assert report.certified


class Lossy(OpenAIServer):
    """Loses every twentieth request."""

    chats = 0

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path.endswith("completions"):
            self.chats += 1
            if self.chats % 20 == 0:
                raise anyio.BrokenResourceError
        await super().handle(request, answer)


async def test_connections_that_are_often_lost_end_nothing() -> None:
    """Without a tokenizer one question may take twenty requests for its size."""
    async with Lossy(SimulatedAdapter(FORGETS)) as server:
        options = MeasureOptions(retry=AT_ONCE)
        report = await measure(OpenAIAdapter(server.host), options, levels=())
        await server.close()
    assert is_near(report, TRUTH)
    assert report.certified


class Frozen(OllamaServer):
    """Answers nothing any more after its first questions."""

    asked = 0

    async def handle(self, request: Request, answer: Answer) -> None:
        self.asked += request.path == "/api/chat"
        if self.asked > 10:
            await anyio.sleep_forever()
        await super().handle(request, answer)


async def test_an_interruption_does_not_wait_for_a_server_that_stands_still() -> None:
    async with Frozen(SimulatedAdapter(SOUND)) as server:
        with anyio.fail_after(20), anyio.move_on_after(60) as scope:
            async with anyio.create_task_group() as tasks:

                async def interrupt() -> None:
                    await server.reached(lambda: server.asked > 10, within_s=10)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(interrupt)
                await recall(OllamaAdapter(server.host))
        assert not scope.cancel_called
        await server.close()
