"""When a length passes, when it fails, and how many trials that takes."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest

from lmstrix.models import Baseline, Cause, Observation, Verdict
from lmstrix.problem import PassRule, SearchProblem

PERFECT = Baseline(passes=10, trials=10, length_tokens=512)
RULE = PassRule()
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


def test_a_dead_engine_fails_whatever_passed_before() -> None:
    dead = at(20, 20, Cause.CRASHED_ON_FILL)
    assert RULE.verdict(dead, PERFECT) is F
    assert RULE.refutes(dead, PERFECT)


def test_a_weaker_baseline_asks_for_less() -> None:
    weak = Baseline(passes=6, trials=10)
    assert RULE.threshold(weak) == pytest.approx(0.51)
    assert RULE.verdict(at(6, 10), weak) is P
    assert RULE.verdict(at(6, 10), PERFECT) is F
    assert RULE.verdict(at(2, 10), weak) is F


def test_a_baseline_without_trials_has_no_rate() -> None:
    assert Baseline(passes=0, trials=0).rate == 0.0


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


def test_nothing_refutes_without_trials() -> None:
    assert not RULE.refutes(at(0, 0), PERFECT)


def test_more_passes_are_never_worse() -> None:
    rank = {F: 0, U: 1, P: 2}
    for baseline in (PERFECT, Baseline(passes=6, trials=10)):
        for trials in range(26):
            ranks = [rank[RULE.verdict(at(k, trials), baseline)] for k in range(trials + 1)]
            assert ranks == sorted(ranks)


def test_the_last_stage_decides() -> None:
    for trials in range(RULE.most, RULE.most + 5):
        assert U not in {RULE.verdict(at(k, trials), PERFECT) for k in range(trials + 1)}


@pytest.mark.parametrize(
    ("trials", "wanted"), [(0, 4), (3, 1), (4, 6), (9, 1), (10, 10), (19, 1), (20, 0), (25, 0)]
)
def test_trials_to_the_next_stage(trials: int, wanted: int) -> None:
    assert RULE.wanted(at(0, trials)) == wanted


def test_an_undecided_length_always_wants_more() -> None:
    for trials in range(RULE.most + 3):
        for passes in range(trials + 1):
            seen = at(passes, trials)
            assert RULE.verdict(seen, PERFECT) is not U or RULE.wanted(seen) > 0


@pytest.mark.parametrize(
    ("low", "high", "tight"),
    [(512, 768, True), (512, 769, False), (32768, 33280, True), (32768, 33281, False)],
)
def test_tight_is_a_granule_or_a_share_of_the_answer(low: int, high: int, *, tight: bool) -> None:
    problem = SearchProblem(floor=512, ceiling=65536, baseline=PERFECT, rule=RULE)
    assert problem.is_tight(low, high) is tight
