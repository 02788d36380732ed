"""Whole measurements through LM Studio's SDK, against a server that misbehaves on purpose.

What is true is known: the model is simulated, the misbehaviour is scripted.
"""

from __future__ import annotations

import anyio
import attrs
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions, RetryPolicy
from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.errors import ConfigurationError, EngineTimeout, InfrastructureError, LMStrixError
from lmstrix.events import Event, TrialFinished
from lmstrix.models import ContextReport
from lmstrix.testing.lmstudio import (
    ODD_LISTING,
    LMStudioServer,
    LoadFate,
    OddPacket,
    Script,
    Step,
)
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

DECLARED = 6144
TRUTH = 4400
"""Just above a multiple of 256: the search goes no finer, and so the nearest answer that it can
give, 4352, lies within `NARROW`."""
BOUND = 10**6
"""More than anything declares: the model itself never fails."""
NARROW = 1 / 64
"""Of the truth: how far the answer may lie from it."""
USERS_OWN = "the-users-own"


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """LM Studio's SDK needs asyncio."""
    return str(request.param)


@attrs.frozen(kw_only=True)
class Case:
    """A misbehaviour, and what a right report says of it."""

    cause: Cause
    truth: int = TRUTH
    model: SimulatedModel
    script: Script = attrs.field(factory=Script)


def model(**truths: object) -> SimulatedModel:
    return attrs.evolve(
        SimulatedModel(key="m", declared=DECLARED, true_context=TRUTH),
        **truths,  # type: ignore[arg-type]
    )


FINE = model(true_context=BOUND)
CASES = {
    "nothing fails": Case(cause=Cause.DECLARED_MAXIMUM, truth=DECLARED, model=FINE),
    "refused by the model": Case(cause=Cause.LOAD_REFUSED, model=model(refused_above=TRUTH)),
    "refused load": Case(
        cause=Cause.LOAD_REFUSED,
        model=FINE,
        script=Script(load=LoadFate.REFUSED, load_above=TRUTH),
    ),
    "failed load": Case(
        cause=Cause.LOAD_FAILED,
        model=FINE,
        script=Script(load=LoadFate.FAILED, load_above=TRUTH),
    ),
    "out of memory": Case(
        cause=Cause.LOAD_FAILED,
        model=FINE,
        script=Script(load=LoadFate.OUT_OF_MEMORY, load_above=TRUTH),
    ),
    "clamped load": Case(cause=Cause.CLAMPED, model=FINE, script=Script(clamps_to=TRUTH)),
    "raised load": Case(
        cause=Cause.FORGETS,
        model=model(beyond=Beyond.FORGETS_ALL),
        script=Script(raises_to=2 * DECLARED),
    ),
    "crash on fill": Case(cause=Cause.CRASHED_ON_FILL, model=model(beyond=Beyond.CRASHES)),
    "empty success": Case(cause=Cause.GIBBERISH, model=model(beyond=Beyond.EMPTY)),
    "gibberish": Case(cause=Cause.GIBBERISH, model=model(beyond=Beyond.GIBBERISH)),
    "forgets everything": Case(cause=Cause.FORGETS, model=model(beyond=Beyond.FORGETS_ALL)),
    "forgets by window": Case(
        cause=Cause.FORGETS, model=model(beyond=Beyond.FORGETS_HEAD, kept=0.5)
    ),
    "hung load": Case(
        cause=Cause.LOAD_HUNG,
        model=FINE,
        script=Script(load=LoadFate.HANGS, load_above=TRUTH),
    ),
    "a load that fails once by chance": Case(
        cause=Cause.DECLARED_MAXIMUM,
        truth=DECLARED,
        model=FINE,
        script=Script(load=LoadFate.FAILED, load_times=1),
    ),
    "a load that hangs once": Case(
        cause=Cause.DECLARED_MAXIMUM,
        truth=DECLARED,
        model=FINE,
        script=Script(load=LoadFate.HANGS, load_times=1),
    ),
    "a crash that takes every connection along": Case(
        cause=Cause.CRASHED_ON_FILL,
        model=FINE,
        script=Script(crash_drops_all_above=TRUTH - 24),
    ),
    "clamped without a word": Case(
        cause=Cause.OVERFLOW,
        model=FINE,
        script=Script(clamps_to=TRUTH, replaced={"contextLength": DECLARED}),
    ),
    "truncates against the policy": Case(
        cause=Cause.TRUNCATED,
        model=model(true_context=BOUND, clamped_to=TRUTH),
        script=Script(truncates=True, replaced={"contextLength": DECLARED}),
    ),
    "reasoning": Case(
        cause=Cause.FORGETS,
        model=model(beyond=Beyond.FORGETS_ALL, reasoning=" Let me think. "),
    ),
    "slow": Case(
        cause=Cause.FORGETS,
        model=model(beyond=Beyond.FORGETS_ALL),
        script=Script(prefill_s=0.02, fragment_s=0.002, load_s=0.2),
    ),
    "socket lost in a load": Case(
        cause=Cause.FORGETS,
        model=model(beyond=Beyond.FORGETS_ALL),
        script=Script(drop_at_load=1),
    ),
    "socket lost in a prediction": Case(
        cause=Cause.FORGETS,
        model=model(beyond=Beyond.FORGETS_ALL),
        script=Script(drop_in_prediction=20),
    ),
    "a listing that the SDK does not know": Case(
        cause=Cause.FORGETS,
        model=model(beyond=Beyond.FORGETS_ALL),
        script=Script(
            listing=ODD_LISTING,
            listing_extras={"variants": ["m@q4"], "deviceIdentifier": None, "new": [1]},
        ),
    ),
    "an unknown message in a channel": Case(
        cause=Cause.FORGETS,
        model=model(beyond=Beyond.FORGETS_ALL),
        script=Script(odd_packets=frozenset({OddPacket.IN_CHANNEL})),
    ),
    "malformed statistics": Case(
        cause=Cause.FORGETS,
        model=model(beyond=Beyond.FORGETS_ALL),
        script=Script(
            replaced={
                "timeToFirstTokenSec": "soon",
                "tokensPerSecond": float("nan"),
                "predictedTokensCount": -3,
                "cachedTokenCount": "all",
            }
        ),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_a_misbehaviour_is_told_apart(case: Case) -> None:
    async with server(case.model, case.script) as stand_in:
        report = await measure(stand_in)
        assert stand_in.left_behind == []
        assert stand_in.user_instances_untouched
    assert report.cause is case.cause
    assert report.true_context is not None
    assert abs(report.true_context - case.truth) <= case.truth * NARROW


async def test_a_server_that_never_loads_gets_a_report() -> None:
    async with server(FINE, Script(load=LoadFate.HANGS)) as stand_in:
        report = await measure(stand_in, max_context=700)
        assert stand_in.left_behind == []
        assert stand_in.user_instances_untouched
    assert (report.cause, report.true_context) == (Cause.LOAD_HUNG, None)


async def test_a_server_that_is_away_after_its_crash_is_waited_for() -> None:
    script = Script(crash_drops_all_above=TRUTH - 24, crash_away_s=1.0)
    async with server(FINE, script) as stand_in:
        report = await measure(stand_in)
        assert stand_in.counters.crashes >= 3
        assert stand_in.left_behind == []
        assert stand_in.user_instances_untouched
    assert report.cause is Cause.CRASHED_ON_FILL


HOPELESS = {
    "a load that hangs like everything else": Script(
        load=LoadFate.HANGS, silent_at=frozenset({Step.LIST}), silent_after=3
    ),
    "an unknown kind of frame": Script(odd_packets=frozenset({OddPacket.TOP_LEVEL})),
    "a refused handshake": Script(auth_refused=True),
    "a context that is no number": Script(replaced={"contextLength": "many"}),
}


@pytest.mark.parametrize("script", HOPELESS.values(), ids=HOPELESS.keys())
async def test_infrastructure_trouble_is_never_a_limit(script: Script) -> None:
    async with server(FINE, script) as stand_in:
        with pytest.raises(LMStrixError) as caught:
            await measure(stand_in)
        assert isinstance(caught.value, InfrastructureError)
        assert str(caught.value)
        assert stand_in.left_behind == []
        assert stand_in.user_instances_untouched
    assert isinstance(caught.value, EngineTimeout) or "LM Studio" in str(caught.value)


def server(simulated: SimulatedModel, script: Script) -> LMStudioServer:
    """A stand-in where the user has loaded the same model too."""
    return LMStudioServer(
        SimulatedAdapter(simulated), script=script, preload=[("m", USERS_OWN, 2048)]
    )


async def measure(
    stand_in: LMStudioServer, *, seed: int = 1, max_context: int | None = None
) -> ContextReport:
    quick = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002)
    # A simulated load takes no time: one that makes no progress for two seconds never ends.
    options = MeasureOptions(
        retry=quick, certify=False, seed=seed, max_context=max_context, load_timeout_s=2
    )
    adapter = LMStudioAdapter(stand_in.host, call_s=5.0)
    async with LMStrix(adapter=adapter, store="memory") as client:
        return await client.find_true_context("m", options)


async def test_a_server_that_goes_and_comes_back_is_no_limit() -> None:
    stand_in = server(model(beyond=Beyond.FORGETS_ALL), Script())
    started = anyio.Event()
    asked = anyio.Event()
    finished = anyio.Event()
    trials = 0

    def count(event: Event) -> None:
        nonlocal trials
        trials += isinstance(event, TrialFinished)
        if trials == 30:
            asked.set()

    async def go_and_come_back() -> None:
        async with stand_in:
            started.set()
            await asked.wait()
        await anyio.sleep(0.3)  # nobody listens at the port
        async with stand_in:
            await finished.wait()
            assert stand_in.left_behind == []

    patient = RetryPolicy(first_wait_s=0.2, longest_wait_s=0.5)
    options = MeasureOptions(retry=patient, certify=False)
    reports: list[ContextReport] = []
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(go_and_come_back)
            await started.wait()
            async with LMStrix(
                adapter=LMStudioAdapter(stand_in.host, connect_s=2.0),
                store="memory",
                observers=[count],
            ) as client:
                reports.append(await client.find_true_context("m", options))
            finished.set()
    (report,) = reports
    assert (report.true_context, report.cause) == (4352, Cause.FORGETS)
    assert trials > 30


async def test_cancelled_in_a_prefill_it_leaves_nothing() -> None:
    async with server(FINE, Script(prefill_s=30.0)) as stand_in:
        adapter = LMStudioAdapter(stand_in.host)
        async with LMStrix(adapter=adapter, store="memory") as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.find_true_context, "m")
                await stand_in.reached(lambda: stand_in.counters.predictions == 1)
                tasks.cancel_scope.cancel()
            assert stand_in.counters.cancels == 1
            assert stand_in.left_behind == []
            assert stand_in.user_instances_untouched


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_it_says_what_to_do() -> None:
    async with LMStrix(store="memory") as client:
        with pytest.raises(ConfigurationError, match="asyncio") as caught:
            await client.find_true_context("some-model")
    assert "llamacpp" in caught.value.hint
