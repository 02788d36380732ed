"""Whole measurements through LM Studio's SDK, against a server that misbehaves on purpose."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from simulations import AT_ONCE, is_near
from simulations import measure as measure_with

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.errors import ConfigurationError, EngineTimeout, InfrastructureError, LMStrixError
from lmstrix.models import ContextReport
from lmstrix.testing.lmstudio import ODD_LISTING, LMStudioServer, LoadFate, OddPacket, Script, Step
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

DECLARED = 6144
TRUTH = 4400
"""Just above a multiple of 256: the search goes no finer, and 4352 is within a 64th of it."""
BOUND = 10**6
"""More than anything declares: the model itself never fails."""


def model(**truths: Any) -> SimulatedModel:
    """Forgets everything beyond `TRUTH`, unless told otherwise."""
    return attrs.evolve(
        SimulatedModel(key="m", declared=DECLARED, true_context=TRUTH, beyond=Beyond.FORGETS_ALL),
        **truths,
    )


FINE = model(true_context=BOUND)
FORGETFUL = model()


@attrs.frozen
class Case:
    """A misbehaviour, and what a right report says of it."""

    cause: Cause
    script: Script = attrs.field(factory=Script)
    model: SimulatedModel = FINE
    truth: int = TRUTH


def limited(**script: Any) -> Script:
    """Loads above the truth fail in the way that `script` says."""
    return Script(load_above=TRUTH, **script)


def harmless(model: SimulatedModel = FORGETFUL, **script: Any) -> Case:
    """What hides nothing of what the model does."""
    return Case(Cause.FORGETS, Script(**script), model)


def passing(**script: Any) -> Case:
    """A fault that happens once by chance. It is not a limit."""
    return Case(Cause.DECLARED_MAXIMUM, Script(**script), truth=DECLARED)


STATISTICS = {
    "timeToFirstTokenSec": "soon",
    "tokensPerSecond": float("nan"),
    "predictedTokensCount": -3,
    "cachedTokenCount": "all",
}
UNTOLD = {"contextLength": DECLARED}
CASES = {
    "nothing fails": passing(),
    "refused load": Case(Cause.LOAD_REFUSED, limited(load=LoadFate.REFUSED)),
    "failed load": Case(Cause.LOAD_FAILED, limited(load=LoadFate.FAILED)),
    "out of memory": Case(Cause.LOAD_FAILED, limited(load=LoadFate.OUT_OF_MEMORY)),
    "hung load": Case(Cause.LOAD_HUNG, limited(load=LoadFate.HANGS)),
    "clamped load": Case(Cause.CLAMPED, Script(clamps_to=TRUTH)),
    "raised load": harmless(raises_to=2 * DECLARED),
    "crash on fill": Case(Cause.CRASHED_ON_FILL, model=model(beyond=Beyond.CRASHES)),
    "empty success": Case(Cause.GIBBERISH, model=model(beyond=Beyond.EMPTY)),
    "forgets by window": harmless(model(beyond=Beyond.FORGETS_HEAD, kept=0.5)),
    "a load that fails once by chance": passing(load=LoadFate.FAILED, load_times=1),
    "a load that hangs once": passing(load=LoadFate.HANGS, load_times=1),
    "clamped without a word": Case(Cause.OVERFLOW, Script(clamps_to=TRUTH, replaced=UNTOLD)),
    "truncates against the policy": Case(
        Cause.TRUNCATED,
        Script(truncates=True, replaced=UNTOLD),
        model(true_context=BOUND, clamped_to=TRUTH),
    ),
    "reasoning": harmless(model(reasoning=" Let me think. ")),
    "slow": harmless(prefill_s=0.02, fragment_s=0.002, load_s=0.2),
    "socket lost in a load": harmless(drop_at_load=1),
    "socket lost in a prediction": harmless(drop_in_prediction=20),
    "odd listing, messages and statistics": harmless(
        listing=ODD_LISTING,
        listing_extras={"variants": ["m@q4"], "deviceIdentifier": None, "new": [1]},
        odd_packets=frozenset({OddPacket.IN_CHANNEL}),
        replaced=STATISTICS,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_a_misbehaviour_is_told_apart(case: Case) -> None:
    async with server(case.model, case.script) as stand_in:
        report = await measure(stand_in)
    assert report.cause is case.cause
    assert is_near(report, case.truth, 1 / 64)


async def test_a_server_that_never_loads_gets_a_report() -> None:
    async with server(FINE, Script(load=LoadFate.HANGS)) as stand_in:
        report = await measure(stand_in, max_context=700, load_timeout_s=0.5)
    assert (report.cause, report.true_context) == (Cause.LOAD_HUNG, None)


async def test_a_crash_that_takes_every_connection_along_is_a_limit() -> None:
    """Although the server is away for a while after it."""
    script = Script(crash_drops_all_above=TRUTH - 24, crash_away_s=0.3)
    async with server(FINE, script) as stand_in:
        report = await measure(stand_in)
        assert stand_in.counters.crashes >= 3
    assert report.cause is Cause.CRASHED_ON_FILL
    assert is_near(report, TRUTH, 1 / 64)


HOPELESS = {
    "a load that hangs like everything else": Script(
        load=LoadFate.HANGS, silent_at=frozenset({Step.LIST}), silent_after=3
    ),
    "an unknown kind of frame": Script(odd_packets=frozenset({OddPacket.TOP_LEVEL})),
    "a refused handshake": Script(auth_refused=True),
    "a context that is no number": Script(replaced={"contextLength": "many"}),
}


@pytest.mark.parametrize("script", HOPELESS.values(), ids=HOPELESS.keys())
async def test_a_broken_server_is_no_limit(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmstrix.measure.engine.ANSWER_S", 1.0)
    async with server(FINE, script) as stand_in:
        with pytest.raises(LMStrixError) as caught:
            await measure(stand_in, call_s=1.0, load_timeout_s=0.5)
        assert isinstance(caught.value, InfrastructureError)
        assert str(caught.value)
    assert isinstance(caught.value, EngineTimeout) or "LM Studio" in str(caught.value)


@asynccontextmanager
async def server(simulated: SimulatedModel, script: Script) -> AsyncGenerator[LMStudioServer]:
    """A stand-in in which the user has loaded the same model. It must be as before in the end."""
    preload = [("m", "the-users-own", 2048)]
    adapter = SimulatedAdapter(simulated)
    async with LMStudioServer(adapter, script=script, preload=preload) as stand_in:
        yield stand_in
        assert stand_in.left_behind == []
        assert stand_in.user_instances_untouched


async def measure(
    stand_in: LMStudioServer,
    *,
    call_s: float = 5.0,
    load_timeout_s: float = 2,
    max_context: int | None = None,
) -> ContextReport:
    # A simulated load takes no time: one that makes no progress for two seconds never ends.
    options = MeasureOptions(
        retry=AT_ONCE, certify=False, max_context=max_context, load_timeout_s=load_timeout_s
    )
    adapter = LMStudioAdapter(stand_in.host, call_s=call_s)
    return await measure_with(adapter, options, levels=())


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_it_says_what_to_do() -> None:
    async with LMStrix(store="memory") as client:
        with pytest.raises(ConfigurationError, match="asyncio") as caught:
            await client.find_true_context("some-model")
    assert "llamacpp" in caught.value.hint
