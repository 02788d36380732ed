"""The course of a measurement, on models whose truth is known."""

from __future__ import annotations

import anyio
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions, RetryPolicy
from lmstrix.errors import EngineCrashed, EngineUnavailable
from lmstrix.events import (
    BracketChanged,
    Event,
    LoadStarted,
    MeasurementFinished,
    Retrying,
    TrialFinished,
)
from lmstrix.models import ContextReport, Trial
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

QUICK = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002)
OPTIONS = MeasureOptions(retry=QUICK)


async def measure(
    adapter: SimulatedAdapter, options: MeasureOptions = OPTIONS, *, key: str = "simulated"
) -> ContextReport:
    async with LMStrix(adapter=adapter, store="memory") as client:
        return await client.find_true_context(key, options)


def assert_finds(report: ContextReport, truth: int) -> None:
    """The bracket holds the truth and is as narrow as was asked for."""
    low, high = report.bracket
    assert report.true_context == low
    assert high is not None
    assert low <= truth < high
    assert high - low <= max(256, low / 64)


@pytest.mark.parametrize("truth", [700, 6100, 12000])
@pytest.mark.parametrize(
    ("beyond", "cause"),
    [
        (Beyond.FORGETS_HEAD, Cause.FORGETS),
        (Beyond.FORGETS_ALL, Cause.FORGETS),
        (Beyond.GIBBERISH, Cause.GIBBERISH),
        (Beyond.EMPTY, Cause.GIBBERISH),
        (Beyond.CRASHES, Cause.CRASHED_ON_FILL),
    ],
)
async def test_finds_the_truth_and_its_cause(truth: int, beyond: Beyond, cause: Cause) -> None:
    adapter = SimulatedAdapter(SimulatedModel(true_context=truth, beyond=beyond))
    report = await measure(adapter)
    if beyond is not Beyond.FORGETS_HEAD:
        assert_finds(report, truth)
    else:
        # Facts leave the window one by one: the 85 % rule fails once 15 % of the text have left.
        assert report.true_context is not None
        assert truth - 256 <= report.true_context <= truth / 0.85 + 256
    assert report.cause is cause
    assert report.certified
    assert adapter.counters.left_behind == 0


async def test_nothing_loads_at_all() -> None:
    report = await measure(SimulatedAdapter(SimulatedModel(loadable=100)))
    assert (report.true_context, report.loadable_context) == (None, None)
    assert report.cause is Cause.LOAD_FAILED


async def test_a_model_that_cannot_do_the_task_is_not_measurable() -> None:
    adapter = SimulatedAdapter(SimulatedModel(knows=False))
    report = await measure(adapter)
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)
    assert (report.baseline.passes, report.baseline.trials) == (0, 12)
    assert adapter.counters.most_prompt_tokens <= 512


async def test_a_lost_connection_is_never_a_limit() -> None:
    faults = [EngineUnavailable("lost"), EngineUnavailable("lost again")]
    adapter = SimulatedAdapter(SimulatedModel(declared=4096, true_context=10**6), faults=faults)
    report = await measure(adapter)
    assert (report.true_context, report.cause) == (4096, Cause.DECLARED_MAXIMUM)
    assert adapter.counters.left_behind == 0


async def test_an_engine_that_stays_away_ends_the_measurement_without_a_number() -> None:
    faults = [EngineUnavailable("gone")] * 3
    adapter = SimulatedAdapter(faults=faults)
    with pytest.raises(EngineUnavailable, match="gone"):
        await measure(adapter)
    assert adapter.counters.left_behind == 0


async def test_one_crash_is_retried_and_costs_a_load() -> None:
    adapter = SimulatedAdapter(
        SimulatedModel(declared=4096, true_context=10**6), faults=[EngineCrashed("SIGKILL")]
    )
    events: list[Event] = []
    async with LMStrix(adapter=adapter, store="memory", observers=[events.append]) as client:
        report = await client.find_true_context("simulated", OPTIONS)
    assert (report.true_context, report.cost.loads) == (4096, 3)
    retries = [e for e in events if isinstance(e, Retrying)]
    assert [r.reason for r in retries] == ["SIGKILL"]


async def test_prefixes_are_read_once() -> None:
    report = await measure(SimulatedAdapter(SimulatedModel(true_context=20000)))
    assert report.cost.cached_tokens > 10 * report.cost.prompt_tokens
    assert report.cost.prompt_tokens < 4 * 20000  # one more text if a region is weak


@pytest.mark.parametrize("seed", range(1, 9))
async def test_a_model_that_answers_at_random_ends_too(seed: int) -> None:
    model = SimulatedModel(declared=4096, true_context=600, lapses=0.35, beyond=Beyond.FORGETS_ALL)
    with anyio.fail_after(120):
        report = await measure(SimulatedAdapter(model, seed=seed), MeasureOptions(seed=seed))
    assert report.true_context is None or report.true_context <= 768
    assert report.true_context is None or report.bracket[1] != report.true_context


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # it takes seconds
async def test_a_spent_budget_gives_a_partial_report_and_a_later_run_goes_on() -> None:
    slow = SimulatedAdapter(SimulatedModel(true_context=3000), reply_seconds=0.02)
    async with LMStrix(adapter=slow, store="memory") as client:
        partial = await client.find_true_context("simulated", MeasureOptions(budget_s=0.5))
        assert partial.cause is Cause.BUDGET_SPENT
        assert not partial.certified
        assert [m.key for m in await client.unfinished_models()] == ["simulated"]
        asked = slow.counters.replies
        whole = await client.find_true_context("simulated")
        assert whole.cause is Cause.FORGETS
        assert whole.certified
        assert not await client.unfinished_models()
    fresh = SimulatedAdapter(SimulatedModel(true_context=3000))
    other = await measure(fresh)
    assert other.true_context == whole.true_context
    # The one question in flight when the budget ended may have been asked twice.
    assert fresh.counters.replies <= slow.counters.replies <= fresh.counters.replies + 1
    assert asked > 0
    assert slow.counters.left_behind == 0


async def test_cancelled_it_keeps_its_trials_and_leaves_nothing_behind() -> None:
    adapter = SimulatedAdapter(SimulatedModel(true_context=3000), reply_seconds=0.02)
    async with LMStrix(adapter=adapter, store="memory") as client:
        heard: list[Event] = []
        with anyio.move_on_after(0.5) as scope:
            await client.find_true_context("simulated", observers=[heard.append])
        assert scope.cancelled_caught
        last = heard[-1]
        assert isinstance(last, MeasurementFinished)
        assert last.report.cause is Cause.INTERRUPTED
        assert len(await client.unfinished_models()) == 1
    assert adapter.counters.left_behind == 0


async def test_the_same_seed_gives_the_same_measurement() -> None:
    model = SimulatedModel(true_context=5000, lapses=0.05)
    one, two = [await measure(SimulatedAdapter(model)) for _ in range(2)]
    assert (one.curve, one.bracket, one.interval) == (two.curve, two.bracket, two.interval)


async def test_watch_tells_the_whole_story_in_order() -> None:
    adapter = SimulatedAdapter(SimulatedModel(true_context=3000, beyond=Beyond.EMPTY))
    async with (
        LMStrix(adapter=adapter, store="memory") as client,
        client.watch("simulated") as feed,
    ):
        events = [event async for event in feed]
    last = events[-1]
    assert isinstance(last, MeasurementFinished)
    assert_finds(last.report, 3000)
    assert sum(isinstance(e, LoadStarted) for e in events) == last.report.cost.loads
    brackets = [(e.low, e.high) for e in events if isinstance(e, BracketChanged)]
    assert brackets[-1] == last.report.bracket


async def test_an_observer_that_raises_hurts_nobody() -> None:
    def broken(_: Event) -> None:
        raise RuntimeError("observer")

    adapter = SimulatedAdapter(SimulatedModel(declared=2048, true_context=10**6))
    async with LMStrix(adapter=adapter, store="memory", observers=[broken]) as client:
        assert (await client.find_true_context("simulated")).true_context == 2048


async def test_more_documents_are_asked_at_both_ends() -> None:
    adapter = SimulatedAdapter(SimulatedModel(beyond=Beyond.FORGETS_ALL))
    trials: list[Trial] = []

    def hear(event: Event) -> None:
        if isinstance(event, TrialFinished) and event.trial.phase == "certify":
            trials.append(event.trial)

    async with LMStrix(adapter=adapter, store="memory", observers=[hear]) as client:
        report = await client.find_true_context("simulated", MeasureOptions(documents=4))
    assert report.certified
    asked = {(t.seed, t.length_tokens) for t in trials}
    assert len({seed for seed, _ in asked}) == 3
    assert {length for _, length in asked} == set(report.bracket)
    assert report.cost.loads == 2
