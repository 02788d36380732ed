"""Replies that can be judged neither way: they are no fails, no passes, and hide no number."""

from __future__ import annotations

from collections import Counter

import anyio
import attrs

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.events import Event, TrialFinished
from lmstrix.measure import Level, Measurement
from lmstrix.models import ContextReport, Judgement, Question, Region, Reply
from lmstrix.ports import LoadedModel, QuestionSource, Validator
from lmstrix.search.bayes import Bayes
from lmstrix.search.gallop import Gallop
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.coherence import Coherence
from lmstrix.validators.recall import Recall

TRUTH = 1300
MODEL = SimulatedModel(key="m", declared=8192, true_context=TRUTH, beyond=Beyond.FORGETS_ALL)


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


@attrs.frozen
class Mute:
    """Recall up to `TRUTH` tokens, but most replies say nothing: only every `every`-th one from
    `silent_from` tokens on, none at all on documents after `last_seed`.
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
        return Judgement.PASS if length <= TRUTH else Judgement.WRONG


async def measure(validator: Validator, *levels: Validator) -> ContextReport:
    adapter = SimulatedAdapter(MODEL)
    measurement = Measurement(
        adapter=adapter,
        model=await adapter.find_model("m"),
        strategy=Bayes() if not levels else Gallop(),
        validator=validator,
        levels=[Level(validator=level) for level in levels],
        store=SqliteStore(":memory:"),
        options=MeasureOptions(),
    )
    return await measurement.run()


async def test_where_some_replies_say_nothing_others_are_asked_for() -> None:
    """Two of three at each length say nothing: the first two, so that giving up there is easy."""
    report = await measure(Mute(every=3, silent_from=600))
    low, high = report.bracket
    assert (report.cause, report.certified) == (Cause.FORGETS, False)
    assert high is not None
    assert low <= TRUTH < high
    assert "few replies could be judged" in " ".join(report.notes)


async def test_a_level_asks_its_other_questions_too() -> None:
    report = await measure(Recall(), Mute(every=4, silent_from=600))
    level = next(level for level in report.levels if level.name == "mute")
    assert level.bracket[0] == report.true_context == 1280
    assert level.bracket[1] is not None
    assert level.cause is Cause.FORGETS


async def test_no_number_is_told_but_what_is_known() -> None:
    """Nothing is read beyond the length where nothing could be judged."""
    report = await measure(Mute(every=10**6, silent_from=1000))
    (note,) = report.notes
    longest = max(point.length_tokens for point in report.curve)
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert note.startswith("at 1,280 tokens too few replies could be judged; at ")
    right = max(p.length_tokens for p in report.curve if p.passes)
    assert f"at {right:,} tokens every answer was right" in note
    assert longest <= 1536


async def test_a_certificate_needs_replies_that_can_be_judged() -> None:
    report = await measure(Mute(last_seed=1001))
    assert report.true_context == 1280
    assert not report.certified
    assert "not certified: at 1,280 tokens too few replies could be judged" in report.notes


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

    adapter = SimulatedAdapter(MODEL)
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
            return Judgement.PASS if length <= TRUTH else Judgement.WRONG
        self.asked["head"] += 1
        return Judgement.WRONG if self.asked["head"] <= 2 else Judgement.INCONCLUSIVE


async def test_a_certificate_ends_if_no_further_reply_can_be_judged() -> None:
    """Else it would ask for ever: the head is undecided there, and stays so."""
    with anyio.fail_after(60):
        report = await measure(Fickle(last_seed=1001))
    assert not report.certified
    assert any("too few replies could be judged" in note for note in report.notes)
