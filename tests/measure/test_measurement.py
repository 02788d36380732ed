"""The course of a measurement, on models whose truth is known."""

from __future__ import annotations

import anyio
import attrs
import pytest
from simulations import (
    AT_ONCE,
    BOTH_LOOPS,
    DislikesTheFirst,
    ends,
    is_near,
    measure,
    only,
)

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.errors import EngineCrashed, EngineUnavailable
from lmstrix.events import (
    BracketChanged,
    Event,
    LoadStarted,
    MeasurementStarted,
    Retrying,
    TrialFinished,
)
from lmstrix.models import ContextReport, Judgement, Question, Reply
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.recall import Recall

RETRYING = MeasureOptions(retry=AT_ONCE)
SMALL = SimulatedModel(key="m", declared=4096, true_context=10**6)
SHORT = SimulatedModel(key="m", true_context=3000)


def assert_finds(report: ContextReport, truth: int) -> None:
    """The bracket holds the truth and is as narrow as was asked for."""
    low, high = ends(report)
    assert report.true_context == low
    assert low <= truth < high
    assert high - low <= max(256, low / 64)


@pytest.mark.parametrize("truth", [700, 6100, 12000])
@pytest.mark.parametrize(
    ("beyond", "cause"),
    [
        (Beyond.FORGETS_ALL, Cause.FORGETS),
        (Beyond.GIBBERISH, Cause.GIBBERISH),
        (Beyond.EMPTY, Cause.GIBBERISH),
        (Beyond.CRASHES, Cause.CRASHED_ON_FILL),
    ],
)
async def test_finds_the_truth_and_its_cause(truth: int, beyond: Beyond, cause: Cause) -> None:
    adapter = SimulatedAdapter(SimulatedModel(key="m", true_context=truth, beyond=beyond))
    heard: list[Event] = []
    report = await measure(adapter, RETRYING, observers=[heard.append])
    assert_finds(report, truth)
    assert len(only(LoadStarted, heard)) == report.cost.loads
    change = only(BracketChanged, heard)[-1]
    assert (change.low, change.high) == report.bracket
    assert (report.cause, report.certified) == (cause, True)
    assert adapter.counters.left_behind == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("truth", [560, 1000, 1500])
async def test_one_fact_of_a_short_text_overrules_no_other(truth: int, seed: int) -> None:
    """A window that keeps the last tokens loses the first fact, and another text has it later."""
    model = SimulatedModel(declared=2048, true_context=truth)
    report = await measure(model, MeasureOptions(seed=seed))
    assert report.true_context is not None
    assert abs(report.true_context - truth) <= truth / 16


@pytest.mark.parametrize("truth", [1400, 4000])
async def test_a_fact_that_the_model_cannot_answer_is_no_limit(truth: int) -> None:
    """It stands at the start of the first text, alone in the first tenth of short prompts."""
    model = SimulatedModel(declared=8192, true_context=truth, beyond=Beyond.FORGETS_ALL)
    report = await measure(model, validator=DislikesTheFirst(), levels=())
    assert is_near(report, truth)
    assert report.certified


HABITS = (Beyond.SAME_NUMBER, Beyond.ECHOES, Beyond.GUESSES, Beyond.REFUSES)
UNCERTIFIED = MeasureOptions(certify=False)


@pytest.mark.parametrize("habit", HABITS)
async def test_a_habit_is_no_context(habit: Beyond) -> None:
    model = SimulatedModel(declared=8192, true_context=0, beyond=habit)
    report = await measure(model, UNCERTIFIED)
    assert report.true_context is None
    assert report.cause in (Cause.NOT_MEASURABLE, Cause.INCONCLUSIVE)


@pytest.mark.parametrize("habit", HABITS)
async def test_a_habit_ends_the_context(habit: Beyond) -> None:
    model = SimulatedModel(declared=8192, true_context=3000, beyond=habit)
    report = await measure(model, UNCERTIFIED)
    if habit is Beyond.REFUSES:  # says nothing of what it knows
        assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    else:
        assert (report.true_context, report.cause) == (3000 // 128 * 128, Cause.FORGETS)


@pytest.mark.parametrize("declared", [512, 700, 131_072, 10_000_000])
async def test_nothing_loads_at_all(declared: int) -> None:
    report = await measure(SimulatedModel(declared=declared, loadable=100), RETRYING)
    assert (report.true_context, report.loadable_context) == (None, None)
    assert report.cause is Cause.LOAD_FAILED


async def test_a_model_that_cannot_do_the_task_is_not_measurable() -> None:
    adapter = SimulatedAdapter(SimulatedModel(key="m", knows=False))
    report = await measure(adapter, RETRYING)
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)
    assert (report.baseline.passes, report.baseline.trials) == (0, 30)
    assert adapter.counters.most_prompt_tokens <= 512


@BOTH_LOOPS
async def test_a_lost_connection_is_never_a_limit() -> None:
    faults = [EngineUnavailable("lost"), EngineUnavailable("lost again")]
    adapter = SimulatedAdapter(SMALL, faults=faults)
    report = await measure(adapter, RETRYING)
    assert (report.true_context, report.cause) == (4096, Cause.DECLARED_MAXIMUM)
    assert adapter.counters.left_behind == 0


@BOTH_LOOPS
async def test_an_engine_that_stays_away_ends_the_measurement_without_a_number() -> None:
    adapter = SimulatedAdapter(SMALL, faults=[EngineUnavailable("gone")] * 3)
    with pytest.raises(EngineUnavailable, match="gone"):
        await measure(adapter, RETRYING)
    assert adapter.counters.left_behind == 0


async def test_one_crash_is_retried_and_costs_a_load() -> None:
    adapter, events = SimulatedAdapter(SMALL, faults=[EngineCrashed("SIGKILL")]), list[Event]()
    report = await measure(adapter, RETRYING, observers=[events.append])
    assert (report.true_context, report.cost.loads) == (4096, 3)
    assert [retry.reason for retry in only(Retrying, events)] == ["SIGKILL"]


async def test_prefixes_are_read_once() -> None:
    report = await measure(SimulatedModel(true_context=20000))
    assert report.cost.cached_tokens > 10 * report.cost.prompt_tokens
    assert report.cost.prompt_tokens < 4 * 20000  # one more text if a region is weak


@pytest.mark.parametrize("seed", range(1, 9))
async def test_a_model_that_answers_at_random_ends_too(seed: int) -> None:
    model = SimulatedModel(declared=4096, true_context=600, lapses=0.35, beyond=Beyond.FORGETS_ALL)
    with anyio.fail_after(120):
        report = await measure(model, MeasureOptions(seed=seed), seed=seed)
    assert report.true_context is None or report.true_context <= 768
    assert report.true_context is None or report.bracket[1] != report.true_context


async def test_a_spent_budget_gives_a_partial_report_and_a_later_run_goes_on() -> None:
    slow = SimulatedAdapter(SHORT, reply_seconds=0.01)
    async with LMStrix(adapter=slow, store="memory") as client:
        partial = await client.find_true_context("m", MeasureOptions(budget_s=0.3))
        assert (partial.cause, partial.certified) == (Cause.BUDGET_SPENT, False)
        assert [m.key for m in await client.unfinished_models()] == ["m"]
        assert slow.counters.replies > 0
        whole = await client.find_true_context("m")
        assert (whole.cause, whole.certified) == (Cause.FORGETS, True)
        assert not await client.unfinished_models()
    fresh = SimulatedAdapter(SHORT)
    assert (await measure(fresh)).true_context == whole.true_context
    # The one question in flight when the budget ended may have been asked twice.
    assert fresh.counters.replies <= slow.counters.replies <= fresh.counters.replies + 1
    assert slow.counters.left_behind == 0


@attrs.frozen
class WorseOnceReloaded(Recall):
    """From the second load on, nothing is recalled above 1,500 tokens."""

    engine: SimulatedAdapter

    def judge(self, question: Question, reply: Reply) -> Judgement:
        lost = self.engine.counters.loads > 1 and len(question.prompt.user) > 1500 * 4.6
        return Judgement.WRONG if lost else super().judge(question, reply)


async def test_a_certificate_that_was_failing_when_the_budget_ended_counts() -> None:
    async def found(options: MeasureOptions) -> ContextReport:
        engine = SimulatedAdapter(attrs.evolve(SMALL, declared=2048))
        validator = WorseOnceReloaded(engine=engine)
        return await measure(engine, options, validator=validator, levels=())

    searched = await found(MeasureOptions(certify=False))
    assert searched.true_context == 2048
    spent = searched.cost.prompt_tokens + searched.cost.generated_tokens
    report = await found(MeasureOptions(budget_tokens=spent + 2048 + 700))
    assert report.cause is Cause.BUDGET_SPENT
    assert report.true_context is not None
    assert report.true_context < 2048


async def test_the_same_seed_gives_the_same_measurement() -> None:
    model = SimulatedModel(declared=4096, true_context=2500, lapses=0.05)
    one, two = [await measure(model) for _ in range(2)]
    assert (one.curve, one.bracket, one.interval) == (two.curve, two.bracket, two.interval)


async def test_an_observer_that_raises_hurts_nobody() -> None:
    def broken(_: Event) -> None:
        raise RuntimeError("observer")

    model = SimulatedModel(declared=2048, true_context=10**6)
    assert (await measure(model, observers=[broken])).true_context == 2048


async def test_more_documents_are_asked_at_both_ends() -> None:
    heard: list[Event] = []
    model = SimulatedModel(beyond=Beyond.FORGETS_ALL)
    report = await measure(model, MeasureOptions(documents=4), observers=[heard.append])
    assert report.certified
    trials = [event.trial for event in only(TrialFinished, heard) if event.trial.phase == "certify"]
    assert len({trial.seed for trial in trials}) == 3
    assert {trial.length_tokens for trial in trials} == set(report.bracket)
    assert report.cost.loads == 2


@pytest.mark.parametrize("beyond", [Beyond.FORGETS_HEAD, Beyond.FORGETS_ALL, Beyond.GIBBERISH])
async def test_a_quick_answer_costs_half_and_a_full_one_continues_from_it(beyond: Beyond) -> None:
    model = SimulatedModel(key="m", declared=32_768, true_context=12_000, beyond=beyond)
    asks_quickly, heard = MeasureOptions(quick=True), list[Event]()
    full = await measure(model)
    client = LMStrix(adapter=SimulatedAdapter(model), store="memory", observers=[heard.append])
    quick = await client.find_true_context("m", asks_quickly)
    assert (quick.cause, quick.certified) == (full.cause, False)
    low, high = ends(quick)
    # A bracket spans lengths in doubt.
    above = min(p.length_tokens for p in quick.curve if p.length_tokens > low)
    assert above <= min(high, low * 17 / 16 + 256)
    # The first fact stands 48 tokens into the text, so a window loses it a little later.
    assert quick.interval.low <= 12_000 * 65 / 64
    assert (quick.interval.high or 12_000) >= 12_000
    assert quick.cost.prompt_tokens <= 0.6 * full.cost.prompt_tokens
    assert [stored.report.method.quick for stored in await client.reports()] == [True]
    assert await client.known_reports([model.info]) == {}
    assert await client.known_reports([model.info], UNCERTIFIED) == {}
    again = await client.find_true_context("m")
    assert only(MeasurementStarted, heard)[-1].resumed_trials > 0
    assert (again.true_context, again.certified) == (full.true_context, True)
    assert [stored.report.method.quick for stored in await client.reports()] == [False]
    assert await client.known_reports([model.info], asks_quickly)
