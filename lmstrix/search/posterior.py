"""What the answers say about the thresholds: a posterior over length, shape and lapse.

The pass rate in one region of the window is modelled as ``(1 - lapse) * (rest + (1 - rest) / (1 +
odds * (n / t) ** slope))``, a logistic curve in log length. *t* is the region's threshold: the
length at which the rate has fallen to the rule's ratio of what it is at short length (the usual
psychometric function; see Kingdom and Prins, *Psychophysics*, ch. 4). Shape and lapse rate are
shared by all regions: steep slopes stand for a cliff, shallow ones for slow forgetting, a rest for
a region of which only a part is lost, and lapses for misses that have nothing to do with length or
place.

Models forget either everywhere alike or in one place first. So there is a common threshold; each
region has it with probability `_ALIKE`, and else one of its own somewhere below. The true context
belongs to the smallest threshold of all regions, whose distribution follows exactly.

Everything is evaluated on a grid: coarse over all lengths, and fine where the smallest threshold
may be. Cells end at every length that was tried: where a cliff lies between two of them is not
known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import comb, log
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from lmstrix.models import Cause, DepthTally, Interval, Observation, Region, Verdict
from lmstrix.problem import DISLIKED, SearchProblem

Floats: TypeAlias = NDArray[np.float64]
Place: TypeAlias = Region | None
"""A region, or None for questions about no one place."""

LEVEL = 0.9
"""Confidence level of the interval."""

_ALIKE = 0.8
"""Prior probability that a region has the common threshold. All five have it one time in three."""

_BEYOND = 2.0
"""Prior room above the ceiling, as a factor: thresholds there are censored."""

_SHAPES = np.array(
    [
        *((slope, 0.0) for slope in (2.5, 4.0, 6.0, 9.0, 14.0, 22.0, 60.0, 300.0)),
        *((300.0, 0.4), (300.0, 0.8), (6000.0, 0.4), (6000.0, 0.8), (6000.0, 0.0)),
    ]
)
"""Slopes, and the rests as parts of the ratio that just passes. The steepest slope falls from all
to nothing within half a percent of the length: a cliff."""
_SLOPES, _RESTS = _SHAPES[:, 0], _SHAPES[:, 1]

_SHAPE_PRIOR = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0.3, 0.3, 0.3, 0.3, 2.0])

_LAPSES = np.array([0.002, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5])
_LAPSE_PRIOR = np.array([2, 2, 2, 1, 0.5, 0.25, 0.12])

_TRUST = 0.93
"""Power of the answers' likelihood: questions on one document are not quite independent."""

_COARSE, _FINE = 24, 48
"""Cells of the grid over all lengths, and of the one where the threshold may be, besides those
that tried lengths cut."""

_MISSES = 2
"""Misses that count if no more than one fact was lost: it would be missed again and again."""

_HIGHEST_RATIO = 0.99

_ANSWERS = frozenset({Cause.FORGETS, Cause.GIBBERISH})
"""Failures that come from answers, not from the engine."""

_NEGLIGIBLE = 1e-5
"""Share of all the mass below which the ends of the grid are left out of its fine part."""

_ROUGH = 0.01
"""Share of the heaviest point below which points do not count in the choice of a step."""


@attrs.frozen(kw_only=True, eq=False)
class _Points:
    """Weighted points (threshold, shape, lapse) of one region, by cells of the threshold."""

    cell: NDArray[np.intp]
    threshold: Floats
    shape: NDArray[np.intp]
    lapse: Floats
    weight: Floats


@attrs.frozen(kw_only=True, eq=False)
class Posterior:
    """The smallest threshold's distribution, and each region's own."""

    edges: Floats
    """Ends of the cells, in natural logarithms of tokens."""
    mass: Floats
    """Probability that the smallest threshold lies in each cell."""
    shares: Mapping[Place, float]
    """How likely each region is to have the smallest threshold, over the likeliest one's."""
    points: Mapping[Place, _Points]
    ratio: float

    def above(self, length: float) -> float:
        """Probability that the smallest threshold is above `length`."""
        return 1 - float(np.interp(log(length), self.edges, self._cumulative()))

    def quantile(self, level: float) -> float:
        """The logarithm of the threshold below which `level` of the mass lies."""
        return float(np.interp(level, self._cumulative(), self.edges))

    def _cumulative(self) -> Floats:
        cumulative: Floats = np.cumsum(np.append(0.0, self.mass))
        return cumulative / cumulative[-1]

    @property
    def spread(self) -> float:
        """Standard deviation of the smallest threshold's logarithm."""
        middle: Floats = (self.edges[1:] + self.edges[:-1]) / 2
        mean = float(np.sum(self.mass * middle))
        within: Floats = np.diff(self.edges) ** 2 / 12
        return float(np.sqrt(np.sum(self.mass * ((middle - mean) ** 2 + within))))

    def information(self, place: Place, lengths: Floats, trials: int) -> Floats:
        """Expected information on the smallest threshold, in nats, from `trials` more questions
        about `place` at each length.

        It is the mutual information of the number of passes and the region's threshold, times
        how likely that is the smallest.
        """
        found = self.points[place]
        distance = np.log(lengths)[:, None] - found.threshold
        kept = _kept(distance, _SLOPES[found.shape], _RESTS[found.shape], self.ratio)
        rates = (1 - found.lapse) * kept
        starts = np.flatnonzero(np.diff(found.cell, prepend=-1))
        mass = np.add.reduceat(found.weight, starts)
        failed = [found.weight * np.ones_like(rates)]
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
        return np.maximum(gain, 0.0) * self.shares[place]


Tally: TypeAlias = tuple[int, int, int]
"""Length, passes, trials."""


def posterior(
    problem: SearchProblem, history: Sequence[Observation], *, at_the_end: bool = False
) -> Posterior:
    """The posterior after `history`, whatever its order, and the baseline.

    For the choice of a step, repeated misses of a single fact are left out: they would draw
    questions to a fact that the model dislikes. `at_the_end` all of them count.
    """
    places: tuple[Place, ...] = problem.rule.regions or (None,)
    tallies: dict[Place, list[Tally]] = {place: [] for place in places}
    for seen in history:
        if not problem.rule.regions:
            tallies[None].append((seen.length_tokens, seen.passes, seen.trials))
        for tally in seen.regions:
            if tally.region in tallies and problem.rule.regions:
                tallies[tally.region].append(
                    (seen.length_tokens, tally.passes, tally.trials)
                    if at_the_end
                    else _discounted(seen.length_tokens, tally)
                )
    base = problem.baseline
    return _posterior(
        (problem.floor, max(problem.ceiling, problem.floor + 1)),
        _ratio(problem),
        (base.passes, base.trials),
        min((o.length_tokens for o in history if _is_certain(problem, o)), default=None),
        # Sorted: a sum's last digits depend on its order.
        tuple((place, tuple(sorted(t for t in found if t[2]))) for place, found in tallies.items()),
    )


def _discounted(length_tokens: int, tally: DepthTally) -> Tally:
    """A region's tally without the repeated misses of a single fact."""
    misses = tally.trials - tally.passes
    if tally.lost_facts is not None and tally.lost_facts <= DISLIKED:
        misses = min(misses, _MISSES)
    return length_tokens, tally.passes, tally.passes + misses


def _ratio(problem: SearchProblem) -> float:
    """The part of the short rate that just passes. The curve reaches 1 nowhere."""
    rule, rate = problem.rule, problem.baseline.rate
    ratio = rule.ratio / rate if rule.absolute and rate else rule.ratio
    return min(ratio, _HIGHEST_RATIO)


def _is_certain(problem: SearchProblem, observation: Observation) -> bool:
    """Whether a failure is more than its answers, as one of the engine or of another level is. A
    certificate that did not hold is not: its answers fail the length or look bad in one region,
    and that may have been bad luck.
    """
    if observation.failure not in _ANSWERS:
        return observation.failure is not None
    rule, baseline = problem.rule, problem.baseline
    answers = attrs.evolve(observation, failure=None)
    failed = rule.verdict(answers, baseline) is Verdict.FAIL
    return not failed and not rule.weak(answers, baseline)


def threshold_interval(
    problem: SearchProblem,
    history: Sequence[Observation],
    bracket: tuple[int, int | None],
) -> Interval:
    """The central interval for the smallest threshold, in tokens, at `LEVEL`.

    It is never narrower than `bracket` if that is tight: between two neighbouring lengths nothing
    was tried, so nothing tells where a cliff lies. The upper end is None if the evidence does
    not exclude the ceiling: nothing above it was or could be tried.
    """
    low, high = bracket
    if not any(o.trials or o.failure is not None for o in history):
        return Interval(low=problem.floor, high=None, level=LEVEL)
    found = posterior(problem, history, at_the_end=True)
    lowest = min(float(np.exp(found.quantile((1 - LEVEL) / 2))), problem.ceiling)
    highest = float(np.exp(found.quantile((1 + LEVEL) / 2)))
    if high is not None and problem.is_tight(low, high):
        lowest, highest = min(lowest, low), max(highest, high)
    clipped = max(problem.floor, round(lowest))
    return Interval(
        low=clipped,
        high=None if highest > problem.ceiling else max(clipped, round(highest)),
        level=LEVEL,
    )


@lru_cache(maxsize=64)
def _posterior(
    reach: tuple[int, int],
    ratio: float,
    baseline: tuple[int, int],
    dead: int | None,
    tallies: tuple[tuple[Place, tuple[Tally, ...]], ...],
) -> Posterior:
    floor, ceiling = reach
    ends = [log(floor), log(ceiling), log(ceiling * _BEYOND)]
    lengths = {n for _, found in tallies for n, *_ in found}
    # A dead engine is certain: whatever the answers, the threshold is below it.
    top = ends[2] if dead is None else max(min(log(max(1, dead)), ends[2]), ends[0] + 1e-6)
    cuts = (*(log(max(1, n)) for n in lengths), ends[1])
    edges = _edges(np.linspace(ends[0], top, _COARSE + 1), cuts)
    found = [tally for _, tally in tallies]
    every = _Curves(shape=_EVERY[0], lapse=_LAPSES[_EVERY[1]], prior=_curve_prior(baseline))
    rough = _Grid(edges, ratio, every, found)
    coarse, likely = rough.smallest(), rough.curves()
    held = np.flatnonzero(coarse > _NEGLIGIBLE)
    fine = np.linspace(edges[held[0]], edges[held[-1] + 1], _FINE + 1)
    edges = _edges(np.concatenate((edges, fine)), ())
    grid = _Grid(edges, ratio, every.only(likely > _NEGLIGIBLE), found)
    marginals = [grid.marginal(at) for at in range(len(tallies))]
    places = [place for place, _ in tallies]
    shares = _shares([m.sum(axis=1) for m in marginals])
    return Posterior(
        edges=edges,
        mass=grid.smallest(),
        shares=dict(zip(places, shares, strict=True)),
        points={
            place: _points(edges, grid.curves_used, marginal)
            for place, marginal in zip(places, marginals, strict=True)
        },
        ratio=ratio,
    )


def _edges(grid: Floats, cuts: Sequence[float]) -> Floats:
    inside = [cut for cut in cuts if grid[0] < cut < grid[-1]]
    edges = np.unique(np.concatenate((grid, inside)))
    return edges[np.diff(edges, prepend=-np.inf) > 1e-9]


def _points(edges: Floats, curves: _Curves, weight: Floats) -> _Points:
    where = np.nonzero(weight > _ROUGH * weight.max())
    found = weight[where]
    return _Points(
        cell=where[0],
        threshold=((edges[1:] + edges[:-1]) / 2)[where[0]],
        shape=curves.shape[where[1]],
        lapse=curves.lapse[where[1]],
        weight=found / found.sum(),
    )


def _shares(marginals: Sequence[Floats]) -> list[float]:
    """How likely each threshold is the smallest, over the likeliest; as if independent."""
    above = [1 - np.cumsum(m) + m / 2 for m in marginals]
    likely = [
        float(np.sum(m * np.prod([a for j, a in enumerate(above) if j != at], axis=0)))
        for at, m in enumerate(marginals)
    ]
    return [share / max(likely) for share in likely]


@attrs.frozen(kw_only=True, eq=False)
class _Curves:
    """Pairs of a shape and a lapse rate, each with its prior mass."""

    shape: NDArray[np.intp]
    lapse: Floats
    prior: Floats

    def only(self, chosen: NDArray[np.bool_]) -> _Curves:
        return _Curves(shape=self.shape[chosen], lapse=self.lapse[chosen], prior=self.prior[chosen])


_EVERY = np.divmod(np.arange(len(_SHAPES) * len(_LAPSES)), len(_LAPSES))
"""All pairs of a shape and a lapse rate."""


def _curve_prior(baseline: tuple[int, int]) -> Floats:
    """The prior of all pairs, with the evidence of the baseline's answers on lapses."""
    passes, trials = baseline
    rate = np.clip(1 - _LAPSES, 1e-9, 1 - 1e-9)
    lapses = np.log(_LAPSE_PRIOR) + passes * np.log(rate) + (trials - passes) * np.log1p(-rate)
    total = np.log(_SHAPE_PRIOR)[_EVERY[0]] + lapses[_EVERY[1]]
    return np.exp(total - total.max())


class _Grid:
    """Prior times likelihood for each (cell, curve) and each region."""

    def __init__(
        self,
        edges: Floats,
        ratio: float,
        curves: _Curves,
        tallies: Sequence[Sequence[Tally]],
    ) -> None:
        width = np.diff(edges)
        self.curves_used = curves
        self._width = width[:, None]
        self._below: Floats = np.cumsum(width)[:, None]
        """Prior mass of all thresholds up to each cell."""
        middle = (edges[1:] + edges[:-1]) / 2
        self._likely = _likelihood(middle, ratio, curves, tallies) ** _TRUST
        alike = self._alike = _ALIKE if len(tallies) > 1 else 1.0
        self._sums = np.cumsum(self._width * self._likely, axis=1)
        self._mixed = alike * self._likely + (1 - alike) * self._sums / self._below

    def curves(self) -> Floats:
        """The probability of each curve."""
        mass = (self._width * self.curves_used.prior * np.prod(self._mixed, axis=0)).sum(axis=0)
        return mass / mass.sum()

    def smallest(self) -> Floats:
        """The distribution of the smallest threshold over the cells."""
        cells = len(self._width)
        whole = self._width * self.curves_used.prior
        if len(self._likely) == 1:
            mass = (whole * self._likely[0]).sum(axis=1)
            return mass / mass.sum()
        # The mass of "all thresholds are in this cell or above it", for each cell.
        above = np.append((whole * np.prod(self._mixed, axis=0)).sum(), np.zeros(cells))
        lower = (1 - self._alike) * self._sums
        for first in range(1, cells):
            there = self._mixed[:, first:] - lower[:, first - 1, None] / self._below[first:]
            above[first] = (whole[first:] * np.prod(there, axis=0)).sum()
        mass = np.maximum(-np.diff(above), 0.0)
        return mass / mass.sum()

    def marginal(self, at: int) -> Floats:
        """The distribution of one region's threshold, with the curve."""
        common = self._width * self.curves_used.prior
        for other, mixed in enumerate(self._mixed):
            if other != at:
                common = common * mixed
        own = self._alike * self._likely[at] * common
        if self._alike < 1:
            beyond = np.cumsum((common / self._below)[::-1], axis=0)[::-1]
            own = own + (1 - self._alike) * self._width * self._likely[at] * beyond
        return own / own.sum()


def _likelihood(
    middle: Floats, ratio: float, curves: _Curves, tallies: Sequence[Sequence[Tally]]
) -> Floats:
    """Of the answers about each region, for each (region, cell, curve); the largest is 1."""
    lengths = sorted({n for found in tallies for n, *_ in found})
    counts = np.zeros((2, len(tallies), len(lengths)))
    for at, found in enumerate(tallies):
        for n, passes, trials in found:
            counts[:, at, lengths.index(n)] += passes, trials - passes
    distance = np.log(lengths)[:, None, None] - middle[:, None]
    kept = _kept(distance, _SLOPES, _RESTS, ratio)
    total = np.einsum("rn,nts->rts", counts[0], np.log(kept))[:, :, curves.shape]
    total += counts[0].sum(axis=1)[:, None, None] * np.log1p(-curves.lapse)
    # Most lengths on the way up have no misses.
    missed = counts[1].any(axis=0)
    missing = 1 - kept[missed][:, :, curves.shape] * (1 - curves.lapse)
    total += np.einsum("rn,ntc->rtc", counts[1][:, missed], np.log(np.maximum(missing, 1e-9)))
    return np.exp(total - total.max(axis=(1, 2), keepdims=True))


def _kept(distance: Floats, slope: Floats, rest: Floats, ratio: float) -> Floats:
    """The part of the short rate that is kept at a log distance above the threshold."""
    rest = rest * ratio
    odds = (1 - ratio) / (ratio - rest)
    exponent = np.clip(slope * distance, -60, 60)
    return rest + (1 - rest) / (1 + odds * np.exp(exponent))
