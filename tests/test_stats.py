"""Statistics against published values and their own properties."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.stats import fisher_tail, isotonic_fall, wilson


@pytest.mark.parametrize(
    ("passes", "trials", "low", "high"),
    [
        # R. G. Newcombe, "Two-sided confidence intervals for the single proportion",
        # Statistics in Medicine 17 (1998), table I, method 3 (score, no correction).
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(passes: int, trials: int, low: float, high: float) -> None:
    interval = wilson(passes, trials)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_without_trials_nothing_is_known() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_it_holds_the_rate_lies_in_the_unit_interval_and_mirrors(counts: tuple[int, int]) -> None:
    passes, trials = counts
    interval, mirror = wilson(passes, trials), wilson(trials - passes, trials)
    assert 0 <= interval.low <= passes / trials <= interval.high <= 1
    assert interval.low < interval.high
    assert interval.low == pytest.approx(1 - mirror.high, abs=1e-12)


def test_fishers_test_is_the_tea_tasting() -> None:
    """R. A. Fisher, *The Design of Experiments*: four cups of eight, three or more of them told
    right, is 17 of 70; all of them, 1 of 70.
    """
    assert 1 - fisher_tail(2, 4, 4, 8) == pytest.approx(17 / 70)
    assert fisher_tail(0, 4, 4, 8) == pytest.approx(1 / 70)


@given(st.data())
def test_fishers_tail_grows_to_one(data: st.DataObject) -> None:
    whole = data.draw(st.integers(1, 40))
    passes, part = data.draw(st.integers(0, whole)), data.draw(st.integers(0, whole))
    fewest, most = max(0, part - (whole - passes)), min(part, passes)
    tails = [fisher_tail(k, part, passes, whole) for k in range(fewest, most + 1)]
    assert tails == sorted(tails)
    assert tails[-1] == pytest.approx(1.0)


def test_the_isotonic_fit_is_the_published_one() -> None:
    """The example of R's `isoreg`, which rises: mirrored."""
    values = [1.0, 0, 4, 3, 3, 5, 4, 2, 0]
    fit = isotonic_fall([-v for v in values], [1] * 9)
    assert [-v for v in fit] == pytest.approx([0.5, 0.5, 3, 3, 3, 3, 3, 3, 3])


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50)), max_size=30))
def test_the_isotonic_fit_falls_and_keeps_the_mean(points: list[tuple[float, int]]) -> None:
    rates, weights = [r for r, _ in points], [float(w) for _, w in points]
    fit = isotonic_fall(rates, weights)
    assert all(a >= b - 1e-12 for a, b in pairwise(fit))
    total = sum(r * w for r, w in zip(rates, weights, strict=True))
    assert sum(f * w for f, w in zip(fit, weights, strict=True)) == pytest.approx(total)
    assert isotonic_fall(fit, weights) == pytest.approx(fit)
