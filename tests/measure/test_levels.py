"""Levels: limits of their own, found in what was read anyway."""

from __future__ import annotations

import attrs
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions, RetryPolicy
from lmstrix.errors import EngineUnavailable
from lmstrix.measure import Level, Measurement
from lmstrix.models import ContextReport, Judgement, LevelReport, Question, Region, Reply
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.search.gallop import Gallop
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.recall import Recall

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # nothing here knows of the loop

TRUTH = 4400
MODEL = SimulatedModel(key="m", declared=16384, true_context=TRUTH, beyond=Beyond.FORGETS_ALL)


@attrs.frozen
class UpTo:
    """A level whose limit is known: it passes up to `limit` tokens of prompt."""

    name: str
    limit: int
    baseline_length: int = 512
    regions: tuple[Region, ...] = tuple(Region)

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        return Recall().questions(loaded, seed)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        fits = reply.prompt_tokens + question.max_tokens <= self.limit
        return Judgement.PASS if fits else Judgement.GIBBERISH


async def measure(
    *levels: UpTo,
    required: bool = False,
    model: SimulatedModel = MODEL,
    options: MeasureOptions | None = None,
) -> tuple[ContextReport, SimulatedAdapter]:
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


def by_name(report: ContextReport) -> dict[str, LevelReport]:
    return {level.name: level for level in report.levels}


async def test_a_deeper_level_has_a_limit_of_its_own() -> None:
    report, _ = await measure(UpTo("deep", 1900))
    levels = by_name(report)
    assert report.true_context == levels["recall"].limit_tokens == 4352
    low, high = levels["deep"].bracket
    assert high is not None
    assert low <= 1900 < high
    assert high - low <= max(256, low / 16)
    assert levels["deep"].cause is Cause.GIBBERISH
    assert levels["deep"].limit_tokens == low


async def test_a_level_that_nothing_contradicts_is_at_least_what_was_read() -> None:
    report, _ = await measure(UpTo("writing", 10**6))
    writing = by_name(report)["writing"]
    longest = max(point.length_tokens for point in report.curve)
    assert writing.bracket == (longest, None)
    assert writing.cause is Cause.NOTHING_FAILED


async def test_at_the_declared_maximum_it_says_so() -> None:
    able = attrs.evolve(MODEL, declared=4096, true_context=10**6)
    report, _ = await measure(UpTo("writing", 10**6), model=able)
    writing = by_name(report)["writing"]
    assert writing.bracket == (4096, None)
    assert writing.cause is report.cause is Cause.DECLARED_MAXIMUM


async def test_a_required_level_that_fails_earlier_is_the_answer() -> None:
    report, _ = await measure(UpTo("writing", 3000), required=True)
    assert report.true_context is not None
    assert report.true_context <= 3000 < report.true_context + 512
    assert report.cause is Cause.GIBBERISH
    assert report.certified
    assert "writing fails at" in " ".join(report.notes)


async def test_a_required_level_that_fails_at_the_same_length_is_the_cause() -> None:
    report, _ = await measure(UpTo("writing", TRUTH), required=True)
    assert report.true_context == 4352
    assert report.cause is Cause.GIBBERISH


async def test_what_it_cannot_do_when_short_is_not_measurable() -> None:
    report, _ = await measure(UpTo("never", 0))
    never = by_name(report)["never"]
    assert never.limit_tokens is None
    assert never.cause is Cause.NOT_MEASURABLE
    assert report.true_context == 4352
    assert "never" in " ".join(report.notes)


async def test_levels_cost_their_questions() -> None:
    """Acceptance: at most a quarter more, by the engine's own counts."""
    alone, _ = await measure()
    report, _ = await measure(UpTo("writing", 10**6), UpTo("deep", 1900))
    assert report.true_context == alone.true_context
    assert report.cost.loads == alone.cost.loads
    assert report.cost.prompt_tokens <= 1.25 * alone.cost.prompt_tokens


class Unplugged(SimulatedAdapter):
    """Its engine is away from the reply `after` on, until it is told otherwise."""

    after = 10**6
    replies = 0

    async def before_reply(self, prompt_tokens: int) -> None:
        self.replies += 1
        if self.replies > self.after:
            raise EngineUnavailable("unplugged")
        await super().before_reply(prompt_tokens)


@pytest.mark.parametrize("share", [0.2, 0.3, 0.9, 0.97])
async def test_an_interrupted_measurement_of_levels_goes_on(share: float) -> None:
    """Stopped in a baseline, in the search and in a level: nothing is asked twice."""
    adapter, store = Unplugged(MODEL), SqliteStore(":memory:")
    quick = MeasureOptions(retry=RetryPolicy(attempts=1), certify=False)
    client = LMStrix(adapter=adapter, store=store, strategy="gallop", levels=[UpTo("deep", 1900)])
    whole, undisturbed = await measure(UpTo("deep", 1900), options=quick)
    adapter.after = int(share * undisturbed.counters.replies)
    with pytest.raises(EngineUnavailable):
        await client.find_true_context("m", quick)
    adapter.after = 10**6
    report = await client.find_true_context("m", quick)
    assert report.levels == whole.levels
    assert report.bracket == whole.bracket
    assert adapter.replies == undisturbed.counters.replies + 1  # the one that failed


async def test_nothing_is_loaded_for_a_level_beyond_what_was_wanted() -> None:
    """Its shortest questions are longer: that is said, and nothing is reported of it."""
    report, adapter = await measure(
        UpTo("long", 10**6, baseline_length=1024), options=MeasureOptions(max_context=600)
    )
    assert report.true_context == 600
    assert adapter.counters.most_prompt_tokens <= 600
    assert by_name(report)["long"].limit_tokens is None
    assert by_name(report)["long"].cause is Cause.NOT_MEASURABLE
    assert any("needs 1,024 tokens of 600" in note for note in report.notes)


@attrs.frozen
class From(UpTo):
    """Passes from `limit` tokens of prompt on, and fails below."""

    def judge(self, question: Question, reply: Reply) -> Judgement:
        del question
        return Judgement.PASS if reply.prompt_tokens > self.limit else Judgement.WRONG


@pytest.mark.parametrize("required", [True, False])
async def test_no_level_is_asked_below_its_own_shortest_length(*, required: bool) -> None:
    """What is asked there is no task of its kind: a failure would be no limit of the model."""
    early = attrs.evolve(MODEL, true_context=1200)
    level = From("long", 1900, baseline_length=2048)
    report, _ = await measure(level, required=required, model=early)
    assert (report.true_context, report.cause) == (1152, Cause.FORGETS)
    assert by_name(report)["long"].bracket == (2048, None)


@pytest.mark.parametrize("certify", [True, False])
async def test_a_level_that_contradicts_its_baseline_leaves_no_number(*, certify: bool) -> None:
    """It passes at the shortest length, and later fails there: then nothing is known to work."""
    asked = 0

    class Fickle(UpTo):
        def judge(self, question: Question, reply: Reply) -> Judgement:
            nonlocal asked
            asked += 1
            return Judgement.PASS if asked <= 4 else super().judge(question, reply)

    options = MeasureOptions(certify=certify)
    report, _ = await measure(Fickle("writing", 0), required=True, options=options)
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert any("contradict the baseline" in note for note in report.notes)
