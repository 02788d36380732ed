"""Failures of a server or a machine do not become context limits."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import attrs
import pytest

from lmstrix import Cause, ContextReport, LMStrix, MeasureOptions
from lmstrix.adapters.ollama import OllamaAdapter
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.errors import EngineCrashed, EngineTimeout, EngineUnavailable, InfrastructureError
from lmstrix.json_values import as_count, as_object
from lmstrix.models import LoadProgress
from lmstrix.ports import Adapter
from lmstrix.testing.http_server import Answer, Request, StandInError
from lmstrix.testing.ollama import OllamaServer
from lmstrix.testing.openai import OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])

TRUTH = 4000
SOUND = SimulatedModel(key="m", declared=8192, true_context=10**6)
FORGETS = attrs.evolve(SOUND, true_context=TRUTH, beyond=Beyond.FORGETS_ALL)


async def measure(adapter: Adapter, **options: object) -> ContextReport:
    async with LMStrix(adapter=adapter, store="memory", levels=()) as client:
        return await client.find_true_context("m", MeasureOptions(**options))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("every", [15, 25, 30])
async def test_an_engine_that_dies_now_and_then_is_no_limit(every: int) -> None:
    calls = 0

    class Flaky(SimulatedAdapter):
        async def before_reply(self, prompt_tokens: int) -> None:
            nonlocal calls
            calls += 1
            if prompt_tokens and calls % every == 0:
                raise EngineCrashed("it died (simulated)")

    report = await measure(Flaky(SOUND))
    assert (report.true_context, report.cause) == (8192, Cause.DECLARED_MAXIMUM)
    calls = 0
    report = await measure(Flaky(FORGETS))
    assert report.cause is Cause.FORGETS
    assert TRUTH * 15 / 16 <= (report.true_context or 0) <= TRUTH * 17 / 16


async def test_an_engine_that_dies_of_every_prompt_from_now_on_is_no_limit() -> None:
    class Broken(SimulatedAdapter):
        gone = False

        async def before_reply(self, prompt_tokens: int) -> None:
            self.gone = self.gone or prompt_tokens > 3000
            if self.gone:
                raise EngineCrashed("it died (simulated)")

    with pytest.raises(EngineUnavailable, match="again and again"):
        await measure(Broken(SOUND))


async def test_an_engine_that_dies_of_its_first_prompt_has_no_true_context() -> None:
    class Dead(SimulatedAdapter):
        async def before_reply(self, prompt_tokens: int) -> None:
            raise EngineCrashed(f"it died of {prompt_tokens} tokens (simulated)")

    report = await measure(Dead(SOUND))
    assert (report.true_context, report.cause) == (None, Cause.CRASHED_ON_FILL)


@pytest.mark.parametrize(("loads", "raises"), [({2}, False), ({2, 3, 4, 5}, True)])
async def test_a_load_that_gives_less_than_before_is_no_limit(
    loads: set[int], *, raises: bool
) -> None:
    """Another program has taken memory, and the server fits itself into what is left."""

    class Fitting(SimulatedAdapter):
        async def before_load(
            self, context_length: int, on_progress: Callable[[LoadProgress], None]
        ) -> int:
            return min(context_length, 2048) if self.counters.loads + 1 in loads else context_length

    if raises:
        with pytest.raises(EngineUnavailable, match="only 2,048 now"):
            await measure(Fitting(FORGETS))
    else:
        report = await measure(Fitting(FORGETS))
        assert (report.true_context, report.cause) == (3968, Cause.FORGETS)
        assert report.certified


@pytest.mark.parametrize("parts", [7, 2])
async def test_an_engine_that_always_gives_less_is_asked_for_as_much_again(parts: int) -> None:
    """A server that divides its context, or keeps some for itself."""

    class Divides(SimulatedAdapter):
        async def before_load(
            self, context_length: int, on_progress: Callable[[LoadProgress], None]
        ) -> int:
            return context_length * parts // 8

    report = await measure(Divides(attrs.evolve(SOUND, declared=16_384)))
    assert (report.true_context, report.cause) == (16_384 * parts // 8, Cause.CLAMPED)
    assert report.certified


async def test_a_crash_at_the_first_length_of_a_level_is_the_level_s_own() -> None:
    class Dies(SimulatedAdapter):
        async def before_reply(self, prompt_tokens: int) -> None:
            if prompt_tokens > 900:
                raise EngineCrashed("it died (simulated)")

    client = LMStrix(adapter=Dies(SOUND), store="memory", levels=["tracing"])
    report = await client.find_true_context("m")
    assert report.cause is Cause.CRASHED_ON_FILL
    assert 832 <= (report.true_context or 0) <= 960


async def test_a_load_that_falls_back_is_a_size_that_failed() -> None:
    """To less than what has loaded."""

    class Falls(SimulatedAdapter):
        async def before_load(
            self, context_length: int, on_progress: Callable[[LoadProgress], None]
        ) -> int:
            return 1024 if 5000 < context_length < 20_000 else context_length

    model = attrs.evolve(SOUND, declared=32_768, loadable=20_000)
    report = await measure(Falls(model))
    assert report.loadable_context is not None
    assert 4800 <= report.loadable_context <= 5000
    assert (report.true_context, report.cause) == (report.loadable_context, Cause.LOAD_FAILED)


# Servers.


class Slow(OpenAIServer):
    """Its first answers come late, or it says that it is busy."""

    late_s = 0.0
    busy = 0

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path.endswith("/chat/completions"):
            if self.busy:
                self.busy -= 1
                raise StandInError(429, {"error": {"message": "slow down"}})
            late_s, self.late_s = self.late_s, 0.0
            await anyio.sleep(late_s)
        await super().handle(request, answer)


@pytest.mark.parametrize("trouble", ["late", "busy"])
async def test_a_server_that_loads_nothing_has_no_load_that_hangs(trouble: str) -> None:
    async with Slow(SimulatedAdapter(SOUND)) as server:
        server.late_s, server.busy = (0.8, 0) if trouble == "late" else (0.0, 2)
        report = await measure(OpenAIAdapter(server.host), load_timeout_s=0.4)
    assert (report.loadable_context, report.true_context) == (8192, 8192)


async def test_a_model_that_ollama_loads_late_does_not_hang() -> None:
    """It may wait for another program's request; Ollama tells itself if a load hangs."""
    async with OllamaServer(SimulatedAdapter(SOUND)) as server:
        server.script = attrs.evolve(server.script, load_s=0.8)
        report = await measure(OllamaAdapter(server.host), load_timeout_s=0.4)
        await server.close()
    assert (report.loadable_context, report.true_context) == (8192, 8192)


class Gateway(OpenAIServer):
    """A proxy before it refuses long prompts."""

    status = 504

    async def handle(self, request: Request, answer: Answer) -> None:
        if request.path.endswith("/chat/completions") and len(str(request.body)) > 12_000:
            page = b"<html><title>nginx</title></html>"
            headers = {"content-length": str(len(page))}
            await answer.begin("text/html", self.status, headers)
            await answer.piece(page)
            await answer.end()
            return
        await super().handle(request, answer)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (504, EngineTimeout),
        (524, EngineTimeout),
        (413, EngineUnavailable),
        (302, EngineUnavailable),
    ],
)
async def test_what_a_proxy_refuses_is_no_limit(
    status: int, kind: type[InfrastructureError]
) -> None:
    async with Gateway(SimulatedAdapter(SOUND)) as server:
        server.status = status
        with pytest.raises(kind):
            await measure(OpenAIAdapter(server.host, busy_s=0.1))


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
            await measure(OllamaAdapter(server.host, busy_s=0.1))
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
        client = LMStrix(adapter=OllamaAdapter(server.host), store="memory")
        report = await client.find_true_context("m")
        await server.close()
    assert report.cause is Cause.GIBBERISH
    assert 3000 <= (report.true_context or 0) <= 5000
    assert report.certified


async def test_what_somebody_loads_meanwhile_is_not_replaced() -> None:
    preload = [("m", 4096)]
    async with OllamaServer(SimulatedAdapter(SOUND, reply_seconds=0.05), preload=preload) as server:
        adapter = OllamaAdapter(server.host, force=True)
        await measure(adapter, budget_s=1.0)
        other = OllamaAdapter(server.host)
        async with other.load(await other.find_model("m"), 2048):
            await adapter.aclose()
            assert server.loaded == {"m": 2048}
        await server.close()


async def test_the_users_model_is_loaded_again_after_a_budget() -> None:
    preload = [("m", 4096)]
    async with OllamaServer(SimulatedAdapter(SOUND, reply_seconds=0.05), preload=preload) as server:
        adapter = OllamaAdapter(server.host, force=True)
        report = await measure(adapter, budget_s=1.0)
        assert report.cause is Cause.BUDGET_SPENT
        await adapter.aclose()
        assert server.loaded == {"m": 4096}
        assert adapter.warnings == ()
        await server.close()


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
                await measure(OllamaAdapter(server.host))
        assert not scope.cancel_called
        await server.close()
