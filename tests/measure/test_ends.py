"""How measurements end that have no easy end: each with what is true, and a name for it."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import anyio
import attrs
import pytest
from simulations import Failing, Judging, ends, measure, only, up_to

from lmstrix import BenchOptions, Cause, MeasureOptions, RetryPolicy
from lmstrix.errors import (
    ConfigurationError,
    ContextOverflow,
    EngineCrashed,
    LMStrixError,
    PredictionError,
)
from lmstrix.events import Event, TrialFinished
from lmstrix.measure.options import MapOptions
from lmstrix.models import ContextReport, Judgement, Observation, Prompt, Question, Region, Reply
from lmstrix.ports import Validator
from lmstrix.problem import Ask, CostModel, Done, SearchProblem
from lmstrix.reports.words import dump_report
from lmstrix.search.gallop import Gallop
from lmstrix.serialize import load_report
from lmstrix.testing.simulated import (
    REFUSAL,
    Beyond,
    SimulatedAdapter,
    SimulatedModel,
    prompt_tokens,
)
from lmstrix.validators.coherence import Coherence

MODEL = SimulatedModel(key="m", declared=8192, true_context=10**6)
ODD = PredictionError("something odd happened")


async def test_a_template_that_leaves_no_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def wordy(prompt: Prompt) -> list[str]:
        return [*["<s>"] * 600, *prompt_tokens(prompt)]

    monkeypatch.setattr("lmstrix.testing.simulated.prompt_tokens", wordy)
    report = await measure(MODEL, strategy="gallop", levels=())
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)
    assert report.notes == (
        "at 512 tokens nothing can be asked: a question does not fit in 496 tokens",
    )


@pytest.mark.parametrize("options", [MeasureOptions(max_context=511), MeasureOptions(only_at=511)])
async def test_a_length_too_short_to_ask_anything_is_no_limit(options: MeasureOptions) -> None:
    adapter = SimulatedAdapter(MODEL)
    with pytest.raises(ConfigurationError, match="511 tokens are too few"):
        await measure(adapter, options)
    assert adapter.counters.loads == 0


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *((MeasureOptions, "seed", value) for value in (1.5, True, 2**63)),
        *((MeasureOptions, "max_context", value) for value in (math.nan, 1800.5, "8k")),
        *((MeasureOptions, "budget_s", value) for value in ("10m", math.inf)),
        *((MeasureOptions, "documents", 2.5), (MeasureOptions, "average", 1)),
        *((MapOptions, "max_context", 100), (MapOptions, "lengths", 1), (MapOptions, "trials", 0)),
        *((MapOptions, "ratio", value) for value in (0.0, 1.5)),
        *((kind, "retry", 3) for kind in (MeasureOptions, MapOptions, BenchOptions)),
        *((RetryPolicy, "attempts", 0), (RetryPolicy, "first_wait_s", -1)),
    ],
)
def test_a_value_of_another_kind_or_out_of_range_is_refused(
    kind: Any, name: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=f"a map|a wait|one attempt|{name}"):
        kind(**{name: value})


async def test_a_pass_rate_that_it_misses_when_short_is_no_limit() -> None:
    lapsing = attrs.evolve(MODEL, lapses=0.4)
    report = await measure(lapsing, MeasureOptions(ratio=0.99, absolute=True), seed=2)
    assert 0.5 <= report.baseline.rate < 0.9
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)


class Careful(Gallop):
    """Asks one thing more where it does not know what that costs."""

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        step = super().next_step(problem, history)
        more = isinstance(step, Done) and problem.costs == CostModel()
        return Ask(length_tokens=1024, trials=1) if more else step


async def test_without_a_budget_none_is_spent() -> None:
    report = await measure(MODEL, strategy=Careful(), levels=())
    assert (report.true_context, report.cause) == (8192, Cause.DECLARED_MAXIMUM)


LIMITS = dict(
    enumerate([10**6, 10**6, 6600, 5600, 4400, 3400, 2600, 2000], start=1000),
)
"""Of a task with another limit on each document: each certificate's is lower than the last."""


async def test_after_the_last_certificate_the_search_goes_on_to_an_answer() -> None:
    """It moved the bracket too: what is reported is as narrow as any other."""
    downhill = Judging(lambda _, seed, length: up_to(LIMITS[seed], length))
    report = await measure(MODEL, validator=downhill, levels=())
    low, high = ends(report)
    assert not report.certified
    assert "6 results were not confirmed" in " ".join(report.notes)
    assert low <= 2000 < high <= low + 256


async def test_an_answer_that_a_certificate_confirmed_needs_no_further_text() -> None:
    """The first certificate confirms 3,968, but not that more fails; the second one shows that."""
    limits = {1000: 10**6, 1001: 4000, 1002: 6000, 1003: 3990}
    texts = Judging(lambda _, seed, length: up_to(limits.get(seed, 2000), length))
    report = await measure(MODEL, validator=texts, levels=())
    assert (report.true_context, report.certified) == (3968, True)


# Replies that can be judged neither way: they are no fails, no passes, and hide no number.

SHORT_TRUTH = 1300
SHORT = attrs.evolve(MODEL, true_context=SHORT_TRUTH, beyond=Beyond.FORGETS_ALL)


def mute(*, every: int = 1, silent_from: int = 0, last_seed: int = 10**6) -> Judging:
    """Recall up to `SHORT_TRUTH` tokens, but most replies say nothing: only every `every`-th one
    from `silent_from` tokens on, none at all on documents after `last_seed`.
    """
    asked = Counter[str]()

    def judged(question: Question, seed: int, length: int) -> Judgement:
        asked[question.kind] += 1
        silent = length > silent_from and asked[question.kind] % every
        if silent or seed > last_seed:
            return Judgement.INCONCLUSIVE
        return up_to(SHORT_TRUTH, length)

    return Judging(judged, "mute")


async def measure_mute(validator: Validator) -> ContextReport:
    return await measure(SHORT, validator=validator, levels=())


async def test_where_most_replies_say_nothing_the_others_do_not_stand_for_them() -> None:
    """Two of three at each length say nothing, and none did at short length."""
    report = await measure_mute(mute(every=3, silent_from=600))
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert "few replies could be judged" in " ".join(report.notes)


@pytest.mark.parametrize("seed", [1, 2, 4])
async def test_a_model_that_often_declines_has_a_number(seed: int) -> None:
    """One reply in ten, at any length."""
    replies = Random(seed)

    def judged(_: Question, __: int, length: int) -> Judgement:
        if replies.random() < 0.1:
            return Judgement.INCONCLUSIVE
        return up_to(SHORT_TRUTH, length)

    report = await measure_mute(Judging(judged))
    assert report.true_context == 1280


@pytest.mark.parametrize("reuses", [True, False])
@pytest.mark.parametrize("band", [(0.36, 0.62), (0.0, 0.08)])
async def test_a_region_is_not_judged_by_what_survives_in_it(
    monkeypatch: pytest.MonkeyPatch, band: tuple[float, float], *, reuses: bool
) -> None:
    """Refuses to answer if a fact is lost."""
    monkeypatch.setattr("lmstrix.testing.simulated.FORGOTTEN", REFUSAL)
    model = SimulatedModel(
        key="m", declared=16_384, true_context=4096, band=band, reuses_prefixes=reuses
    )
    report = await measure(model, levels=())
    assert report.baseline.passes == report.baseline.trials > 0
    assert any(point.inconclusive for point in report.curve)
    assert not report.certified
    assert (report.true_context or 0) <= 4096 * 17 / 16


async def test_a_level_asks_its_other_questions_too() -> None:
    levels = [mute(every=4, silent_from=600)]
    report = await measure(SHORT, strategy="gallop", levels=levels)
    level = next(level for level in report.levels if level.name == "mute")
    assert level.bracket[0] == report.true_context == 1280
    assert level.bracket[1] is not None
    assert level.cause is Cause.FORGETS


async def test_no_number_is_told_but_what_is_known() -> None:
    report = await measure_mute(mute(every=10**6, silent_from=1000))
    (note,) = report.notes
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert note.startswith("at 1,024 tokens too few replies could be judged; at ")
    right = max(p.length_tokens for p in report.curve if p.passes)
    assert re.search(rf"at {right:,} tokens (\d+) of \1 were right", note)
    assert max(point.length_tokens for point in report.curve) <= 1536


async def test_a_certificate_needs_replies_that_can_be_judged() -> None:
    report = await measure_mute(mute(last_seed=1001))
    assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    assert any("at 1,280 tokens too few replies" in note for note in report.notes)


async def test_what_never_writes_language_is_not_measurable() -> None:
    salad = SimulatedModel(true_context=0, beyond=Beyond.WORD_SALAD)
    report = await measure(salad, validator="coherence", levels=())
    assert (report.true_context, report.cause) == (None, Cause.NOT_MEASURABLE)
    assert report.baseline.passes < 0.1 * report.baseline.trials


class Comparing(Coherence):
    """Remembers the kind of each question, and the short reply that its own was compared with."""

    pairs: list[tuple[str, str]] = []  # noqa: RUF012 - of one test

    def compare(self, question: Question, reply: Reply, own: str) -> Judgement:
        self.pairs.append((question.kind, own))
        return super().compare(question, reply, own)


async def test_a_reply_is_compared_with_one_to_the_same_request() -> None:
    Comparing.pairs.clear()
    heard: list[Event] = []
    report = await measure(
        SHORT,
        MeasureOptions(max_context=2048),
        strategy="gallop",
        validator=Comparing(),
        levels=(),
        observers=[heard.append],
    )
    assert report.true_context == 2048
    trials = [event.trial for event in only(TrialFinished, heard)]
    kinds = {trial.reply: trial.kind for trial in trials if trial.phase == "baseline"}
    assert len({kind for kind, _ in Comparing.pairs}) == 4
    assert [kinds[own] for _, own in Comparing.pairs] == [kind for kind, _ in Comparing.pairs]


async def test_a_certificate_ends_if_no_further_reply_can_be_judged() -> None:
    """Two answers about the head are wrong on its document, and all further ones declined: else
    it would ask for ever, as the head is undecided there.
    """
    asked = 0

    def judged(question: Question, seed: int, length: int) -> Judgement:
        nonlocal asked
        if question.region is not Region.HEAD or seed <= 1001:
            return up_to(SHORT_TRUTH, length)
        asked += 1
        return Judgement.WRONG if asked <= 2 else Judgement.INCONCLUSIVE

    with anyio.fail_after(60):
        report = await measure_mute(Judging(judged))
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
    model = attrs.evolve(MODEL, true_context=4000, beyond=beyond)
    report = await measure(Failing(model, error, lambda e, n: e.counters.loads > 1 and n > 3700))
    assert (report.cause, report.certified) == (cause, True)
    assert any("engine failed" in note for note in report.notes)
    assert {region.cause for region in report.regions} == {cause}
    assert load_report(dump_report(report)) == report
    low, high = ends(report)
    assert low <= 3716 < high


async def test_a_model_that_declares_nothing_is_tried_as_far_as_asked() -> None:
    options = MeasureOptions(max_context=140_000, quick=True)
    report = await measure(attrs.evolve(MODEL, declared=None), options, levels=())
    assert (report.true_context, report.cause) == (140_000, Cause.MAX_CONTEXT)


@pytest.mark.parametrize("seed", range(3))
async def test_a_length_at_which_coherence_fails_is_no_limit_of_a_region(seed: int) -> None:
    model = attrs.evolve(MODEL, coherent_context=4000, lapses=0.05)
    report = await measure(model, MeasureOptions(seed=seed), seed=seed)
    assert report.cause is Cause.GIBBERISH
    assert Cause.FORGETS not in {region.cause for region in report.regions}


async def test_an_error_of_the_engine_that_comes_with_a_length_is_its_limit() -> None:
    """As "Compute error." by a GPU without memory; in whatever words."""
    report = await measure(Failing(MODEL, ODD, lambda _, tokens: tokens > 3000))
    assert (report.cause, report.certified) == (Cause.CRASHED_ON_FILL, True)
    assert any("something odd happened" in note for note in report.notes)
    low, high = ends(report)
    assert low <= 3016 < high


async def test_an_error_of_the_engine_at_any_length_ends_the_measurement() -> None:
    with pytest.raises(PredictionError, match="odd"):
        await measure(Failing(MODEL, ODD, lambda engine, _: engine.counters.replies > 60))
