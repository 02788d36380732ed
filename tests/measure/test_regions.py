"""A true context loses nothing anywhere: the regions of the window, and several facts at once."""

from __future__ import annotations

from random import Random
from typing import Any

import attrs
import pytest
from simulations import FadesEarly, Requests, ends, is_near, measure, only

from lmstrix import Cause, MeasureOptions
from lmstrix.adapters.openai import OpenAIAdapter
from lmstrix.errors import StoreError
from lmstrix.events import Event, TrialFinished
from lmstrix.models import ContextReport, Judgement, Prompt, Question, Region, Reply, Verdict
from lmstrix.reports.words import say_evidence, say_summary
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel, answer
from lmstrix.validators.recall import Recall

WINDOW = 8000
MODEL = SimulatedModel(key="m", declared=32_768, true_context=WINDOW)
SOUND = attrs.evolve(MODEL, declared=8192, true_context=8192)


async def find(model: SimulatedModel, *, seed: int = 1, **parts: Any) -> ContextReport:
    """The report of recall alone; one seed for the measurement and the model's lapses."""
    return await measure(model, MeasureOptions(seed=seed), seed=seed, levels=(), **parts)


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
        (Beyond.FORGETS_HEAD, None, Region.HEAD, Cause.FORGETS),
        (Beyond.KEEPS_FIRST, None, Region.TAIL, Cause.FORGETS),
        (Beyond.FORGETS_MIDDLE, None, Region.MIDDLE, Cause.TRUNCATED),
        (Beyond.FORGETS_HEAD, (0.02, 0.08), Region.HEAD, Cause.FORGETS),
        (Beyond.FORGETS_HEAD, (0.15, 0.25), Region.EARLY, Cause.FORGETS),
        (Beyond.FORGETS_HEAD, (0.45, 0.6), Region.MIDDLE, Cause.FORGETS),
        (Beyond.FORGETS_HEAD, (0.7, 0.85), Region.LATE, Cause.FORGETS),
        (Beyond.FORGETS_HEAD, (0.91, 0.96), Region.TAIL, Cause.FORGETS),
    ],
)
async def test_a_lost_part_is_the_limit_and_is_named(
    beyond: Beyond, band: tuple[float, float] | None, weakest: Region, cause: Cause
) -> None:
    report = await find(attrs.evolve(MODEL, beyond=beyond, band=band))
    assert is_near(report, WINDOW)
    assert weakest in lost(report)
    assert len(lost(report)) < 5
    assert (report.cause, report.certified) == (cause, True)
    assert min(r.bracket[0] for r in report.regions) == report.true_context
    assert {r.cause for r in report.regions if r.region is weakest} == {cause}
    for region in report.regions:
        low, high = region.bracket
        assert low == region.limit_tokens
        assert low >= (report.true_context or 0)
        assert high is None or low < high
    assert lost_without_a_miss(report) == set()


async def test_the_average_is_the_old_larger_number() -> None:
    average = await measure(MODEL, MeasureOptions(average=True), seed=1, levels=())
    report = await find(MODEL)
    assert report.true_context is not None
    assert average.true_context is not None
    assert average.true_context >= report.true_context * 1.04
    assert average.method.average
    assert average.regions == ()


@pytest.mark.parametrize("seed", range(10, 14))
async def test_lapses_do_not_lower_the_answer(seed: int) -> None:
    model = attrs.evolve(MODEL, lapses=0.04, beyond=Beyond.FORGETS_ALL)
    report = await find(model, seed=seed)
    assert is_near(report, WINDOW)
    assert report.bracket[0] <= WINDOW


async def test_answers_that_are_wrong_at_any_length_certify_no_limit() -> None:
    """It has none, but one answer in five is wrong: by chance most of them at some lengths."""
    model = SimulatedModel(key="m", declared=8192, true_context=10**6, lapses=0.2)
    report = await measure(model, MeasureOptions(seed=1), levels=())
    assert report.true_context is not None
    assert report.true_context < 8192 / 2
    assert report.interval.high is None
    assert not report.certified
    assert "the limit may be far higher" in report.notes[-1]
    assert "too uneven to tell" in say_summary(report)
    assert say_evidence(report)[0] == "certified: no, the answers are too uneven."
    # To measure it the same way again would not certify it.
    assert MeasureOptions(seed=1).answered_by(report)
    interval = attrs.evolve(report.interval, high=report.bracket[1])
    tight = attrs.evolve(report, interval=interval, curve=())
    assert not MeasureOptions(seed=1).answered_by(tight)
    # The same where a server does not report what it has loaded.
    assert attrs.evolve(report, loadable_context=None).vague


@pytest.mark.parametrize("truth", [7000, 12_000])
async def test_what_is_answered_far_beyond_a_failed_length_is_not_passed_over(truth: int) -> None:
    """One question in ten lapses, by bad luck more of them in one region of a short length."""
    model = SimulatedModel(key="m", declared=16_384, true_context=truth, lapses=0.1)
    report = await measure(model, MeasureOptions(seed=15), seed=14, levels=())
    assert (report.true_context, report.vague, report.certified) == (512, True, False)
    assert "the limit may be far higher" in report.notes[-1]
    fewer = [p for p in report.curve if p.length_tokens <= (report.bracket[1] or 0)]
    assert not attrs.evolve(report, curve=tuple(fewer)).vague


@pytest.mark.parametrize("reuses", [True, False])
@pytest.mark.parametrize("band", [(0.242, 0.334), (0.1, 0.2), (0.06, 0.1)])
async def test_a_band_between_questions_is_found(
    band: tuple[float, float], *, reuses: bool
) -> None:
    assert is_near(await find(attrs.evolve(MODEL, band=band, reuses_prefixes=reuses)), WINDOW)


@pytest.mark.parametrize("seed", [12, 14, 19])
async def test_a_region_that_fades_earlier_is_not_certified_by_the_others(seed: int) -> None:
    report = await find(SOUND, seed=seed, validator=FadesEarly())
    assert report.true_context is not None
    assert report.true_context <= 5_000 * 17 / 16 or not report.certified


async def test_a_bracket_spans_lengths_at_which_some_texts_pass_and_some_do_not() -> None:
    report = await find(SOUND, seed=42, validator=FadesEarly())
    verdicts = {p.length_tokens: p.verdict for p in report.curve}
    notes = " ".join(report.notes)
    texts_differ = [n for n in verdicts if f"{n:,} tokens passed on the first text, but" in notes]
    low, high = ends(report)
    disputed = [n for n in texts_differ if n < high]
    assert len(disputed) >= 2
    assert low < min(disputed)
    assert {verdicts[n] for n in disputed} == {Verdict.UNDECIDED}
    assert (verdicts[low], verdicts[high]) == (Verdict.PASS, Verdict.FAIL)
    assert report.interval.low <= low < high <= (report.interval.high or 0)
    assert {r.bracket[1] for r in report.regions if r.bracket[1]}.isdisjoint(disputed)


async def test_a_length_that_failed_at_the_last_question_only_is_undecided() -> None:
    """15 of 20 about one region are seen one time in six at a rate that just passes."""
    report = await find(SOUND, seed=2, validator=FadesEarly())
    low, high = report.bracket
    between = {p.length_tokens: p for p in report.curve if low < p.length_tokens < (high or 0)}
    early = {n: t for n, p in between.items() for t in p.depths if t.region is Region.EARLY}
    most = [n for n, t in early.items() if t.trials >= 20 and t.passes < 0.85 * t.trials]
    assert most
    assert {between[n].verdict for n in most} == {Verdict.UNDECIDED}
    assert report.certified


async def test_the_upper_end_beyond_such_lengths_is_asked_about_on_a_fresh_text() -> None:
    heard: list[Event] = []
    report = await find(SOUND, seed=2, validator=FadesEarly(), observers=[heard.append])
    low, high = ends(report)
    assert any(low < p.length_tokens < high for p in report.curve)
    trials = [event.trial for event in only(TrialFinished, heard)]
    assert sum(t.length_tokens == high for t in trials if t.phase == "certify") >= 6


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
    report = await find(SOUND, validator=DislikesTwoFacts())
    assert (report.true_context, report.certified) == (8192, True)


@attrs.frozen
class DislikesOneText(Recall):
    """Above 2,100 tokens, nothing is recalled from the first text that is so long."""

    texts: list[str] = attrs.field(factory=list[str])

    def dislikes(self, text: str) -> bool:
        if len(text) <= 2_100 * 4.6:
            return False
        self.texts.append(text[:200])
        return text[:200] == self.texts[0]

    def judge(self, question: Question, reply: Reply) -> Judgement:
        if self.dislikes(question.prompt.user):
            return Judgement.WRONG
        return super().judge(question, reply)

    def judge_each(self, question: Question, reply: Reply) -> tuple[Judgement, ...]:
        judged = super().judge_each(question, reply)
        return (Judgement.WRONG,) * len(judged) if self.dislikes(question.prompt.user) else judged


@pytest.mark.parametrize("reuses", [True, False])
async def test_one_text_of_which_nothing_is_recalled_is_not_a_limit(*, reuses: bool) -> None:
    model = attrs.evolve(SOUND, reuses_prefixes=reuses)
    report = await find(model, validator=DislikesOneText())
    assert (report.true_context, report.certified) == (8192, True)


@pytest.mark.parametrize("seed", [5, 13])
async def test_a_text_that_is_often_hard_is_not_a_limit_for_a_model_that_lapses(seed: int) -> None:
    validator = DislikesTwoFacts(often=0.8, rng=Random(seed))
    report = await find(attrs.evolve(SOUND, lapses=0.04), seed=seed, validator=validator)
    assert (report.true_context, report.certified) == (8192, True)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_text_is_overruled_where_it_was_hard_and_nowhere_else(seed: int) -> None:
    """What is known about longer prompts spares the search another climb and reading."""
    report = await find(MODEL, seed=seed)
    assert report.certified
    assert report.cost.prompt_tokens < 6.5 * WINDOW


@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_a_cut_that_reaches_beyond_the_middle_is_told(seed: int) -> None:
    """Most of the longest prompt is dropped, so early and late facts are lost too."""
    model = SimulatedModel(
        key="m", declared=32_768, true_context=2500, beyond=Beyond.FORGETS_MIDDLE
    )
    report = await measure(model, MeasureOptions(seed=seed + 1), seed=seed, levels=())
    assert is_near(report, 2500, 1 / 8)
    assert report.cause is Cause.TRUNCATED


async def test_a_middle_that_is_cut_is_told_although_the_search_asked_little_else() -> None:
    report = await find(attrs.evolve(MODEL, true_context=12_000, beyond=Beyond.FORGETS_MIDDLE))
    assert report.cause is Cause.TRUNCATED


@pytest.mark.parametrize(
    ("declared", "band"), [(2560, (0.4, 0.6)), (2700, (0.38, 0.62)), (8192, (0.3, 0.75))]
)
async def test_a_band_that_leaves_as_much_as_the_answer_is_no_cut(
    declared: int, band: tuple[float, float]
) -> None:
    model = attrs.evolve(MODEL, declared=declared, true_context=2048, band=band)
    report = await find(model)
    assert (report.true_context, report.cause) == (2048, Cause.FORGETS)


# An engine that reuses nothing.

ANEW = attrs.evolve(MODEL, reuses_prefixes=False)
SMALL = attrs.evolve(ANEW, declared=2048, true_context=1300, beyond=Beyond.FORGETS_ALL)


@pytest.mark.parametrize(
    ("beyond", "most"),
    [(Beyond.FORGETS_ALL, 18), (Beyond.FORGETS_MIDDLE, 42), (Beyond.FORGETS_HEAD, 46)],
)
async def test_without_reuse_several_facts_are_asked_at_once(beyond: Beyond, most: int) -> None:
    """It costs at most so many times the answer; a look for truncation takes its
    share, and two certificates of the last do not hold."""
    store, adapter = Requests(), SimulatedAdapter(attrs.evolve(ANEW, beyond=beyond))
    report = await measure(adapter, store=store, levels=())
    assert is_near(report, WINDOW)
    assert report.certified
    assert max(map(len, store.requests)) == 8
    searching = [len(trials) for trials in store.requests if trials[0].phase == "search"]
    assert sum(searching) >= 6 * len(searching)
    assert report.cost.prompt_tokens <= most * report.bracket[0]
    assert adapter.counters.cached_tokens == 0


async def test_half_a_region_is_found_without_reuse() -> None:
    """Few depths are asked there, so that only one of six misses."""
    report = await find(attrs.evolve(ANEW, true_context=16_384, band=(0.711, 0.834)))
    assert is_near(report, 16_384)
    assert report.cause is Cause.FORGETS


async def test_who_cannot_do_several_is_asked_one_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_only(
        model: SimulatedModel, prompt: Prompt, *, length: int, max_tokens: int, seed: int
    ) -> tuple[str, bool]:
        text, cut_off = answer(model, prompt, length=length, max_tokens=max_tokens, seed=seed)
        return text.split("\n")[0], cut_off

    monkeypatch.setattr("lmstrix.testing.simulated.answer", first_only)
    store = Requests()
    report = await measure(SMALL, store=store, levels=())
    assert report.true_context == 1280
    assert {len(trials) for trials in store.requests if trials[0].phase != "baseline"} == {1}


@pytest.mark.parametrize("seed", [3, 8, 11, 14])
async def test_an_empty_reply_to_several_questions_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """One request in ten has none."""
    replies = Random(seed)

    def says_nothing(
        model: SimulatedModel, prompt: Prompt, *, length: int, max_tokens: int, seed: int
    ) -> tuple[str, bool]:
        if prompt.answer_prefix.startswith("1. ") and replies.random() < 0.1:
            return "", False
        return answer(model, prompt, length=length, max_tokens=max_tokens, seed=seed)

    monkeypatch.setattr("lmstrix.testing.simulated.answer", says_nothing)
    model = attrs.evolve(ANEW, true_context=5000, beyond=Beyond.FORGETS_ALL)
    report = await measure(model, MeasureOptions(seed=seed + 1), seed=seed, levels=())
    assert is_near(report, 5000) or not report.certified


async def test_the_facts_of_a_request_are_kept_all_or_none() -> None:
    whole = Requests()
    expected = await measure(SMALL, store=whole, levels=())
    at = next(n for n, trials in enumerate(whole.requests, 1) if len(trials) == 8) + 1
    store = Requests(at, error=StoreError("no room", hint="Make room."), keeps=False)
    adapter = SimulatedAdapter(SMALL)
    report = await measure(adapter, store=store, levels=())
    assert report.bracket == expected.bracket
    kept = await store.unfinished(store.key)
    assert kept is not None
    assert len(kept.trials) == sum(map(len, store.requests[: at - 1]))
    again = await measure(adapter, store=store, levels=())
    assert again.bracket == expected.bracket
    assert again.regions == expected.regions
    assert {point.verdict for point in again.curve} >= {Verdict.PASS, Verdict.FAIL}


@pytest.mark.parametrize(
    ("true", "band"),
    [(760, (0.62, 0.79)), (1013, (0.60, 0.79)), (726, (0.40, 0.66)), (792, (0.43, 0.60))],
)
async def test_short_prompts_hold_facts_everywhere(true: int, band: tuple[float, float]) -> None:
    report = await find(attrs.evolve(ANEW, declared=16_384, true_context=true, band=band))
    assert report.true_context is not None
    assert report.true_context <= true * 9 / 8


@pytest.mark.parametrize("true", [560, 700])
async def test_a_region_is_lost_if_its_only_fact_is(true: int) -> None:
    """One lost fact may be a dislike of the model's only if there are others."""
    report = await find(attrs.evolve(MODEL, declared=1024, true_context=true, band=(0.0, 0.1)))
    passed = [p for p in report.curve if p.verdict is Verdict.PASS]
    assert passed
    assert all(t.passes >= 0.85 * t.trials for p in passed for t in p.depths)


async def test_a_crash_above_is_not_the_cause_where_answers_fail_first() -> None:
    """Although they do not refute a passing rate."""
    script = OpenAIScript(crashes_above=5100)
    async with OpenAIServer(SimulatedAdapter(SOUND, seed=2), script=script) as server:
        adapter = OpenAIAdapter(server.host)
        options = MeasureOptions(seed=2)
        report = await measure(adapter, options, levels=(), validator=FadesEarly())
    crashed = [p.length_tokens for p in report.curve if p.failure is Cause.CRASHED_ON_FILL]
    assert crashed
    assert report.bracket[1] not in crashed
    assert report.cause is Cause.FORGETS


@pytest.mark.parametrize("opening", ["<think>\n\n</think>\n\n", "<think></think>\n"])
async def test_tags_of_an_empty_thought_are_no_answer(opening: str) -> None:
    """Stop strings end such a reply at once, also if the adapter keeps thoughts in the text."""
    model = SimulatedModel(key="m", declared=2048, true_context=1500, opening=opening)
    assert is_near(await find(model), 1500)
