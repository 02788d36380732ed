"""What the answers say about the threshold: a posterior over length, slope and lapse.

The pass rate is modelled as ``(1 - lapse) / (1 + odds * (n / t) ** slope)``, a logistic
curve in log length, where *t* is the length at which the rate has fallen to the rule's ratio
of what it is at short length (the usual psychometric function; see Kingdom and Prins,
*Psychophysics*, ch. 4). It is evaluated on a grid: steep slopes stand for a cliff, shallow
ones for slow forgetting, and lapses for misses that have nothing to do with length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import exp, log

from lmstrix.models import Interval, Observation
from lmstrix.problem import SearchProblem

__all__ = ["LEVEL", "threshold_interval"]

LEVEL = 0.9
"""Confidence level of the interval."""

_POINTS = 240
_SLOPES = (3.0, 6.0, 12.0, 24.0, 48.0, 96.0, 400.0)
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
    data = [o for o in history if o.trials or o.failure is not None]
    if not data:
        return Interval(low=fallback, high=None, level=LEVEL)
    grid = _grid(problem)
    weights = _normalised([_log_likelihood(problem, data, t) for t in grid])
    low = _quantile(grid, weights, (1 - LEVEL) / 2)
    high = _quantile(grid, weights, (1 + LEVEL) / 2)
    return Interval(
        low=round(min(low, problem.ceiling)),
        high=None if high > problem.ceiling else round(high),
        level=LEVEL,
    )


def _grid(problem: SearchProblem) -> list[float]:
    """Candidate thresholds, log-spaced; the last one stands for "beyond the ceiling"."""
    floor, ceiling = float(problem.floor), float(problem.ceiling)
    if ceiling <= floor:
        return [floor, ceiling * 2]
    step = log(ceiling / floor) / (_POINTS - 1)
    return [floor * exp(step * i) for i in range(_POINTS)] + [ceiling * 2]


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


def _normalised(logs: list[float]) -> list[float]:
    top = max(logs)
    weights = [exp(value - top) for value in logs]
    total = sum(weights)
    return [weight / total for weight in weights]


def _quantile(grid: list[float], weights: list[float], level: float) -> float:
    seen = 0.0
    for value, weight in zip(grid, weights, strict=True):
        seen += weight
        if seen >= level:
            return value
    return grid[-1]
