"""What the answers say about the threshold: a posterior over length, slope and lapse.

The pass rate is modelled as ``(1 - lapse) / (1 + odds * (n / t) ** slope)``, a logistic
curve in log length, where *t* is the length at which the rate has fallen to the rule's ratio
of what it is at short length (the usual psychometric function; see Kingdom and Prins,
*Psychophysics*, ch. 4). It is evaluated on a grid: steep slopes stand for a cliff, shallow
ones for slow forgetting, and lapses for misses that have nothing to do with length.

The grid is coarse over all lengths first and then fine where the threshold may be. Cells end
at every length that was tried: where a cliff lies between two of them is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import comb, log
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from lmstrix.models import Cause, Interval, Observation, Verdict
from lmstrix.problem import SearchProblem

__all__ = ["LEVEL", "Posterior", "posterior", "threshold_interval"]

Floats: TypeAlias = NDArray[np.float64]

LEVEL = 0.9
"""Confidence level of the interval."""

_BEYOND = 2.0
"""Prior room above the ceiling, as a factor: thresholds there are censored."""

_SLOPES = np.array([2.5, 3.5, 5.0, 7.0, 10.0, 14.0, 20.0, 30.0, 60.0, 200.0, 1000.0, 6000.0])
"""The steepest falls from all to nothing within half a percent of the length: a cliff."""

_SLOPE_PRIOR = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2.0])

_LAPSES = np.array([0.002, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5])
_LAPSE_PRIOR = np.array([2, 2, 2, 1, 0.5, 0.25, 0.12])

_TRUST = 0.93
"""Power of the answers' likelihood. Questions on one document are not quite independent, and a
search that stops when it is sure stops too early a little too often; at 1 the 90 % interval
held 87 % of slowly fading simulated models."""

_COARSE, _FINE = 32, 64
"""Cells of the first grid and of the second, beside those that tried lengths cut."""

_HIGHEST_RATIO = 0.99

_ANSWERS = frozenset({Cause.FORGETS, Cause.GIBBERISH})
"""Failures that answers told of, not the engine."""

_NEGLIGIBLE = 1e-5
"""Share of the largest weight below which a point of the grid is left out."""


@attrs.frozen(kw_only=True, eq=False)
class Posterior:
    """Weighted points (threshold, slope, lapse), by cells of the threshold, ascending."""

    edges: Floats
    """Ends of the cells, in natural logarithms of tokens."""
    mass: Floats
    """Probability of each cell."""
    cell: NDArray[np.intp]
    """For each point, the cell that it lies in."""
    threshold: Floats
    slope: Floats
    lapse: Floats
    weight: Floats
    odds: float

    def coarser(self, share: float) -> Posterior:
        """Without the points that weigh less than `share` of the heaviest."""
        kept = self.weight > share * self.weight.max()
        weight = self.weight[kept] / self.weight[kept].sum()
        return attrs.evolve(
            self,
            cell=self.cell[kept],
            threshold=self.threshold[kept],
            slope=self.slope[kept],
            lapse=self.lapse[kept],
            weight=weight,
        )

    def above(self, length: float) -> float:
        """Probability that the threshold is above `length`."""
        return 1 - float(np.interp(log(length), self.edges, self._cumulative()))

    def quantile(self, level: float) -> float:
        """The logarithm of the threshold below which `level` of the mass lies."""
        return float(np.interp(level, self._cumulative(), self.edges))

    def _cumulative(self) -> Floats:
        cumulative: Floats = np.cumsum(np.append(0.0, self.mass))
        return cumulative / cumulative[-1]

    @property
    def spread(self) -> float:
        """Standard deviation of the threshold's logarithm."""
        middle: Floats = (self.edges[1:] + self.edges[:-1]) / 2
        mean = float(np.sum(self.mass * middle))
        within: Floats = np.diff(self.edges) ** 2 / 12
        return float(np.sqrt(np.sum(self.mass * ((middle - mean) ** 2 + within))))

    def rates(self, lengths: Floats) -> Floats:
        """Pass rates at `lengths` (rows) for each point (columns)."""
        exponent = self.slope * (np.log(lengths)[:, None] - self.threshold)
        return (1 - self.lapse) / (1 + self.odds * np.exp(np.clip(exponent, -60, 60)))

    def information(self, lengths: Floats, trials: int) -> Floats:
        """Expected information on the threshold, in nats, from `trials` more at each length.

        It is the mutual information of the number of passes and the threshold's cell.
        """
        rates = self.rates(lengths)
        starts = np.flatnonzero(np.diff(self.cell, prepend=-1))
        mass = np.add.reduceat(self.weight, starts)
        failed = [self.weight * np.ones_like(rates)]
        for _ in range(trials):
            failed.append(failed[-1] * (1 - rates))
        gain = np.zeros(len(lengths))
        passed = np.ones_like(rates)
        for passes in range(trials + 1):
            likely = comb(trials, passes) * passed * failed[trials - passes]
            joint = np.add.reduceat(likely, starts, axis=1)
            ratio = joint / (joint.sum(axis=1)[:, None] * mass)
            gain += (joint * np.log(np.maximum(ratio, 1e-300))).sum(axis=1)
            passed = passed * rates
        return np.maximum(gain, 0.0)


Tally: TypeAlias = tuple[int, int, int, bool]
"""Length, passes, trials, and whether it fails whatever the answers."""


def posterior(problem: SearchProblem, history: Sequence[Observation]) -> Posterior:
    """The posterior after `history`, whatever its order, and the baseline."""
    # Sorted: a sum's last digits depend on its order.
    tallies = sorted(
        (o.length_tokens, o.passes, o.trials, _is_certain(problem, o))
        for o in history
        if o.trials or o.failure is not None
    )
    base = problem.baseline
    return _posterior(
        problem.floor,
        max(problem.ceiling, problem.floor + 1),
        _ratio(problem),
        (base.passes, base.trials),
        tuple(tallies),
    )


def _ratio(problem: SearchProblem) -> float:
    """The part of the short rate that just passes. The curve reaches 1 nowhere."""
    rule, rate = problem.rule, problem.baseline.rate
    ratio = rule.ratio / rate if rule.absolute and rate else rule.ratio
    return min(ratio, _HIGHEST_RATIO)


def _is_certain(problem: SearchProblem, observation: Observation) -> bool:
    """Whether a failure is more than its answers. That of a broken certificate mostly is not:
    they fail the length, and may have been bad luck.
    """
    if observation.failure not in _ANSWERS:
        return observation.failure is not None
    answers = attrs.evolve(observation, failure=None)
    return problem.rule.verdict(answers, problem.baseline) is not Verdict.FAIL


def threshold_interval(
    problem: SearchProblem, history: Sequence[Observation], *, fallback: int
) -> Interval:
    """The central interval for the threshold, in tokens, at `LEVEL`.

    Its upper end is None where the evidence does not exclude the ceiling: nothing above it
    was or could be tried. With no history the interval is [`fallback`, None].
    """
    if not any(o.trials or o.failure is not None for o in history):
        return Interval(low=fallback, high=None, level=LEVEL)
    found = posterior(problem, history)
    low = float(np.exp(found.quantile((1 - LEVEL) / 2)))
    high = float(np.exp(found.quantile((1 + LEVEL) / 2)))
    clipped = max(problem.floor, round(min(low, problem.ceiling)))
    return Interval(
        low=clipped,
        high=None if high > problem.ceiling else max(clipped, round(high)),
        level=LEVEL,
    )


@lru_cache(maxsize=256)
def _posterior(
    floor: int,
    ceiling: int,
    ratio: float,
    baseline: tuple[int, int],
    tallies: tuple[Tally, ...],
) -> Posterior:
    odds = 1 / ratio - 1
    ends = np.log([floor, ceiling, ceiling * _BEYOND])
    tried = np.log(np.array([max(1, n) for n, *_ in tallies]))
    # A dead engine is certain: whatever the answers, the threshold is below it.
    dead = min((n for n, *_, failed in tallies if failed), default=None)
    top = ends[2] if dead is None else max(min(float(np.log(dead)), ends[2]), ends[0] + 1e-6)
    cuts = (*tried, ends[1])
    edges = _edges(ends[0], top, _COARSE, cuts)
    coarse = _weights(edges, odds, baseline, tallies).sum(axis=(1, 2))
    edges = _edges(*_region(edges, coarse), _FINE, cuts)
    weight = _weights(edges, odds, baseline, tallies)
    kept = weight > _NEGLIGIBLE * weight.max()
    where = np.nonzero(kept)
    found = weight[where] / weight[where].sum()
    return Posterior(
        edges=edges,
        mass=np.bincount(where[0], found, minlength=len(edges) - 1).astype(np.float64),
        cell=where[0],
        threshold=((edges[1:] + edges[:-1]) / 2)[where[0]],
        slope=_SLOPES[where[1]],
        lapse=_LAPSES[where[2]],
        weight=found,
        odds=odds,
    )


def _edges(bottom: float, top: float, cells: int, cuts: Sequence[float]) -> Floats:
    inside = [cut for cut in cuts if bottom < cut < top]
    edges = np.unique(np.concatenate((np.linspace(bottom, top, cells + 1), inside)))
    return edges[np.diff(edges, prepend=-np.inf) > 1e-9]


def _region(edges: Floats, mass: Floats) -> tuple[float, float]:
    """The cells that hold all but a negligible part of the mass."""
    held = np.flatnonzero(mass > _NEGLIGIBLE * mass.sum())
    return float(edges[held[0]]), float(edges[held[-1] + 1])


def _weights(
    edges: Floats, odds: float, baseline: tuple[int, int], tallies: tuple[Tally, ...]
) -> Floats:
    """Prior times likelihood, for each (cell, slope, lapse); the largest is 1."""
    middle = (edges[1:] + edges[:-1]) / 2
    total = np.log(np.diff(edges))[:, None, None] + np.log(_SLOPE_PRIOR)[:, None]
    total = total + np.log(_LAPSE_PRIOR) + _counts(1 - _LAPSES, *baseline)
    answers = np.zeros(())
    alike = np.zeros((len(middle), len(_SLOPES)))
    for n, passes, trials, _ in tallies:
        exponent = _SLOPES * (np.log(n) - middle[:, None])
        rate = 1 / (1 + odds * np.exp(np.clip(exponent, -60, 60)))
        if passes:
            alike += passes * np.log(rate)
        if trials > passes:
            missed = np.maximum(1 - rate[:, :, None] * (1 - _LAPSES), 1e-9)
            answers = answers + (trials - passes) * np.log(missed)
    answers = answers + sum(passes for _, passes, *_ in tallies) * np.log(1 - _LAPSES)
    total = total + _TRUST * (answers + alike[:, :, None])
    return np.exp(total - total.max())


def _counts(rate: Floats, passes: int, trials: int) -> Floats:
    rate = np.clip(rate, 1e-9, 1 - 1e-9)
    return passes * np.log(rate) + (trials - passes) * np.log1p(-rate)
