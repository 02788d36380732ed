"""The Wilson interval against published values and its own properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.stats import wilson


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


@pytest.mark.parametrize(("passes", "trials"), [(-1, 5), (6, 5), (1, 0)])
def test_impossible_counts_are_refused(passes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="between 0 and trials"):
        wilson(passes, trials)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_it_holds_the_rate_lies_in_the_unit_interval_and_mirrors(counts: tuple[int, int]) -> None:
    passes, trials = counts
    interval, mirror = wilson(passes, trials), wilson(trials - passes, trials)
    assert 0 <= interval.low <= passes / trials <= interval.high <= 1
    assert interval.low < interval.high
    assert interval.low == pytest.approx(1 - mirror.high, abs=1e-12)


@given(st.integers(1, 1000), st.floats(0.1, 4.0))
def test_more_confidence_is_wider(trials: int, z: float) -> None:
    narrow, wide = wilson(trials // 2, trials, z), wilson(trials // 2, trials, z * 1.5)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high
