"""What the answers say about the threshold: a posterior over length, slope and lapse.

The pass rate is modelled as ``(1 - lapse) / (1 + odds * (n / t) ** slope)``, a logistic
curve in log length, where *t* is the length at which the rate has fallen to the rule's ratio
of what it is at short length (the usual psychometric function; see Kingdom and Prins,
*Psychophysics*, ch. 4). It is evaluated on a grid: steep slopes stand for a cliff, shallow
ones for slow forgetting, and lapses for misses that have nothing to do with length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import exp, log, sqrt

from lmstrix.models import Interval, Observation
from lmstrix.problem import SearchProblem

__all__ = ["LEVEL", "threshold_interval"]

LEVEL = 0.9
"""Confidence level of the interval."""

_CELLS_PER_GAP = 10
"""Cells between two lengths that were tried: where a cliff lies between them is not known, so
the grid must be finer than the bracket, whatever the bracket's width is."""

_BEYOND = 4.0
"""Prior room above the ceiling, as a factor: thresholds there are censored."""

_SLOPES = (3.0, 6.0, 12.0, 24.0, 48.0, 96.0, 400.0, 1600.0, 6400.0)
"""The steepest falls from all to nothing within half a percent of the length: a cliff."""

_LAPSES = (0.002, 0.02, 0.05, 0.1, 0.2)
_HARD_FAILURE_TRIALS = 10
"""A crash, an overflow or a broken certificate weighs like this many wrong answers."""


def threshold_interval(
    problem: SearchProblem, history: Sequence[Observation], *, fallback: int
) -> Interval:
    """The central interval for the threshold, in tokens, at `LEVEL`.

    Its upper end is None where the evidence does not exclude the ceiling: nothing above it
    was or could be tried. With no history the interval is [`fallback`, None].
    """
    # Sorted: a sum's last digits depend on its order.
    ascending = sorted(history, key=lambda o: o.length_tokens)
    data = [o for o in ascending if o.trials or o.failure is not None]
    if not data:
        return Interval(low=fallback, high=None, level=LEVEL)
    cells = _cells(problem, data)
    logs = [_log_likelihood(problem, data, sqrt(low * high)) for low, high in cells]
    top = max(logs)
    # The prior is uniform in log length: a cell weighs as much as it is wide.
    weights = [
        exp(value - top) * log(high / low) for value, (low, high) in zip(logs, cells, strict=True)
    ]
    low = _quantile(cells, weights, (1 - LEVEL) / 2)
    high = _quantile(cells, weights, (1 + LEVEL) / 2)
    return Interval(
        low=round(min(low, problem.ceiling)),
        high=None if high > problem.ceiling else round(high),
        level=LEVEL,
    )


def _cells(problem: SearchProblem, data: Sequence[Observation]) -> list[tuple[float, float]]:
    """Cells of candidate thresholds, from the floor over every length tried to the ceiling,
    and one for all that lies beyond.
    """
    floor, ceiling = float(problem.floor), float(max(problem.ceiling, problem.floor))
    tried = {float(o.length_tokens) for o in data}
    ends = sorted({floor, ceiling} | {n for n in tried if floor < n < ceiling})
    cells = [(ceiling, ceiling * _BEYOND)]
    for low, high in pairwise(ends):
        step = (high / low) ** (1 / _CELLS_PER_GAP)
        cells += [(low * step**i, low * step ** (i + 1)) for i in range(_CELLS_PER_GAP)]
    return sorted(cells)


def _log_likelihood(problem: SearchProblem, data: Sequence[Observation], t: float) -> float:
    """Log of the likelihood of `data` given threshold `t`, slope and lapse averaged out."""
    odds = 1 / problem.rule.ratio - 1
    terms = [
        _binomial(problem, data, t, odds, slope, lapse) for slope in _SLOPES for lapse in _LAPSES
    ]
    top = max(terms)
    return top + log(sum(exp(term - top) for term in terms))


def _binomial(
    problem: SearchProblem,
    data: Sequence[Observation],
    t: float,
    odds: float,
    slope: float,
    lapse: float,
) -> float:
    baseline = problem.baseline
    total = _counts(1 - lapse, baseline.passes, baseline.trials)
    for o in data:
        exponent = min(60.0, max(-60.0, slope * log(o.length_tokens / t)))
        rate = (1 - lapse) / (1 + odds * exp(exponent))
        for passes, trials in _evidence(o):
            total += _counts(rate, passes, trials)
    return total


def _evidence(observation: Observation) -> Iterator[tuple[int, int]]:
    if observation.trials:
        yield observation.passes, observation.trials
    if observation.failure is not None:
        yield 0, _HARD_FAILURE_TRIALS


def _counts(rate: float, passes: int, trials: int) -> float:
    rate = min(1 - 1e-9, max(1e-9, rate))
    return passes * log(rate) + (trials - passes) * log(1 - rate)


def _quantile(cells: list[tuple[float, float]], weights: list[float], level: float) -> float:
    """The threshold below which `level` of the weight lies, interpolated within its cell."""
    wanted = level * sum(weights)
    for (low, high), weight in zip(cells, weights, strict=True):
        if wanted <= weight:
            return low * (high / low) ** (wanted / weight)
        wanted -= weight
    return cells[-1][1]
