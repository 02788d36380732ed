"""Whole measurements through Ollama's and OpenAI's API, against stand-ins that misbehave."""

from __future__ import annotations

from random import Random

import anyio
import attrs
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.adapters.ollama import OllamaAdapter
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.testing.ollama import OllamaScript, OllamaServer
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the contract runs on both


DECLARED = 6144
TRUTH = 4400
FINE = SimulatedModel(key="m:latest", declared=DECLARED, true_context=10**6)
FORGETS = attrs.evolve(FINE, true_context=TRUTH, beyond=Beyond.FORGETS_ALL)


@attrs.frozen
class Case:
    """A misbehaviour, and what a right report says of it."""

    cause: Cause
    script: OllamaScript | OpenAIScript = attrs.field(factory=OllamaScript)
    model: SimulatedModel = FINE
    truth: int = TRUTH
    within: float = 1 / 8


def forgets(script: OllamaScript | OpenAIScript, within: float = 1 / 16) -> Case:
    """What hides nothing of what the model does."""
    return Case(Cause.FORGETS, script, FORGETS, within=within)


def passes(script: OllamaScript | OpenAIScript) -> Case:
    return Case(Cause.DECLARED_MAXIMUM, script, truth=DECLARED, within=0)


ABOVE = TRUTH - 16
REFUSED = (400, "La requête est refusée")
CASES = {
    "nothing fails": passes(OllamaScript()),
    "forgets all": forgets(OllamaScript()),
    "reuses nothing": Case(
        Cause.FORGETS,
        OllamaScript(reuses=False),
        attrs.evolve(FORGETS, reuses_prefixes=False),
        within=1 / 16,
    ),
    "a silent cut to half the window": Case(Cause.TRUNCATED, OllamaScript(window=TRUTH)),
    "flags ignored": passes(OllamaScript(ignores_flags=True)),
    "a clamped context": Case(Cause.CLAMPED, OllamaScript(clamps_to=TRUTH), within=1 / 16),
    "a clamped context that is told late": Case(
        Cause.CLAMPED, OllamaScript(clamps_to=TRUTH, clamp_told_after=2), within=1 / 16
    ),
    "a crash on fill": Case(
        Cause.CRASHED_ON_FILL, OllamaScript(crashes_above=ABOVE), within=1 / 16
    ),
    "forgets before it is cut": Case(
        Cause.FORGETS,
        OllamaScript(window=3500, reuses=False),
        attrs.evolve(FORGETS, true_context=2500, reuses_prefixes=False),
        truth=2500,
        within=1 / 16,
    ),
    "no counts": forgets(OllamaScript(counts=False), 1 / 8),
    "counts without what is cached": forgets(OllamaScript(counts_cached=False), 1 / 8),
    "a refused load": Case(Cause.LOAD_REFUSED, model=attrs.evolve(FINE, refused_above=TRUTH)),
    "out of memory": Case(Cause.LOAD_FAILED, model=attrs.evolve(FINE, loadable=TRUTH)),
    "openai: nothing fails": passes(OpenAIScript()),
    "openai: forgets": forgets(OpenAIScript(), 1 / 32),
    "openai: no cached tokens, strict": forgets(
        OpenAIScript(cached=False, strict=True, prefill=False)
    ),
    "openai: serves less": Case(Cause.OVERFLOW, OpenAIScript(serves=TRUTH), within=1 / 32),
    "openai: a silent cut to half the window": Case(Cause.TRUNCATED, OpenAIScript(window=TRUTH)),
    "openai: a crash on fill": Case(
        Cause.CRASHED_ON_FILL, OpenAIScript(crashes_above=ABOVE), within=1 / 16
    ),
    "openai: a failure on fill, in other words": Case(
        Cause.CRASHED_ON_FILL, OpenAIScript(fails_above=ABOVE), within=1 / 16
    ),
    "openai: a failure at a length that is counted": Case(
        Cause.CRASHED_ON_FILL, OpenAIScript(fails_above=784), truth=800
    ),
    "openai: a refusal in other words": Case(
        Cause.OVERFLOW, OpenAIScript(fails_above=ABOVE, failure=REFUSED), within=1 / 16
    ),
    "openai: no usage": forgets(OpenAIScript(usage=False), 1 / 8),
    "openai: counts without what is cached": forgets(
        OpenAIScript(counts_cached=False, cached=False), 1 / 8
    ),
    "openai: one count for all prompts": forgets(OpenAIScript(counts_as=1), 1 / 8),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_the_report_is_right(case: Case) -> None:
    script, engine = case.script, SimulatedAdapter(case.model)
    is_ollama = isinstance(script, OllamaScript)
    make = OllamaAdapter if is_ollama else OpenAIAdapter
    server = (
        OllamaServer(engine, script=script) if is_ollama else OpenAIServer(engine, script=script)
    )
    async with server:
        adapter = make(server.host, busy_s=0.1 if isinstance(script, OpenAIScript) else 5)
        async with LMStrix(adapter=adapter, store="memory") as lmstrix:
            report = await lmstrix.find_true_context(case.model.key, MeasureOptions())
        if isinstance(server, OllamaServer):
            assert server.left_behind == []
    assert report.cause is case.cause
    assert report.true_context is not None
    assert abs(report.true_context - case.truth) <= case.within * case.truth
    assert report.environment.adapter == adapter.name
    if isinstance(script, OpenAIScript):  # a length that nobody counted is no certificate
        counted = script.usage and script.counts_cached and script.counts_as is None
        assert report.certified is counted


@pytest.mark.parametrize("seed", range(12))
async def test_an_interruption_leaves_nothing_loaded(seed: int) -> None:
    """At a random request: while it looks, loads, sizes, reads, answers or unloads."""
    server = OllamaServer(
        SimulatedAdapter(FORGETS, reply_seconds=0.001), script=OllamaScript(load_s=0.01)
    )
    async with server:
        adapter = OllamaAdapter(server.host)
        at = Random(seed).randrange(1, 60)
        async with (
            LMStrix(adapter=adapter, store="memory") as lmstrix,
            anyio.create_task_group() as tasks,
        ):

            async def interrupt() -> None:
                await server.reached(lambda: len(server.requests) >= at, within_s=60)
                tasks.cancel_scope.cancel()

            tasks.start_soon(interrupt)
            await lmstrix.find_true_context("m")
        await server.reached(lambda: not server.left_behind and not server.working, within_s=2)
