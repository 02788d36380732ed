"""How measurements end that have no easy end: each with what is true, and a name for it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import anyio
import attrs
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.errors import (
    ConfigurationError,
    ContextOverflow,
    EngineCrashed,
    LMStrixError,
    PredictionError,
)
from lmstrix.events import Event, TrialFinished
from lmstrix.measure import Level, Measurement
from lmstrix.models import ContextReport, Judgement, Observation, Prompt, Question, Region, Reply
from lmstrix.ports import LoadedModel, QuestionSource, SearchStrategy, Validator
from lmstrix.problem import Ask, CostModel, Done, SearchProblem
from lmstrix.reports.words import dump_report
from lmstrix.search.bayes import Bayes
from lmstrix.search.gallop import Gallop
from lmstrix.serialize import load_report
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import (
    REFUSAL,
    Beyond,
    SimulatedAdapter,
    SimulatedModel,
    prompt_tokens,
)
from lmstrix.validators.coherence import Coherence
from lmstrix.validators.recall import Recall

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # nothing here knows of the loop

MODEL = SimulatedModel(key="m", declared=8192, true_context=10**6)


async def measure(
    validator: Validator,
    strategy: SearchStrategy,
    levels: Sequence[Validator] = (),
    *,
    model: SimulatedModel = MODEL,
) -> ContextReport:
    adapter = SimulatedAdapter(model)
    measurement = Measurement(
        adapter=adapter,
        model=await adapter.find_model("m"),
        strategy=strategy,
        validator=validator,
        levels=[Level(validator=level) for level in levels],
        store=SqliteStore(":memory:"),
        options=MeasureOptions(),
    )
    return await measurement.run()


async def test_a_template_that_leaves_no_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the baseline's length, by a model that comes with instructions of its own."""

    def wordy(prompt: Prompt) -> list[str]:
        return [*["<s>"] * 600, *prompt_tokens(prompt)]

    monkeypatch.setattr("lmstrix.testing.simulated.prompt_tokens", wordy)
    report = await measure(Recall(), Gallop())
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)
    assert report.notes == (
        "at 512 tokens nothing can be asked: a question does not fit in 496 tokens",
    )


async def test_a_level_that_a_template_leaves_no_room_for_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wordy(prompt: Prompt) -> list[str]:
        return [*["<s>"] * 410, *prompt_tokens(prompt)]

    monkeypatch.setattr("lmstrix.testing.simulated.prompt_tokens", wordy)
    report = await measure(Recall(), Gallop(), [Coherence()])
    assert report.true_context
    assert report.cause is not Cause.NOT_MEASURABLE
    assert "coherence: at 512 tokens nothing can be asked" in " ".join(report.notes)


@pytest.mark.parametrize("options", [MeasureOptions(max_context=511), MeasureOptions(only_at=511)])
async def test_a_length_too_short_to_ask_anything_is_no_limit(options: MeasureOptions) -> None:
    """It is a mistake in the options, told before anything is loaded."""
    adapter = SimulatedAdapter(MODEL)
    client = LMStrix(adapter=adapter, store="memory")
    with pytest.raises(ConfigurationError, match="511 tokens are too few"):
        await client.find_true_context("m", options)
    assert adapter.counters.loads == 0


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 1.5},
        {"seed": True},
        {"seed": 2**63},
        {"max_context": math.nan},
        {"max_context": 1800.5},
        {"max_context": "8k"},
        {"budget_s": "10m"},
        {"budget_s": math.inf},
        {"documents": 2.5},
        {"average": 1},
    ],
)
async def test_a_value_of_another_kind_is_refused_before_anything_is_measured(values: Any) -> None:
    """It could be measured with, but the result could not be stored."""
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        MeasureOptions(**values)


async def test_a_pass_rate_that_it_misses_when_short_is_no_limit() -> None:
    """Not even its shortest prompt passes, so there is no length that is known to."""
    adapter = SimulatedAdapter(attrs.evolve(MODEL, lapses=0.4), seed=2)
    client = LMStrix(adapter=adapter, store="memory")
    report = await client.find_true_context("m", MeasureOptions(ratio=0.99, absolute=True))
    assert 0.5 <= report.baseline.rate < 0.9
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)


class Careful(Gallop):
    """Asks one thing more where it does not know what that costs."""

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        step = super().next_step(problem, history)
        more = isinstance(step, Done) and problem.costs == CostModel()
        return Ask(length_tokens=1024, trials=1) if more else step


async def test_without_a_budget_none_is_spent() -> None:
    report = await measure(Recall(), Careful())
    assert (report.true_context, report.cause) == (8192, Cause.DECLARED_MAXIMUM)


@attrs.frozen
class _Marked:
    """Recall's questions; each has its document's number, and its length, as its kind."""

    inner: QuestionSource
    seed: int

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        question = await self.inner.question(length_tokens, index, region)
        return attrs.evolve(question, kind=f"{self.seed} {length_tokens}")


LIMITS = {1000: 10**6, 1001: 10**6, 1002: 4400, 1003: 3400, 1004: 2600, 1005: 2000}


@attrs.frozen
class Downhill:
    """A task with another limit on each document: each certificate's is lower than the last."""

    name: str = "downhill"
    baseline_length: int = 512
    regions: tuple[Region, ...] = tuple(Region)

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        return _Marked(Recall().questions(loaded, seed), seed)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        length = reply.prompt_tokens + question.max_tokens
        return (
            Judgement.PASS if length <= LIMITS[int(question.kind.split()[0])] else Judgement.WRONG
        )


async def test_after_the_last_certificate_the_search_goes_on_to_an_answer() -> None:
    """It moved the bracket too: what is reported is as narrow as any other."""
    report = await measure(Downhill(), Bayes())
    low, high = report.bracket
    assert not report.certified
    assert "4 results were not confirmed" in " ".join(report.notes)
    assert high is not None
    assert low <= 2000 < high
    assert high - low <= 256


# Replies that can be judged neither way: they are no fails, no passes, and hide no number.

SHORT_TRUTH = 1300
SHORT = attrs.evolve(MODEL, true_context=SHORT_TRUTH, beyond=Beyond.FORGETS_ALL)


@attrs.frozen
class Mute:
    """Recall up to `SHORT_TRUTH` tokens, but most replies say nothing: only every `every`-th one
    from `silent_from` tokens on, none at all on documents after `last_seed`.
    """

    name: str = "mute"
    every: int = 1
    silent_from: int = 0
    last_seed: int = 10**6
    baseline_length: int = 512
    regions: tuple[Region, ...] = tuple(Region)
    asked: Counter[str] = attrs.field(factory=Counter[str])

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        return _Marked(Recall().questions(loaded, seed), seed)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        self.asked[question.kind] += 1
        seed = int(question.kind.split()[0])
        length = reply.prompt_tokens + question.max_tokens
        silent = length > self.silent_from and self.asked[question.kind] % self.every
        if silent or seed > self.last_seed:
            return Judgement.INCONCLUSIVE
        return Judgement.PASS if length <= SHORT_TRUTH else Judgement.WRONG


async def measure_mute(validator: Validator, *levels: Validator) -> ContextReport:
    strategy = Gallop() if levels else Bayes()
    return await measure(validator, strategy, levels, model=SHORT)


async def test_where_most_replies_say_nothing_the_others_do_not_stand_for_them() -> None:
    """Two of three at each length say nothing, and none did at short length."""
    report = await measure_mute(Mute(every=3, silent_from=600))
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert "few replies could be judged" in " ".join(report.notes)


@pytest.mark.parametrize("reuses", [True, False])
@pytest.mark.parametrize("band", [(0.36, 0.62), (0.0, 0.08)])
async def test_a_region_is_not_judged_by_what_survives_in_it(
    monkeypatch: pytest.MonkeyPatch, band: tuple[float, float], *, reuses: bool
) -> None:
    """A model that refuses to answer where a fact is lost."""
    monkeypatch.setattr("lmstrix.testing.simulated.FORGOTTEN", REFUSAL)
    model = SimulatedModel(
        key="m", declared=16_384, true_context=4096, band=band, reuses_prefixes=reuses
    )
    report = await measure(Recall(), Bayes(), model=model)
    assert report.baseline.passes == report.baseline.trials > 0
    assert any(point.inconclusive for point in report.curve)
    assert not report.certified
    assert (report.true_context or 0) <= 4096 * 17 / 16


async def test_a_level_asks_its_other_questions_too() -> None:
    report = await measure_mute(Recall(), Mute(every=4, silent_from=600))
    level = next(level for level in report.levels if level.name == "mute")
    assert level.bracket[0] == report.true_context == 1280
    assert level.bracket[1] is not None
    assert level.cause is Cause.FORGETS


async def test_no_number_is_told_but_what_is_known() -> None:
    """Nothing is read beyond the length where nothing could be judged."""
    report = await measure_mute(Mute(every=10**6, silent_from=1000))
    (note,) = report.notes
    longest = max(point.length_tokens for point in report.curve)
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert note.startswith("at 1,024 tokens too few replies could be judged; at ")
    right = max(p.length_tokens for p in report.curve if p.passes)
    assert re.search(rf"at {right:,} tokens (\d+) of \1 were right", note)
    assert longest <= 1536


async def test_a_certificate_needs_replies_that_can_be_judged() -> None:
    report = await measure_mute(Mute(last_seed=1001))
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert any("at 1,280 tokens too few replies" in note for note in report.notes)


async def test_what_never_writes_language_is_not_measurable() -> None:
    """Its short replies are not excused by each other."""
    salad = SimulatedModel(true_context=0, beyond=Beyond.WORD_SALAD)
    client = LMStrix(
        adapter=SimulatedAdapter(salad), store="memory", validator="coherence", levels=()
    )
    report = await client.find_true_context("simulated")
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)
    assert (report.baseline.passes, report.baseline.trials) == (0, 12)


PAIRS: list[tuple[str, str]] = []
"""The kind of a question, and the short reply that its own was compared with."""


class Comparing(Coherence):
    def compare(self, question: Question, reply: Reply, own: str) -> Judgement:
        PAIRS.append((question.kind, own))
        return super().compare(question, reply, own)


async def test_a_reply_is_compared_with_one_to_the_same_request() -> None:
    PAIRS.clear()
    kinds: dict[str, str] = {}

    def hear(event: Event) -> None:
        if isinstance(event, TrialFinished) and event.trial.phase == "baseline":
            kinds[event.trial.reply] = event.trial.kind

    adapter = SimulatedAdapter(SHORT)
    measurement = Measurement(
        adapter=adapter,
        model=await adapter.find_model("m"),
        strategy=Gallop(),
        validator=Comparing(),
        store=SqliteStore(":memory:"),
        options=MeasureOptions(max_context=2048),
        observers=[hear],
    )
    assert (await measurement.run()).true_context == 2048
    assert len({kind for kind, _ in PAIRS}) == 4
    assert [kinds[own] for _, own in PAIRS] == [kind for kind, _ in PAIRS]


@attrs.frozen
class Fickle(Mute):
    """Answers two questions about the head wrong on a certificate's document, and declines every
    further one.
    """

    def judge(self, question: Question, reply: Reply) -> Judgement:
        length = reply.prompt_tokens + question.max_tokens
        fresh = int(question.kind.split()[0]) > self.last_seed
        if question.region is not Region.HEAD or not fresh:
            return Judgement.PASS if length <= SHORT_TRUTH else Judgement.WRONG
        self.asked["head"] += 1
        return Judgement.WRONG if self.asked["head"] <= 2 else Judgement.INCONCLUSIVE


async def test_a_certificate_ends_if_no_further_reply_can_be_judged() -> None:
    """Else it would ask for ever: the head is undecided there, and stays so."""
    with anyio.fail_after(60):
        report = await measure_mute(Fickle(last_seed=1001))
    assert not report.certified
    assert any("too few replies could be judged" in note for note in report.notes)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (EngineCrashed("it died"), Cause.CRASHED_ON_FILL),
        (ContextOverflow("too long"), Cause.OVERFLOW),
    ],
)
@pytest.mark.parametrize("beyond", [Beyond.FORGETS_ALL, Beyond.FORGETS_HEAD])
async def test_an_engine_that_fails_first_in_the_certificate_is_the_cause(
    error: LMStrixError, cause: Cause, beyond: Beyond
) -> None:
    """Memory may be short by then, or the load made for the answer holds less than it says."""

    class Fails(SimulatedAdapter):
        async def before_reply(self, prompt_tokens: int) -> None:
            if self.counters.loads > 1 and prompt_tokens > 3700:
                raise error

    adapter = Fails(attrs.evolve(MODEL, true_context=4000, beyond=beyond))
    client = LMStrix(adapter=adapter, store="memory")
    report = await client.find_true_context("m")
    assert (report.cause, report.certified) == (cause, True)
    assert any("engine failed" in note for note in report.notes)
    assert {region.cause for region in report.regions} == {cause}
    assert load_report(dump_report(report)) == report
    low, high = report.bracket
    assert low <= 3716 < (high or 0)


async def test_a_model_that_declares_nothing_is_tried_as_far_as_asked() -> None:
    adapter = SimulatedAdapter(attrs.evolve(MODEL, declared=None))
    client = LMStrix(adapter=adapter, store="memory", levels=())
    options = MeasureOptions(max_context=140_000, quick=True)
    report = await client.find_true_context("m", options)
    assert (report.true_context, report.cause) == (140_000, Cause.MAX_CONTEXT)


async def test_a_length_at_which_coherence_fails_is_no_limit_of_a_region() -> None:
    """Whatever single facts it missed there."""
    model = attrs.evolve(MODEL, coherent_context=4000, lapses=0.05)
    for seed in range(3):
        client = LMStrix(adapter=SimulatedAdapter(model, seed=seed), store="memory")
        report = await client.find_true_context("m", MeasureOptions(seed=seed))
        assert report.cause is Cause.GIBBERISH
        assert Cause.FORGETS not in {region.cause for region in report.regions}


async def test_an_error_of_the_engine_that_comes_with_a_length_is_its_limit() -> None:
    """As "Compute error." by a GPU without memory; in whatever words."""

    class Fails(SimulatedAdapter):
        async def before_reply(self, prompt_tokens: int) -> None:
            if prompt_tokens > 3000:
                raise PredictionError("something odd happened")

    client = LMStrix(adapter=Fails(MODEL), store="memory")
    report = await client.find_true_context("m")
    assert (report.cause, report.certified) == (Cause.CRASHED_ON_FILL, True)
    assert any("something odd happened" in note for note in report.notes)
    low, high = report.bracket
    assert low <= 3016 < (high or 0)


async def test_an_error_of_the_engine_at_any_length_ends_the_measurement() -> None:
    class Fails(SimulatedAdapter):
        async def before_reply(self, prompt_tokens: int) -> None:
            if self.counters.replies > 60:
                raise PredictionError("something odd happened")

    with pytest.raises(PredictionError, match="odd"):
        await LMStrix(adapter=Fails(MODEL), store="memory").find_true_context("m")
