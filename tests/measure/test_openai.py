"""Whole measurements through OpenAI's chat API, against a stand-in that misbehaves on purpose."""

from __future__ import annotations

import attrs
import pytest

from lmstrix import Cause, LMStrix
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

DECLARED = 6144
TRUTH = 4400
FINE = SimulatedModel(key="org/m", declared=DECLARED, true_context=10**6)
FORGETS = attrs.evolve(FINE, true_context=TRUTH, beyond=Beyond.FORGETS_ALL)


@pytest.fixture
def anyio_backend() -> str:
    """The adapter's own tests run on both event loops."""
    return "asyncio"


@attrs.frozen(kw_only=True)
class Case:
    """A misbehaviour, and what a right report says of it."""

    cause: Cause
    truth: int = TRUTH
    model: SimulatedModel = FINE
    script: OpenAIScript = attrs.field(factory=OpenAIScript)
    within: float = 1 / 32


CASES = {
    "nothing fails": Case(cause=Cause.DECLARED_MAXIMUM, truth=DECLARED),
    "forgets": Case(cause=Cause.FORGETS, model=FORGETS),
    "no cached tokens, strict": Case(
        cause=Cause.FORGETS,
        model=FORGETS,
        script=OpenAIScript(cached=False, strict=True, prefill=False),
        within=1 / 16,
    ),
    "serves less": Case(cause=Cause.OVERFLOW, script=OpenAIScript(serves=TRUTH)),
    "a silent cut to half the window": Case(
        cause=Cause.TRUNCATED, script=OpenAIScript(window=TRUTH), within=1 / 8
    ),
    "a crash on fill": Case(
        cause=Cause.CRASHED_ON_FILL, script=OpenAIScript(crashes_above=TRUTH - 16)
    ),
    "a failure on fill, in other words": Case(
        cause=Cause.CRASHED_ON_FILL, script=OpenAIScript(fails_above=TRUTH - 16)
    ),
    "a failure at a length that is counted": Case(
        cause=Cause.CRASHED_ON_FILL, truth=800, script=OpenAIScript(fails_above=784)
    ),
    "a refusal in other words": Case(
        cause=Cause.OVERFLOW,
        script=OpenAIScript(fails_above=TRUTH - 16, failure=(400, "La requête est refusée")),
    ),
    "no usage": Case(
        cause=Cause.FORGETS, model=FORGETS, script=OpenAIScript(usage=False), within=1 / 8
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_the_report_is_right(case: Case) -> None:
    async with OpenAIServer(SimulatedAdapter(case.model), script=case.script) as server:
        adapter = OpenAIAdapter(server.host, busy_s=0.1)
        async with LMStrix(adapter=adapter, store="memory") as lmstrix:
            report = await lmstrix.find_true_context("org/m")
    assert report.cause is case.cause
    assert report.true_context is not None
    assert abs(report.true_context - case.truth) <= max(256, case.within * case.truth)
    assert report.environment.adapter == "openai"
    assert report.certified is case.script.usage  # a length that nobody counted is no certificate
