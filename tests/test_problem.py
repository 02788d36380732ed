"""When a length passes, how many trials that takes, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import comb
from random import Random
from typing import Any

import attrs
import pytest

from lmstrix.models import Baseline, Cause, DepthTally, Observation, Region, Trial, Verdict
from lmstrix.problem import (
    Ask,
    CostModel,
    PassRule,
    Reuse,
    SearchProblem,
    learn_costs,
    missing_at,
    spread,
)
from lmstrix.testing.samples import sample_trial

PERFECT = Baseline(passes=10, trials=10, length_tokens=512)
RULE = PassRule()
PROBLEM = SearchProblem(floor=512, ceiling=8192, baseline=PERFECT, rule=RULE)
P, F, U = Verdict.PASS, Verdict.FAIL, Verdict.UNDECIDED


def at(passes: int, trials: int, failure: Cause | None = None) -> Observation:
    return Observation(length_tokens=4096, passes=passes, trials=trials, failure=failure)


@pytest.mark.parametrize(
    ("passes", "trials", "verdict"),
    [
        *[(0, 0, U), (1, 1, U), (3, 3, U), (0, 3, U)],
        *[(4, 4, P), (3, 4, U), (2, 4, U), (1, 4, F), (0, 4, F)],
        *[(7, 7, P), (6, 7, U), (9, 9, P)],
        *[(10, 10, P), (9, 10, P), (8, 10, U), (7, 10, U), (6, 10, F)],
        *[(14, 16, P), (13, 16, U)],
        *[(20, 20, P), (17, 20, P), (16, 20, F), (0, 20, F)],
        *[(26, 30, P), (25, 30, F)],
    ],
)
def test_verdicts_on_a_perfect_baseline(passes: int, trials: int, verdict: Verdict) -> None:
    assert RULE.verdict(at(passes, trials), PERFECT) is verdict


@pytest.mark.parametrize(
    ("lost_facts", "verdicts"), [(1, [U, U, P]), (0, [F, F, F]), (2, [F, F, F]), (None, [F, F, F])]
)
def test_one_lost_fact_does_not_fail_a_length_at_which_little_else_was_asked(
    lost_facts: int | None, verdicts: list[Verdict]
) -> None:
    """A text may hold a fact that the model answers wrong at every length."""
    rule = PassRule(regions=(Region.HEAD,))
    for (passes, trials), verdict in zip([(1, 4), (6, 10), (14, 20)], verdicts, strict=True):
        tally = DepthTally(region=Region.HEAD, passes=passes, trials=trials, lost_facts=lost_facts)
        seen = attrs.evolve(at(passes, trials), regions=(tally,))
        assert rule.verdict(seen, PERFECT) is verdict


def test_a_weaker_baseline_asks_for_less_but_a_dead_engine_always_fails() -> None:
    weak = Baseline(passes=6, trials=10)
    assert RULE.threshold(weak) == pytest.approx(0.51)
    assert RULE.verdict(at(6, 10), weak) is P
    assert RULE.verdict(at(6, 10), PERFECT) is F
    assert RULE.verdict(at(2, 10), weak) is F
    dead = at(20, 20, Cause.CRASHED_ON_FILL)
    assert RULE.verdict(dead, PERFECT) is F
    assert RULE.refutes(dead, PERFECT)


def exact_tail(passes: int, trials: int, rate: Fraction) -> Fraction:
    terms = (comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(passes + 1))
    return sum(terms, Fraction(0))


@pytest.mark.parametrize("baseline_passes", [5, 7, 9, 10])
def test_refuting_is_the_exact_binomial_test(baseline_passes: int) -> None:
    baseline = Baseline(passes=baseline_passes, trials=10)
    rate = Fraction(85, 100) * Fraction(baseline_passes, 10)
    for trials in range(25):
        for passes in range(trials + 1):
            expected = exact_tail(passes, trials, rate) < Fraction(1, 10)
            assert RULE.refutes(at(passes, trials), baseline) is expected


def test_more_passes_are_never_worse_and_an_undecided_length_wants_more() -> None:
    rank = {F: 0, U: 1, P: 2}
    for baseline in (PERFECT, Baseline(passes=6, trials=10)):
        for trials in range(26):
            seen = [at(passes, trials) for passes in range(trials + 1)]
            ranks = [rank[RULE.verdict(one, baseline)] for one in seen]
            assert ranks == sorted(ranks)
            assert 1 not in ranks or RULE.wanted(seen[0]) > 0


@pytest.mark.parametrize(
    ("trials", "wanted"), [(0, 4), (3, 1), (4, 6), (9, 1), (10, 10), (19, 1), (20, 0), (25, 0)]
)
def test_trials_to_the_next_stage(trials: int, wanted: int) -> None:
    assert RULE.wanted(at(0, trials)) == wanted


@pytest.mark.parametrize(
    ("low", "widest"), [(512, 576), (2240, 2304), (4096, 4224), (32768, 33280)]
)
def test_tight_is_a_granule_or_a_share_of_the_answer(low: int, widest: int) -> None:
    problem = attrs.evolve(PROBLEM, ceiling=65536)
    assert problem.is_tight(low, widest)
    assert not problem.is_tight(low, widest + 1)


# Regions.

NOWHERE_LOST = PassRule(regions=tuple(Region))


def by_region(*tallies: tuple[int, int], length: int = 4096) -> Observation:
    """Passes and trials of each region, from the head to the tail."""
    found = [
        DepthTally(region=region, passes=passes, trials=trials)
        for region, (passes, trials) in zip(Region, tallies, strict=False)
        if trials
    ]
    return Observation(
        length_tokens=length,
        passes=sum(t.passes for t in found),
        trials=sum(t.trials for t in found),
        regions=tuple(found),
    )


SOUND = (4, 4)


@pytest.mark.parametrize(
    ("tallies", "lost", "clearly"),
    [
        # Three of four are right in the middle: it fails with the rest.
        ([(0, 4), (6, 9), (3, 4), SOUND, SOUND], list(Region)[:3], [Region.HEAD]),
        # No region's answers tell by themselves, but those of all do.
        ([(7, 10)] * 5, list(Region), list(Region)),
        ([(0, 1)] * 5, list(Region), list(Region)),
        ([SOUND] * 5, [], []),
    ],
)
def test_a_region_that_fails_with_the_rest_is_not_clearly_lost(
    tallies: list[tuple[int, int]], lost: list[Region], clearly: list[Region]
) -> None:
    seen = by_region(*tallies)
    assert NOWHERE_LOST.lost(seen, PERFECT) == {*lost}
    assert NOWHERE_LOST.clearly_lost(seen, PERFECT) == {*clearly}


@pytest.mark.parametrize(
    ("tallies", "weak"),
    [
        ([SOUND] * 5, []),
        ([SOUND, (9, 10), SOUND, (8, 10), SOUND], [Region.EARLY, Region.LATE]),
        ([SOUND, (13, 14), SOUND, SOUND, SOUND], []),  # near enough to the baseline
    ],
)
def test_weak_regions_are_nearer_to_failing_than_to_the_baseline(
    tallies: Sequence[tuple[int, int]], weak: list[Region]
) -> None:
    baseline = Baseline(passes=12, trials=12)
    assert NOWHERE_LOST.weak(by_region(*tallies), baseline) == weak
    assert not PassRule().weak(by_region(*tallies), baseline)


@pytest.mark.parametrize(
    ("tallies", "verdict"),
    [
        ([SOUND] * 5, P),
        ([SOUND] * 4, U),  # nothing is known about the tail
        ([SOUND, SOUND, (3, 3), SOUND, SOUND], U),
        # A region that differs goes by its own answers,
        ([(0, 4), SOUND, SOUND, SOUND, SOUND], F),
        ([(1, 4), SOUND, SOUND, SOUND, SOUND], F),  # which the average hides: 17 of 20
        ([(2, 6), (6, 6), (6, 6), (6, 6), (6, 6)], F),
        ([(2, 4), (8, 8), (8, 8), (8, 8), (8, 8)], U),
        ([(17, 20), (20, 20), (20, 20), (20, 20), (20, 20)], P),
        # and any other by all of them together.
        ([(3, 4), SOUND, SOUND, SOUND, SOUND], P),
        ([(3, 4), (3, 4), SOUND, SOUND, SOUND], P),
        ([(3, 4)] * 5, F),
        ([(0, 2), (0, 1), (0, 1), (0, 1), (0, 1)], F),
    ],
)
def test_every_region_has_to_pass(tallies: Sequence[tuple[int, int]], verdict: Verdict) -> None:
    assert NOWHERE_LOST.verdict(by_region(*tallies), PERFECT) is verdict


def test_only_a_region_that_is_open_wants_more() -> None:
    seen = by_region((2, 4), (8, 8), (8, 8), (8, 8), (8, 8))
    wanted = {r: NOWHERE_LOST.wanted_in(r, seen, PERFECT) for r in Region}
    assert wanted == dict.fromkeys(Region, 0) | {Region.HEAD: 6}
    seen = by_region((2, 2))
    assert set(NOWHERE_LOST.region_verdicts(seen, PERFECT)) == {Region.HEAD}
    assert NOWHERE_LOST.wanted_in(Region.HEAD, seen, PERFECT) == 2
    assert NOWHERE_LOST.wanted_in(Region.TAIL, seen, PERFECT) == 4


def test_what_a_verdict_lacks_is_asked_about_one_region_at_a_time() -> None:
    problem = attrs.evolve(PROBLEM, rule=NOWHERE_LOST)
    first = missing_at(problem, 4096, None, order=[Region.TAIL, Region.HEAD])
    assert first == Ask(length_tokens=4096, trials=4, region=Region.TAIL)
    assert missing_at(problem, 4096, by_region(*[SOUND] * 5)) is None
    assert missing_at(problem, 4096, by_region((0, 4))) is None  # it has failed
    dead = attrs.evolve(by_region(SOUND), failure=Cause.CRASHED_ON_FILL)
    assert missing_at(problem, 4096, dead) is None


def test_several_facts_in_a_request_go_to_all_regions_and_fill_it() -> None:
    rule, costs = attrs.evolve(NOWHERE_LOST, first=1), CostModel(facts=8, reuse=Reuse.NONE)
    problem = attrs.evolve(PROBLEM, rule=rule, costs=costs)
    assert missing_at(problem, 4096, None) == Ask(length_tokens=4096, trials=8)


def test_questions_without_a_region_go_where_the_fewest_were_asked() -> None:
    history = [by_region((1, 1), (0, 0), (1, 1), length=2048), by_region((1, 1), length=4096)]
    order = spread(tuple(Region), history, 4096, 5)
    assert order == [Region.TAIL, Region.EARLY, Region.LATE, Region.MIDDLE, Region.TAIL]
    assert spread((), history, 4096, 2) == [None, None]


# Costs.

BASELINE = Baseline(passes=12, trials=12, length_tokens=512)
QUESTION = 9
PREFIX = CostModel(probe=0.0, question_tokens=10.0, generated_tokens=2.0, generated_token=5.0)


def engine(
    probes: Sequence[tuple[int, int]],
    reuse: Reuse = Reuse.PREFIX,
    *,
    seconds: float = 0.001,
    attention: float | None = None,
    noise: float = 0.0,
    counts: bool = True,
) -> list[Trial]:
    """The trials of an engine: (length, how many questions), one document."""
    rng = Random(1)
    held = 0
    ends: list[int] = []
    trials: list[Trial] = []
    for length, asked in probes:
        for index in range(asked):
            body = length - QUESTION
            cached = min(held, body)
            if reuse is Reuse.NONE:
                cached = 0
            elif reuse is Reuse.CHECKPOINTS and held > body:
                cached = max((end for end in ends if end <= body), default=0)
            quadratic = 0.0 if attention is None else (length**2 - cached**2) / attention
            took = (length - cached + quadratic) * seconds * rng.uniform(1 - noise, 1 + noise)
            speed = 100 * rng.uniform(1 - noise, 1 + noise)
            trials.append(
                sample_trial(
                    **dict.fromkeys(("length_tokens", "prompt_tokens"), length),
                    index=index,
                    cached_tokens=cached if counts else None,
                    generated_tokens=4,
                    ttft_s=took,
                    tokens_per_second=speed,
                )
            )
            held = body
            ends = [end for end in ends if end < body] + [body]
    return trials


CLIMB = [(512, 4), (1024, 4), (2048, 4), (4096, 4), (8192, 4), (6144, 4), (7168, 4)]


@pytest.mark.parametrize("reuse", Reuse)
def test_reuse_is_told_from_the_engines_own_counts(reuse: Reuse) -> None:
    assert learn_costs(engine(CLIMB, reuse)).reuse is reuse


@pytest.mark.parametrize("reuse", [Reuse.PREFIX, Reuse.NONE])
def test_where_nothing_is_counted_times_tell(reuse: Reuse) -> None:
    learnt = learn_costs(engine(CLIMB, reuse, counts=False, noise=0.05))
    assert learnt.reuse is reuse
    assert learnt.seconds_per_token == pytest.approx(0.001, rel=0.25)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_speed_and_attention_are_learnt_to_an_octave(noise: float) -> None:
    learnt = learn_costs(engine(CLIMB, attention=16384.0, noise=noise))
    assert learnt.seconds_per_token == pytest.approx(0.001, rel=0.25)
    assert learnt.attention_tokens is not None
    assert 8192 <= learnt.attention_tokens <= 32768
    assert 4 <= learnt.generated_token <= 16


@pytest.mark.parametrize(
    ("budget", "affordable"),
    [
        *(({"remaining_tokens": n}, m) for n, m in [(None, 4), (1048, 4), (1047, 3), (1012, 1)]),
        *(({"remaining_tokens": n}, 0) for n in (1011, 0)),
        *(({"remaining_s": s}, m) for s, m in [(2.0, 4), (1.05, 2), (1.0, 0)]),
    ],
)
def test_a_budget_pays_for_so_many_trials(budget: dict[str, Any], affordable: int) -> None:
    costs = attrs.evolve(PREFIX, seconds_per_token=0.001)
    problem = attrs.evolve(PROBLEM, baseline=BASELINE, costs=costs, cached_tokens=2000, **budget)
    assert problem.affordable(3000, 4) == affordable


def test_replies_that_cannot_be_judged_count_if_there_are_more_than_at_short_length() -> None:
    """And more than chance gives."""
    tally = DepthTally(region=Region.HEAD, passes=4, trials=4, inconclusive=2)
    never = Baseline(passes=30, trials=30)
    often = Baseline(passes=27, trials=27, inconclusive=3)
    assert PassRule().hides(tally, never)
    assert not PassRule().hides(tally, often)
    assert PassRule().hides(attrs.evolve(tally, inconclusive=6), often)
