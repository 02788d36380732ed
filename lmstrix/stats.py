"""Statistics used by verdicts and reports; each with its source."""

from __future__ import annotations

from math import sqrt

from lmstrix.models import Proportion

__all__ = ["Z_95", "wilson"]

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the standard normal distribution."""


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
