"""Levels: limits of their own, found in what was read anyway."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import attrs
import pytest
from simulations import Failing, Judging

from lmstrix import Cause, LMStrix, MeasureOptions, RetryPolicy
from lmstrix.errors import EngineUnavailable
from lmstrix.events import Event, TrialFinished
from lmstrix.measure.run import Measurement
from lmstrix.measure.state import Level
from lmstrix.models import (
    ContextReport,
    Judgement,
    LevelReport,
    Observation,
    Prompt,
    Question,
    Region,
    Trial,
)
from lmstrix.ports import Validator
from lmstrix.problem import Ask, Done, SearchProblem
from lmstrix.search.gallop import Gallop
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel, prompt_tokens
from lmstrix.validators.coherence import Coherence
from lmstrix.validators.recall import Recall

TRUTH = 4400
MODEL = SimulatedModel(key="m", declared=16384, true_context=TRUTH, beyond=Beyond.FORGETS_ALL)


def level(name: str, limit: int, baseline_length: int = 512) -> Judging:
    """A level whose limit is known: it passes up to `limit` tokens."""

    def judged(_: Question, __: int, length: int) -> Judgement:
        return Judgement.PASS if length <= limit else Judgement.GIBBERISH

    return Judging(judged, name, baseline_length)


async def run(
    *levels: Validator,
    required: bool = False,
    model: SimulatedModel = MODEL,
    options: MeasureOptions | None = None,
) -> tuple[ContextReport, SimulatedAdapter]:
    """A measurement with levels, which are required or not whatever they are called."""
    adapter = SimulatedAdapter(model)
    measurement = Measurement(
        adapter=adapter,
        model=await adapter.find_model("m"),
        strategy=Gallop(),
        validator=Recall(),
        levels=[Level(validator=level, required=required) for level in levels],
        store=SqliteStore(":memory:"),
        options=options or MeasureOptions(),
    )
    return await measurement.run(), adapter


def level_of(report: ContextReport, name: str) -> LevelReport:
    return next(level for level in report.levels if level.name == name)


async def test_a_deeper_level_has_a_limit_of_its_own() -> None:
    report, _ = await run(level("deep", 1900))
    deep = level_of(report, "deep")
    assert report.true_context == level_of(report, "recall").limit_tokens == 4352
    low, high = deep.bracket
    assert high is not None
    assert low <= 1900 < high
    assert high - low <= max(256, low / 16)
    assert (deep.cause, deep.limit_tokens) == (Cause.GIBBERISH, low)


async def test_a_level_that_nothing_contradicts_is_at_least_what_was_read() -> None:
    report, _ = await run(level("writing", 10**6))
    writing = level_of(report, "writing")
    longest = max(point.length_tokens for point in report.curve)
    assert (writing.bracket, writing.cause) == ((longest, None), Cause.NOTHING_FAILED)


async def test_at_the_declared_maximum_it_says_so() -> None:
    able = attrs.evolve(MODEL, declared=4096, true_context=10**6)
    report, _ = await run(level("writing", 10**6), model=able)
    writing = level_of(report, "writing")
    assert writing.bracket == (4096, None)
    assert writing.cause is report.cause is Cause.DECLARED_MAXIMUM


async def test_a_required_level_that_fails_earlier_is_the_answer() -> None:
    report, _ = await run(level("writing", 3000), required=True)
    assert report.true_context is not None
    assert report.true_context <= 3000 < report.true_context + 512
    assert (report.cause, report.certified) == (Cause.GIBBERISH, True)
    assert "writing fails at" in " ".join(report.notes)
    # That is not where the other kind of question fails, nor why.
    recall = level_of(report, "recall")
    low, high = recall.bracket
    assert high is not None
    assert low <= TRUTH < high
    assert recall.cause is Cause.FORGETS


async def test_a_required_level_that_fails_at_the_same_length_is_the_cause() -> None:
    report, _ = await run(level("writing", TRUTH), required=True)
    assert (report.true_context, report.cause) == (4352, Cause.GIBBERISH)


async def test_what_it_cannot_do_when_short_is_not_measurable() -> None:
    report, _ = await run(level("never", 0))
    never = level_of(report, "never")
    assert (never.limit_tokens, never.cause) == (None, Cause.NOT_MEASURABLE)
    assert report.true_context == 4352
    assert "never" in " ".join(report.notes)


async def test_a_level_without_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def wordy(prompt: Prompt) -> list[str]:
        return [*["<s>"] * 410, *prompt_tokens(prompt)]

    monkeypatch.setattr("lmstrix.testing.simulated.prompt_tokens", wordy)
    able = attrs.evolve(MODEL, declared=8192, true_context=10**6, beyond=Beyond.FORGETS_HALF)
    report, _ = await run(Coherence(), model=able)
    assert report.true_context
    assert report.cause is not Cause.NOT_MEASURABLE
    assert "coherence: at 512 tokens nothing can be asked" in " ".join(report.notes)


async def test_levels_cost_their_questions() -> None:
    """Acceptance: at most a quarter more, by the engine's own counts."""
    alone, _ = await run()
    report, _ = await run(level("writing", 10**6), level("deep", 1900))
    assert report.true_context == alone.true_context
    assert report.cost.loads == alone.cost.loads
    assert report.cost.prompt_tokens <= 1.25 * alone.cost.prompt_tokens


class Glances(Gallop):
    """Asks one question at the longest prompt, and searches below it."""

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        if not history:
            return Ask(length_tokens=problem.ceiling, trials=1)
        below = [seen for seen in history if seen.length_tokens < problem.ceiling]
        return super().next_step(attrs.evolve(problem, ceiling=problem.ceiling - 1024), below)


@pytest.mark.parametrize("strategy", [Gallop(), Glances()], ids=["failed", "undecided"])
async def test_the_longest_prompt_is_read_once(strategy: Gallop) -> None:
    """Levels and regions are asked about there before the search steps back from it, and a level
    that passes there is not asked below.
    """
    trials: list[Trial] = []

    def keep(event: Event) -> None:
        if isinstance(event, TrialFinished) and event.trial.phase not in {"baseline", "truncation"}:
            trials.append(event.trial)

    model = attrs.evolve(MODEL, declared=8192, beyond=Beyond.FORGETS_MIDDLE)
    options, writing = MeasureOptions(certify=False), level("writing", 10**6)
    adapter = SimulatedAdapter(model)
    async with LMStrix(
        adapter=adapter, strategy=strategy, store="memory", levels=[writing], observers=[keep]
    ) as lmstrix:
        report = await lmstrix.find_true_context("m", options)
    longest = max(trial.length_tokens for trial in trials)
    visits = [length for length, _ in groupby(trial.length_tokens for trial in trials)]
    assert visits.count(longest) == 1
    assert visits[-1] < longest
    assert {t.region for t in trials if t.length_tokens == longest and not t.level} == set(Region)
    assert [point.length_tokens for point in level_of(report, "writing").curve] == [longest]


@pytest.mark.parametrize("share", [0.2, 0.3, 0.9, 0.97])
async def test_an_interrupted_measurement_of_levels_goes_on(share: float) -> None:
    """Stopped in a baseline, in the search and in a level: nothing is asked twice."""
    quick = MeasureOptions(retry=RetryPolicy(attempts=1), certify=False)
    whole, undisturbed = await run(level("deep", 1900), options=quick)
    fails_at = int(share * undisturbed.counters.replies) + 1
    away = EngineUnavailable("unplugged")
    adapter = Failing(MODEL, away, lambda engine, _: engine.counters.replies == fails_at)
    client = LMStrix(
        adapter=adapter, store="memory", strategy="gallop", levels=[level("deep", 1900)]
    )
    with pytest.raises(EngineUnavailable):
        await client.find_true_context("m", quick)
    report = await client.find_true_context("m", quick)
    assert report.levels == whole.levels
    assert report.bracket == whole.bracket
    assert adapter.counters.replies == undisturbed.counters.replies + 1  # the one that failed


async def test_nothing_is_loaded_for_a_level_beyond_what_was_wanted() -> None:
    """Its shortest questions are longer: that is said, and nothing is reported of it."""
    long = level("long", 10**6, baseline_length=1024)
    report, adapter = await run(long, options=MeasureOptions(max_context=600))
    assert report.true_context == 600
    assert adapter.counters.most_prompt_tokens <= 600
    found = level_of(report, "long")
    assert (found.limit_tokens, found.cause) == (None, Cause.NOT_MEASURABLE)
    assert any("needs 1,024 tokens of 600" in note for note in report.notes)


@pytest.mark.parametrize("required", [True, False])
async def test_no_level_is_asked_below_its_own_shortest_length(required: bool) -> None:
    """What is asked there is no task of its kind: a failure would be no limit of the model."""
    early = attrs.evolve(MODEL, true_context=1200)
    long = Judging(
        lambda _, __, length: Judgement.PASS if length > 1900 else Judgement.WRONG, "long", 2048
    )
    report, _ = await run(long, required=required, model=early)
    assert (report.true_context, report.cause) == (1152, Cause.FORGETS)
    assert level_of(report, "long").bracket == (2048, None)


@pytest.mark.parametrize("certify", [True, False])
async def test_a_level_that_contradicts_its_baseline_leaves_no_number(certify: bool) -> None:
    """It passes at the shortest length, and later fails there: then nothing is known to work."""
    asked = 0

    def fickle(*_: object) -> Judgement:
        nonlocal asked
        asked += 1
        return Judgement.PASS if asked <= 4 else Judgement.GIBBERISH

    options = MeasureOptions(certify=certify)
    report, _ = await run(Judging(fickle, "writing"), required=True, options=options)
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert any("contradict the baseline" in note for note in report.notes)
