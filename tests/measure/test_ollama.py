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
FAILING = attrs.evolve(FINE, true_context=TRUTH)
FORGETS = attrs.evolve(FAILING, beyond=Beyond.FORGETS_ALL)


@attrs.frozen(kw_only=True)
class Case:
    """A misbehaviour, and what a right report says of it."""

    cause: Cause
    truth: int = TRUTH
    model: SimulatedModel = FINE
    script: OllamaScript | OpenAIScript = attrs.field(factory=OllamaScript)
    within: float = 1 / 16


CASES = {
    "nothing fails": Case(cause=Cause.DECLARED_MAXIMUM, truth=DECLARED),
    "forgets all": Case(cause=Cause.FORGETS, model=FORGETS),
    "gibberish": Case(cause=Cause.GIBBERISH, model=attrs.evolve(FAILING, beyond=Beyond.GIBBERISH)),
    "sliding window": Case(
        cause=Cause.FORGETS,
        model=attrs.evolve(FAILING, beyond=Beyond.FORGETS_HEAD, kept=0.5),
    ),
    "lapses": Case(
        cause=Cause.FORGETS,
        model=attrs.evolve(FORGETS, lapses=0.05),
    ),
    "reuses nothing": Case(
        cause=Cause.FORGETS,
        model=attrs.evolve(FORGETS, reuses_prefixes=False),
        script=OllamaScript(reuses=False),
    ),
    "a silent cut to half the window": Case(
        cause=Cause.TRUNCATED, script=OllamaScript(window=TRUTH), within=1 / 8
    ),
    "flags ignored": Case(
        cause=Cause.DECLARED_MAXIMUM, truth=DECLARED, script=OllamaScript(ignores_flags=True)
    ),
    "a clamped context": Case(cause=Cause.CLAMPED, script=OllamaScript(clamps_to=TRUTH)),
    "a clamped context that is told late": Case(
        cause=Cause.CLAMPED, script=OllamaScript(clamps_to=TRUTH, clamp_told_after=2)
    ),
    "a crash on fill": Case(
        cause=Cause.CRASHED_ON_FILL, script=OllamaScript(crashes_above=TRUTH - 16)
    ),
    "no counts": Case(
        cause=Cause.FORGETS,
        model=FORGETS,
        script=OllamaScript(counts=False),
        within=1 / 8,
    ),
    "counts without what is cached": Case(
        cause=Cause.FORGETS,
        model=FORGETS,
        script=OllamaScript(counts_cached=False),
        within=1 / 8,
    ),
    "a refused load": Case(cause=Cause.LOAD_REFUSED, model=attrs.evolve(FINE, refused_above=TRUTH)),
    "out of memory": Case(cause=Cause.LOAD_FAILED, model=attrs.evolve(FINE, loadable=TRUTH)),
    "openai: nothing fails": Case(
        cause=Cause.DECLARED_MAXIMUM, truth=DECLARED, script=OpenAIScript()
    ),
    "openai: forgets": Case(
        cause=Cause.FORGETS, model=FORGETS, script=OpenAIScript(), within=1 / 32
    ),
    "openai: no cached tokens, strict": Case(
        cause=Cause.FORGETS,
        model=FORGETS,
        script=OpenAIScript(cached=False, strict=True, prefill=False),
    ),
    "openai: serves less": Case(
        cause=Cause.OVERFLOW, script=OpenAIScript(serves=TRUTH), within=1 / 32
    ),
    "openai: a silent cut to half the window": Case(
        cause=Cause.TRUNCATED, script=OpenAIScript(window=TRUTH), within=1 / 8
    ),
    "openai: a crash on fill": Case(
        cause=Cause.CRASHED_ON_FILL, script=OpenAIScript(crashes_above=TRUTH - 16)
    ),
    "openai: a failure on fill, in other words": Case(
        cause=Cause.CRASHED_ON_FILL, script=OpenAIScript(fails_above=TRUTH - 16)
    ),
    "openai: a failure at a length that is counted": Case(
        cause=Cause.CRASHED_ON_FILL, truth=800, script=OpenAIScript(fails_above=784)
    ),
    "openai: a refusal in other words": Case(
        cause=Cause.OVERFLOW,
        script=OpenAIScript(fails_above=TRUTH - 16, failure=(400, "La requête est refusée")),
    ),
    "openai: no usage": Case(
        cause=Cause.FORGETS, model=FORGETS, script=OpenAIScript(usage=False), within=1 / 8
    ),
    "openai: counts without what is cached": Case(
        cause=Cause.FORGETS,
        model=FORGETS,
        script=OpenAIScript(counts_cached=False, cached=False),
        within=1 / 8,
    ),
    "openai: one count for all prompts": Case(
        cause=Cause.FORGETS, model=FORGETS, script=OpenAIScript(counts_as=1), within=1 / 8
    ),
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
    assert abs(report.true_context - case.truth) <= max(256, case.within * case.truth)
    assert report.environment.adapter == adapter.name
    if isinstance(script, OpenAIScript):  # a length that nobody counted is no certificate
        counted = script.usage and script.counts_cached and script.counts_as is None
        assert report.certified is counted


@pytest.mark.parametrize("seed", range(25))
async def test_an_interruption_leaves_nothing_loaded(seed: int) -> None:
    """At a random request: while it looks, loads, sizes, reads, answers or unloads."""
    server = OllamaServer(
        SimulatedAdapter(FAILING, reply_seconds=0.001), script=OllamaScript(load_s=0.01)
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
