"""A true context loses nothing anywhere: the regions of the window, and several facts at once."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.errors import StoreError
from lmstrix.events import Event, TrialFinished
from lmstrix.models import (
    ContextReport,
    Judgement,
    ModelInfo,
    Prompt,
    Question,
    Region,
    Reply,
    StoredMeasurement,
    Trial,
    Verdict,
)
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel, answer
from lmstrix.validators.recall import Recall

WINDOW = 8000
MODEL = SimulatedModel(key="m", declared=32_768, true_context=WINDOW)
SOUND = attrs.evolve(MODEL, declared=8192, true_context=8192)

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # nothing here knows of the loop


async def measure(
    model: SimulatedModel,
    options: MeasureOptions | None = None,
    validator: Recall | str = "recall",
) -> ContextReport:
    options = options or MeasureOptions()
    adapter = SimulatedAdapter(model, seed=options.seed)
    async with LMStrix(adapter=adapter, store="memory", levels=(), validator=validator) as client:
        return await client.find_true_context("m", options)


def lost(report: ContextReport) -> set[Region]:
    """The regions that failed at the bracket's upper end."""
    return {r.region for r in report.regions if r.bracket[1] == report.bracket[1]}


def lost_without_a_miss(report: ContextReport) -> set[Region]:
    """The regions that failed at a length at which all their answers were correct."""
    tallies = {p.length_tokens: {t.region: t for t in p.depths} for p in report.curve}
    failed = [(r.region, tallies.get(r.bracket[1] or 0, {}).get(r.region)) for r in report.regions]
    return {region for region, t in failed if t is not None and t.passes == t.trials}


@pytest.mark.parametrize(
    ("beyond", "band", "weakest", "cause"),
    [
        (Beyond.FORGETS_HEAD, None, {Region.HEAD}, Cause.FORGETS),
        (Beyond.KEEPS_FIRST, None, {Region.TAIL}, Cause.FORGETS),
        (Beyond.FORGETS_MIDDLE, None, {Region.MIDDLE}, Cause.TRUNCATED),
        (Beyond.FORGETS_HEAD, (0.02, 0.08), {Region.HEAD}, Cause.FORGETS),
        (Beyond.FORGETS_HEAD, (0.15, 0.25), {Region.EARLY}, Cause.FORGETS),
        (Beyond.FORGETS_HEAD, (0.45, 0.6), {Region.MIDDLE}, Cause.FORGETS),
        (Beyond.FORGETS_HEAD, (0.7, 0.85), {Region.LATE}, Cause.FORGETS),
        (Beyond.FORGETS_HEAD, (0.91, 0.96), {Region.TAIL}, Cause.FORGETS),
    ],
)
async def test_a_lost_part_is_the_limit_and_is_named(
    beyond: Beyond, band: tuple[float, float] | None, weakest: set[Region], cause: Cause
) -> None:
    report = await measure(attrs.evolve(MODEL, beyond=beyond, band=band))
    assert report.true_context is not None
    assert WINDOW * 15 / 16 <= report.true_context <= WINDOW * 17 / 16
    assert lost(report) >= weakest
    assert len(lost(report)) < 5
    assert report.cause is cause
    assert report.certified
    assert min(r.bracket[0] for r in report.regions) == report.true_context
    assert {r.cause for r in report.regions if r.region in weakest} == {cause}
    for region in report.regions:
        low, high = region.bracket
        assert low == region.limit_tokens
        assert low >= report.true_context
        assert high is None or low < high
    assert lost_without_a_miss(report) == set()


async def test_the_average_is_the_old_larger_number() -> None:
    """15 % of a window may be lost before it shows."""
    average = await measure(MODEL, MeasureOptions(average=True))
    report = await measure(MODEL)
    assert report.true_context is not None
    assert average.true_context is not None
    assert average.true_context >= report.true_context * 1.04
    assert average.method.average
    assert average.regions == ()


@pytest.mark.parametrize("seed", range(10, 14))
async def test_lapses_do_not_lower_the_answer(seed: int) -> None:
    model = attrs.evolve(MODEL, lapses=0.04, beyond=Beyond.FORGETS_ALL)
    report = await measure(model, MeasureOptions(seed=seed))
    assert report.true_context is not None
    assert WINDOW * 15 / 16 <= report.true_context <= WINDOW


@pytest.mark.parametrize("reuses", [True, False])
@pytest.mark.parametrize("band", [(0.242, 0.334), (0.1, 0.2), (0.06, 0.1)])
async def test_a_band_between_the_first_questions_is_found(
    band: tuple[float, float], *, reuses: bool
) -> None:
    """A third of a region is lost, and its first few depths are outside."""
    model = attrs.evolve(MODEL, declared=32_768, band=band, reuses_prefixes=reuses)
    report = await measure(model)
    assert report.true_context is not None
    assert WINDOW * 15 / 16 <= report.true_context <= WINDOW * 17 / 16


class FadesEarly(Recall):
    """Above 5,000 tokens, 28 % of the facts of the early region are forgotten."""

    def judge(self, question: Question, reply: Reply) -> Judgement:
        long = len(question.prompt.user) > 5_000 * 4.6
        if question.region is Region.EARLY and long and Random(question.expected).random() < 0.28:
            return Judgement.WRONG
        return super().judge(question, reply)


@pytest.mark.parametrize("seed", [2, 12, 14])
async def test_a_region_that_fades_a_little_earlier_is_not_certified_by_the_others(
    seed: int,
) -> None:
    report = await measure(SOUND, MeasureOptions(seed=seed), FadesEarly())
    assert report.true_context is not None
    assert report.true_context <= 5_000 * 17 / 16 or not report.certified


async def test_a_bracket_spans_lengths_at_which_some_texts_pass_and_some_do_not() -> None:
    report = await measure(SOUND, MeasureOptions(seed=45), FadesEarly())
    verdicts = {p.length_tokens: p.verdict for p in report.curve}
    notes = " ".join(report.notes)
    disputed = [n for n in verdicts if f"{n:,} tokens passed on the first text, but not" in notes]
    low, high = report.bracket
    assert len(disputed) >= 2
    assert high is not None
    assert low < min(disputed) < max(disputed) < high
    assert {verdicts[n] for n in disputed} == {Verdict.UNDECIDED}
    assert (verdicts[low], verdicts[high]) == (Verdict.PASS, Verdict.FAIL)
    assert report.interval.low <= low < high <= (report.interval.high or 0)
    assert {r.bracket[1] for r in report.regions if r.bracket[1]}.isdisjoint(disputed)


async def test_a_length_that_failed_at_the_last_question_only_is_undecided() -> None:
    """15 of 20 about one region are seen one time in six at a rate that just passes."""
    report = await measure(SOUND, MeasureOptions(seed=6), FadesEarly())
    low, high = report.bracket
    between = {p.length_tokens: p for p in report.curve if low < p.length_tokens < (high or 0)}
    early = {n: t for n, p in between.items() for t in p.depths if t.region is Region.EARLY}
    most = [n for n, t in early.items() if t.trials >= 20 and t.passes < 0.85 * t.trials]
    assert most
    assert {between[n].verdict for n in most} == {Verdict.UNDECIDED}
    assert report.certified


async def test_the_upper_end_beyond_such_lengths_is_asked_about_on_a_fresh_text() -> None:
    asked: list[Trial] = []

    def hear(event: Event) -> None:
        if isinstance(event, TrialFinished) and event.trial.phase == "certify":
            asked.append(event.trial)

    adapter = SimulatedAdapter(SOUND, seed=59)
    async with LMStrix(
        adapter=adapter, store="memory", levels=(), validator=FadesEarly(), observers=[hear]
    ) as client:
        report = await client.find_true_context("m", MeasureOptions(seed=59))
    low, high = report.bracket
    assert any(low < p.length_tokens < (high or 0) for p in report.curve)
    assert sum(t.length_tokens == high for t in asked) >= 6


@attrs.frozen
class DislikesTwoFacts(Recall):
    """Above 4,000 tokens, two facts of the head of the first text are missed, always or often."""

    often: float = 1.0
    rng: Random = attrs.field(factory=Random)
    disliked: set[str] = attrs.field(factory=set[str])

    def judge(self, question: Question, reply: Reply) -> Judgement:
        long = len(question.prompt.user) > 4_000 * 4.6
        if question.region is Region.HEAD and long and len(self.disliked) < 2:
            self.disliked.add(question.expected)
        if long and question.expected in self.disliked and self.rng.random() < self.often:
            return Judgement.WRONG
        return super().judge(question, reply)


async def test_a_hard_text_is_not_a_limit() -> None:
    report = await measure(SOUND, validator=DislikesTwoFacts())
    assert (report.true_context, report.certified) == (8192, True)


@pytest.mark.parametrize("seed", [5, 13])
async def test_a_text_that_is_often_hard_is_not_a_limit_for_a_model_that_lapses(seed: int) -> None:
    validator = DislikesTwoFacts(often=0.8, rng=Random(seed))
    report = await measure(attrs.evolve(SOUND, lapses=0.04), MeasureOptions(seed=seed), validator)
    assert (report.true_context, report.certified) == (8192, True)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_text_is_overruled_where_it_was_hard_and_nowhere_else(seed: int) -> None:
    """What is known about longer prompts spares the search another climb and reading."""
    model = attrs.evolve(MODEL, beyond=Beyond.FORGETS_HEAD)
    report = await measure(model, MeasureOptions(seed=seed))
    assert report.certified
    assert report.cost.prompt_tokens < 6.5 * WINDOW


async def test_a_middle_that_is_cut_is_told_although_the_search_asked_little_else() -> None:
    model = attrs.evolve(MODEL, true_context=12_000, beyond=Beyond.FORGETS_MIDDLE)
    report = await measure(model, MeasureOptions(seed=1))
    assert report.cause is Cause.TRUNCATED


# An engine that reuses nothing.

ANEW = attrs.evolve(MODEL, reuses_prefixes=False)
SMALL = attrs.evolve(ANEW, declared=2048, true_context=1300, beyond=Beyond.FORGETS_ALL)


class Requests(SqliteStore):
    """Knows how many trials each request brought. `fails_at` is the request that is not kept."""

    def __init__(self, fails_at: int = 0) -> None:
        super().__init__(":memory:")
        self.sizes: list[tuple[str, int]] = []
        self.key = ""
        self._fails_at = fails_at

    async def begin(self, key: str, model: ModelInfo) -> StoredMeasurement:
        self.key = key
        return await super().begin(key, model)

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        self.sizes.append((trials[0].phase, len(trials)))
        if len(self.sizes) == self._fails_at:
            raise StoreError("no room", hint="Make room.")
        return await super().append_trials(measurement_id, trials)


@pytest.mark.parametrize(
    ("beyond", "most"),
    [(Beyond.FORGETS_ALL, 18), (Beyond.FORGETS_MIDDLE, 42), (Beyond.FORGETS_HEAD, 45)],
)
async def test_an_engine_that_reuses_nothing_is_asked_several_facts_at_once(
    beyond: Beyond, most: int
) -> None:
    """It costs at most so many times the answer; a look for truncation takes its
    share, and two certificates of the last do not hold."""
    store = Requests()
    adapter = SimulatedAdapter(attrs.evolve(ANEW, beyond=beyond))
    client = LMStrix(adapter=adapter, store=store, levels=())
    report = await client.find_true_context("m")
    assert report.true_context is not None
    assert WINDOW * 15 / 16 <= report.true_context <= WINDOW * 17 / 16
    assert report.certified
    assert max(size for _, size in store.sizes) == 8
    searching = [size for phase, size in store.sizes if phase == "search"]
    assert sum(searching) >= 6 * len(searching)
    assert report.cost.prompt_tokens <= most * report.true_context
    assert adapter.counters.cached_tokens == 0


async def test_a_model_that_cannot_do_several_is_asked_one_fact_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def first_only(
        model: SimulatedModel, prompt: Prompt, *, length: int, max_tokens: int, seed: int
    ) -> tuple[str, bool]:
        text, cut_off = answer(model, prompt, length=length, max_tokens=max_tokens, seed=seed)
        return text.split("\n")[0], cut_off

    monkeypatch.setattr("lmstrix.testing.simulated.answer", first_only)
    store = Requests()
    client = LMStrix(adapter=SimulatedAdapter(SMALL), store=store, levels=())
    report = await client.find_true_context("m")
    assert report.true_context == 1280
    assert {size for phase, size in store.sizes if phase != "baseline"} == {1}


async def test_the_facts_of_a_request_are_kept_all_or_none() -> None:
    """What one reply said is either known to the next run or asked again."""
    whole = Requests()
    client = LMStrix(adapter=SimulatedAdapter(SMALL), store=whole, levels=())
    expected = await client.find_true_context("m")
    at = next(n for n, (_, size) in enumerate(whole.sizes, 1) if size == 8) + 1
    store = Requests(fails_at=at)
    client = LMStrix(adapter=SimulatedAdapter(SMALL), store=store, levels=())
    report = await client.find_true_context("m")
    assert report.bracket == expected.bracket
    kept = await store.unfinished(store.key)
    assert kept is not None
    assert len(kept.trials) == sum(size for _, size in store.sizes[: at - 1])
    again = await client.find_true_context("m")
    assert again.bracket == expected.bracket
    assert again.regions == expected.regions
    assert {point.verdict for point in again.curve} >= {Verdict.PASS, Verdict.FAIL}


@pytest.mark.parametrize(
    ("true", "band"),
    [(760, (0.62, 0.79)), (1013, (0.60, 0.79)), (726, (0.40, 0.66)), (792, (0.43, 0.60))],
)
async def test_short_prompts_with_several_questions_hold_facts_in_every_region(
    true: int, band: tuple[float, float]
) -> None:
    """Eight questions and their answers take a third of 1,024 tokens."""
    short = attrs.evolve(MODEL, declared=16_384, true_context=true, band=band)
    report = await measure(attrs.evolve(short, reuses_prefixes=False))
    assert report.true_context is not None
    assert report.true_context <= true * 9 / 8


@pytest.mark.parametrize("true", [560, 700])
async def test_a_region_is_lost_if_its_only_fact_is(true: int) -> None:
    """One lost fact may be a dislike of the model's only if there are others."""
    model = attrs.evolve(MODEL, declared=1024, true_context=true, band=(0.0, 0.1))
    report = await measure(model)
    passed = [p for p in report.curve if p.verdict is Verdict.PASS]
    assert passed
    assert all(t.passes >= 0.85 * t.trials for p in passed for t in p.depths)


async def test_a_crash_above_is_not_the_cause_where_answers_fail_first() -> None:
    """Although they do not refute a passing rate."""
    script = OpenAIScript(crashes_above=5100)
    async with OpenAIServer(SimulatedAdapter(SOUND, seed=2), script=script) as server:
        adapter = OpenAIAdapter(server.host)
        async with LMStrix(
            adapter=adapter, store="memory", levels=(), validator=FadesEarly()
        ) as client:
            report = await client.find_true_context("m", MeasureOptions(seed=2))
    crashed = [p.length_tokens for p in report.curve if p.failure is Cause.CRASHED_ON_FILL]
    assert crashed
    assert report.bracket[1] not in crashed
    assert report.cause is Cause.FORGETS


@pytest.mark.parametrize("opening", ["<think>\n\n</think>\n\n", "<think></think>\n"])
async def test_tags_of_an_empty_thought_are_no_answer(opening: str) -> None:
    """Stop strings end such a reply at once, also if the adapter keeps thoughts in the text."""
    model = SimulatedModel(key="m", declared=2048, true_context=1500, opening=opening)
    report = await measure(model)
    assert report.true_context is not None
    assert 1500 * 15 / 16 <= report.true_context <= 1500 * 17 / 16
