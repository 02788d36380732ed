"""Statistics used by verdicts and reports; each with its source."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb, sqrt

import attrs

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


@attrs.frozen(kw_only=True)
class Proportion:
    """Lower and upper end of an interval for a proportion (Wilson, 95 %)."""

    low: float
    high: float


def wilson(passes: int, trials: int, z: float = Z_95) -> Proportion:
    """Wilson score interval for `passes` of `trials`.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical
    inference", JASA 22 (1927). With no trial, nothing is known: [0, 1].

    >>> wilson(8, 10)
    Proportion(low=0.4901..., high=0.9433...)
    """
    if not 0 <= passes <= trials:
        raise ValueError(f"passes must lie between 0 and trials, got {passes} of {trials}")
    if trials == 0:
        return Proportion(low=0.0, high=1.0)
    rate = passes / trials
    spread = z * z / trials
    centre = (rate + spread / 2) / (1 + spread)
    half = z * sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    return Proportion(
        low=0.0 if passes == 0 else max(0.0, centre - half),
        high=1.0 if passes == trials else min(1.0, centre + half),
    )


def binomial_tail(passes: int, trials: int, rate: float) -> float:
    """How likely at most `passes` of `trials` are if each passes with probability `rate`.

    The lower tail of the binomial distribution, summed exactly. A sequential decision looks at
    it after every stage of trials: few passes that are unlikely at a passing rate end it.

    >>> round(binomial_tail(6, 10, 0.8), 4)
    0.1209
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"a probability lies between 0 and 1, got {rate}")
    return sum(
        comb(trials, k) * rate**k * (1 - rate) ** (trials - k)
        for k in range(min(passes, trials) + 1)
    )


def isotonic_fall(rates: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The falling sequence that is nearest to `rates`, in weighted least squares.

    Neighbours that rise are pooled to their weighted mean until none does ("pool adjacent
    violators"). Source: M. Ayer, H. D. Brunk, G. M. Ewing, W. T. Reid and E. Silverman, "An
    empirical distribution function for sampling with incomplete information", Annals of
    Mathematical Statistics 26 (1955).

    >>> isotonic_fall([1.0, 0.5, 0.75, 0.0], [1, 1, 1, 1])
    [1.0, 0.625, 0.625, 0.0]
    """
    if len(rates) != len(weights) or any(weight <= 0 for weight in weights):
        raise ValueError("each rate needs a weight of its own, which is positive")
    blocks: list[tuple[float, float, int]] = []  # mean, weight, how many
    for rate, weight in zip(rates, weights, strict=True):
        mean, heavy, many = rate, weight, 1
        while blocks and blocks[-1][0] < mean:
            before, its_weight, its_many = blocks.pop()
            both = its_weight + heavy
            mean = (before * its_weight + mean * heavy) / both
            heavy, many = both, many + its_many
        blocks.append((mean, heavy, many))
    return [mean for mean, _, many in blocks for _ in range(many)]


@lru_cache(maxsize=4096)
def fisher_tail(passes: int, trials: int, all_passes: int, all_trials: int) -> float:
    """How likely at most `passes` of `trials` are, if `all_passes` of `all_trials` fall at random.

    One-sided exact test of a part against the whole that contains it. Source: R. A. Fisher,
    *Statistical Methods for Research Workers*; the lower tail of the hypergeometric distribution.

    >>> round(fisher_tail(1, 3, 17, 20), 4)
    0.0456
    """
    if not 0 <= passes <= trials <= all_trials or not passes <= all_passes <= all_trials:
        raise ValueError("the part must lie within the whole")
    fewest = max(0, trials - (all_trials - all_passes))
    ways = sum(
        comb(all_passes, k) * comb(all_trials - all_passes, trials - k)
        for k in range(fewest, passes + 1)
    )
    return ways / comb(all_trials, trials)
