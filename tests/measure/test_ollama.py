"""Whole measurements through Ollama's and OpenAI's API, against stand-ins that misbehave."""

from __future__ import annotations

import anyio
import attrs
import pytest
from simulations import is_near, measure

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.adapters.ollama import OllamaAdapter
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.testing.ollama import OllamaScript, OllamaServer
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

DECLARED, TRUTH = 6144, 4400
FINE = SimulatedModel(key="m:latest", declared=DECLARED, true_context=10**6)
FORGETS = attrs.evolve(FINE, true_context=TRUTH, beyond=Beyond.FORGETS_ALL)


Script = OllamaScript | OpenAIScript


@attrs.frozen
class Case:
    """A misbehaviour, and what a right report says of it."""

    cause: Cause
    script: Script = attrs.field(factory=OllamaScript)
    within: float = 1 / 16
    model: SimulatedModel = FINE
    truth: int = TRUTH


def forgets(script: Script, within: float = 1 / 16) -> Case:
    """What hides nothing of what the model does."""
    return Case(Cause.FORGETS, script, within, FORGETS)


def passes(script: Script) -> Case:
    return Case(Cause.DECLARED_MAXIMUM, script, within=0, truth=DECLARED)


ABOVE = TRUTH - 16
ANEW = attrs.evolve(FORGETS, reuses_prefixes=False)
CRASHED = Cause.CRASHED_ON_FILL
REFUSED = (400, "La requête est refusée")
CASES = {
    "nothing fails": passes(OllamaScript()),
    "forgets all": forgets(OllamaScript()),
    "reuses nothing": Case(Cause.FORGETS, OllamaScript(reuses=False), model=ANEW),
    "a silent cut to half the window": Case(Cause.TRUNCATED, OllamaScript(window=TRUTH), 1 / 8),
    "flags ignored": passes(OllamaScript(ignores_flags=True)),
    "a clamped context": Case(Cause.CLAMPED, OllamaScript(clamps_to=TRUTH)),
    "a clamped context that is told late": Case(
        Cause.CLAMPED, OllamaScript(clamps_to=TRUTH, clamp_told_after=2)
    ),
    "a crash on fill": Case(CRASHED, OllamaScript(crashes_above=ABOVE)),
    "forgets before it is cut": Case(
        Cause.FORGETS,
        OllamaScript(window=3500, reuses=False),
        model=attrs.evolve(ANEW, true_context=2500),
        truth=2500,
    ),
    "no counts": forgets(OllamaScript(counts=False), 1 / 8),
    "counts without what is cached": forgets(OllamaScript(counts_cached=False), 1 / 8),
    "a refused load": Case(
        Cause.LOAD_REFUSED, within=1 / 8, model=attrs.evolve(FINE, refused_above=TRUTH)
    ),
    "out of memory": Case(
        Cause.LOAD_FAILED, within=1 / 8, model=attrs.evolve(FINE, loadable=TRUTH)
    ),
    "openai: nothing fails": passes(OpenAIScript()),
    "openai: forgets": forgets(OpenAIScript(), 1 / 32),
    "openai: no cached tokens, strict": forgets(
        OpenAIScript(cached=False, strict=True, prefill=False)
    ),
    "openai: serves less": Case(Cause.OVERFLOW, OpenAIScript(serves=TRUTH), 1 / 32),
    "openai: a silent cut": Case(Cause.TRUNCATED, OpenAIScript(window=TRUTH), 1 / 8),
    "openai: a crash on fill": Case(CRASHED, OpenAIScript(crashes_above=ABOVE)),
    "openai: a failure, in other words": Case(CRASHED, OpenAIScript(fails_above=ABOVE)),
    "openai: a failure at a length that is counted": Case(
        CRASHED, OpenAIScript(fails_above=784), 1 / 8, truth=800
    ),
    "openai: a refusal in other words": Case(
        Cause.OVERFLOW, OpenAIScript(fails_above=ABOVE, failure=REFUSED)
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
    key = case.model.key
    if isinstance(script, OllamaScript):
        async with OllamaServer(engine, script=script) as server:
            adapter = OllamaAdapter(server.host, busy_s=5)
            report = await measure(adapter, MeasureOptions(certify=False), name=key, levels=())
            assert server.left_behind == []
    else:
        async with OpenAIServer(engine, script=script) as server:
            adapter = OpenAIAdapter(server.host, busy_s=0.1)
            report = await measure(adapter, name=key, levels=())
    assert report.cause is case.cause
    assert is_near(report, case.truth, case.within)
    assert report.environment.adapter == adapter.name
    if isinstance(script, OpenAIScript):  # a length that nobody counted is no certificate
        counted = script.usage and script.counts_cached and script.counts_as is None
        assert report.certified is counted


@pytest.mark.parametrize("at", [9, 15, 16, 21, 30, 40, 55])
async def test_an_interruption_leaves_nothing_loaded(at: int) -> None:
    """At any request: while it looks, loads, sizes, reads, answers or unloads."""
    engine = SimulatedAdapter(FORGETS, reply_seconds=0.001)
    async with OllamaServer(engine, script=OllamaScript(load_s=0.01)) as server:
        async with (
            LMStrix(adapter=OllamaAdapter(server.host), store="memory") as lmstrix,
            anyio.create_task_group() as tasks,
        ):

            async def interrupt() -> None:
                await server.reached(lambda: len(server.requests) >= at, within_s=60)
                tasks.cancel_scope.cancel()

            tasks.start_soon(interrupt)
            await lmstrix.find_true_context("m")
        await server.reached(lambda: not server.left_behind and not server.working, within_s=2)


async def test_without_counts_an_answer_that_was_confirmed_before_is_not_certified() -> None:
    """Its certificate needs no further load, so none tells that nothing is counted."""
    model = attrs.evolve(FORGETS, declared=12288, true_context=7777)
    script = OllamaScript(counts=False)
    async with (
        OllamaServer(SimulatedAdapter(model), script=script) as server,
        LMStrix(adapter=OllamaAdapter(server.host), store="memory") as client,
    ):
        report = await client.find_true_context("m", MeasureOptions(seed=2))
    assert is_near(report, 7777, 1 / 8)
    assert not report.certified
