"""Ask what teaches most about the smallest threshold for its cost, and stop when it is known.

Three kinds of steps, told apart by the history alone:

- *climb* while the threshold is most likely above all that was tried: few questions at each
  length, in steps that weigh the questions against the tokens read in vain;
- *learn*: the length, the region and the number of questions with the most expected information
  on the smallest threshold for their cost, until they are not worth it;
- *settle*: questions at the length nearest to the posterior's median, the likeliest region to
  fail first, until verdicts bracket the answer as closely as was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt

import attrs
import numpy as np

from lmstrix.models import Interval, Observation, Region
from lmstrix.problem import COARSE_PART, COARSEST, Ask, Done, Reuse, SearchProblem, missing_at
from lmstrix.search.bracketing import (
    at_the_ends,
    bracket_of,
    checkpoint_below,
    in_doubt,
    inside,
    lattice,
    thinned,
    within_budget,
)
from lmstrix.search.posterior import Place, Posterior, posterior, threshold_interval

CLIMBING = 2
"""Questions at a length on the way up: one lapse among them is seen for what it is."""

FRESH_FACTOR = 2.0
"""Factor between lengths on the way up if an engine reads every prompt anew."""

LIKELY = 0.75
"""Probability of a threshold above all lengths tried at which the search climbs on."""

BATCHES = (2, 5)
"""Numbers of questions that a learning step may ask."""

CANDIDATES = 12
"""New lengths that a learning step chooses from."""

WORTH = 0.2
"""Relative accuracy (standard deviation of the log threshold) that reading the answer's
length once must buy for a learning step to be taken. Smaller values ask more questions."""

MOST_QUESTIONS = 300
"""No learning steps after so many answers: then the answers contradict the model."""

STEP_BACK = 0.5
"""Share of the tokens stepped back over that is expected to be read again."""

CHANCE = 0.05
"""Probability of a threshold above the smallest failure from which longer lengths are asked at."""

REACH = 1.5
"""A slow fall is steepest above its threshold: candidates reach that far beyond the likely."""

CENTRAL, FRESH_CENTRAL = 0.1, 0.35
"""Share of a wide bracket, at each of its ends, in which no length is settled, so that the
bracket shrinks fast also if answers and model contradict each other. The second one is for an
engine that reads every prompt anew."""


class Bayes:
    """Learn the smallest threshold, then settle verdicts around it.

    For noisy answers: a lapse now and then, or a rate that falls slowly with the length. The
    baseline's own answers tell how often the model errs for no reason of length. `worth` is
    the relative accuracy that reading the answer's length once must buy.
    """

    name = "bayes"

    def __init__(self, worth: float = WORTH) -> None:
        if not worth > 0:
            raise ValueError(f"the worth must be positive, got {worth}")
        self._worth = worth

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        """See `lmstrix.ports.SearchStrategy`."""
        ascending = sorted(history, key=lambda o: o.length_tokens)
        ask = self._wish(problem, ascending)
        affordable = None if ask is None else within_budget(problem, ascending, ask)
        if affordable is not None:
            return affordable
        low, high = self.bracket(problem, ascending)
        return Done(
            low=low,
            high=high,
            interval=self.interval(problem, ascending),
            estimate=_estimate(problem, ascending),
        )

    def bracket(
        self, problem: SearchProblem, history: Sequence[Observation]
    ) -> tuple[int, int | None]:
        """See `lmstrix.search.bracketing.bracket_of`."""
        return bracket_of(problem, history)

    def interval(self, problem: SearchProblem, history: Sequence[Observation]) -> Interval:
        """See `lmstrix.ports.SearchStrategy`."""
        return threshold_interval(problem, history, self.bracket(problem, history))

    def _wish(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | None:
        view = _View.of(problem, history)
        if problem.floor == problem.ceiling:
            return None
        if view.climbs():
            return view.climbing()
        return view.learning(self._worth) or view.settling()


@attrs.frozen(kw_only=True)
class _View:
    """A history as the three kinds of steps look at it."""

    problem: SearchProblem
    history: Sequence[Observation]
    known: Mapping[int, Observation]
    low: int
    high: int | None
    fine: tuple[int, ...]
    """Lengths half as far apart as the tolerance allows."""

    @classmethod
    def of(cls, problem: SearchProblem, history: Sequence[Observation]) -> _View:
        low, high = bracket_of(problem, history)
        known = {o.length_tokens: o for o in history}
        fine = lattice(attrs.evolve(problem, tolerance=problem.tolerance / 2))
        return cls(problem=problem, history=history, known=known, low=low, high=high, fine=fine)

    @property
    def top(self) -> int:
        """The longest length tried; nothing failed."""
        return max((self.problem.floor, *self.known))

    def climbs(self) -> bool:
        if self.high is not None or self.top >= self.problem.ceiling:
            return False
        if all(o.passes == o.trials for o in self.history):
            return True
        if any(in_doubt(self.problem, o) for o in self.history):
            return False
        return posterior(self.problem, self.history).above(self.top) > LIKELY

    def climbing(self) -> Ask:
        """The next length up, and few questions there.

        Each step costs its questions, and the last one reads about half of itself in vain: for
        a limit log-uniform between here and the ceiling the sum is least near sqrt(2 c n).
        """
        problem, costs, top = self.problem, self.problem.costs, self.top
        trials = max(costs.facts, min(CLIMBING, problem.rule.full))
        if costs.reuse is Reuse.NONE:
            target = top * FRESH_FACTOR
        else:
            target = top + sqrt(2 * top * (costs.probe + trials * costs.asking(top)))
        # Small steps are for the end of a search.
        coarse = problem.step_at(COARSEST * COARSE_PART)
        above = inside(lattice(attrs.evolve(problem, granularity=coarse)), top, None)
        length = max((n for n in above if n <= target), default=above[0])
        return Ask(length_tokens=length, trials=trials)

    def learning(self, worth: float) -> Ask | None:
        """The step with the most information for its cost, or None if it is not worth it."""
        if sum(o.trials for o in self.history) >= MOST_QUESTIONS:
            return None
        found = posterior(self.problem, self.history)
        # In units of "relative accuracy for reading the answer's length once".
        scale = found.spread * float(np.exp(found.quantile(0.5)))
        best, choice = worth, None
        facts = self.problem.costs.facts
        for place in found.points:
            lengths = self._candidates(found, place)
            if not lengths:
                continue
            for trials in (facts,) if facts > 1 else BATCHES:
                gains = found.information(place, np.array(lengths, dtype=np.float64), trials)
                for length, gain in zip(lengths, gains, strict=True):
                    value = scale * float(gain) / self._cost(length, trials)
                    if value > best:
                        left = self.problem.rule.most - self._asked(length, place)
                        best = value
                        choice = Ask(length_tokens=length, trials=min(trials, left), region=place)
        return choice

    def _asked(self, length: int, place: Place) -> int:
        seen = self.known.get(length)
        if seen is None:
            return 0
        return seen.trials if place is None else _trials_in(seen, place)

    def _cost(self, length: int, trials: int) -> float:
        problem = self.problem
        checkpoint = checkpoint_below(problem, self.history, length)
        cached = problem.cached_tokens
        back = STEP_BACK * max(0, cached - length)
        return back + problem.costs.cost(
            length, cached=cached, trials=trials, checkpoint=checkpoint
        )

    def _candidates(self, found: Posterior, place: Place) -> list[int]:
        """Lengths near the threshold: new ones, and those that may be asked at again.

        None below `low`, and none at or beyond a length at which the engine itself failed. If a
        length failed by its tally, new ones beyond it only if that may have been chance.
        """
        dead = min((n for n, o in self.known.items() if o.failure), default=None)
        bottom = max(self.low, float(np.exp(found.quantile(0.005))) / 1.1)
        top = float(np.exp(found.quantile(0.995))) * REACH
        chance = self.high is None or found.above(self.high) > CHANCE
        above = inside(self.fine, self.low, dead if chance else self.high)
        new = tuple(n for n in above if bottom <= n <= top)
        tried = {n for n, o in self.known.items() if bottom <= n <= top and not o.failure}
        return sorted(
            n
            for n in tried.union(thinned(new, CANDIDATES))
            if self._asked(n, place) < self.problem.rule.most and (dead is None or n < dead)
        )

    def settling(self) -> Ask | None:
        """Questions up to the next verdict that is missing, or None at the end."""
        problem = self.problem
        order = self._likeliest_first()
        is_open = self.high is None or not problem.is_tight(self.low, self.high)
        if is_open and self.low < problem.ceiling:
            length = self._to_settle()
            return missing_at(problem, length, self.known.get(length), order=order)
        return at_the_ends(problem, self.known, self.low, self.high, order)

    def _likeliest_first(self) -> Sequence[Region]:
        shares = posterior(self.problem, self.history).shares
        return sorted(self.problem.rule.regions, key=lambda region: -shares[region])

    def _to_settle(self) -> int:
        """What is in doubt below the median first, for the answer cannot pass it by; else the
        length nearest to the median, off the ends of what is likely: the upper end of the
        bracket, and the longest length below it at which all answers were right.
        """
        found = posterior(self.problem, self.history)
        middle = found.quantile(0.5)
        tried = {n for n in self.known if self.low < n and (self.high is None or n < self.high)}
        lengths = tried.union(inside(self.fine, self.low, self.high))
        fresh = self.problem.costs.reuse is Reuse.NONE
        end = self.high or self.problem.ceiling
        clean = (o.length_tokens for o in self.history if o.trials == o.passes > 0)
        cleanest = max((n for n in clean if n < end), default=self.low)
        bottom = max(np.log(self.low), min(np.log(cleanest), found.quantile(LIKELY)))
        width = np.log(end) - bottom
        if self.high is not None:
            margin = width * (FRESH_CENTRAL if fresh else CENTRAL)
            middle = min(max(middle, bottom + margin), bottom + width - margin)
        elif fresh and not any(n > cleanest for n in tried):  # as on the way up
            middle = max(middle, bottom + min(width, np.log(FRESH_FACTOR)))
        nearest = min(lengths, key=lambda n: (abs(float(np.log(n)) - middle), n))
        doubts = (n for n in lengths if n in self.known and in_doubt(self.problem, self.known[n]))
        return min((nearest, *doubts))


def _trials_in(seen: Observation, region: Region) -> int:
    return next((t.trials for t in seen.regions if t.region is region), 0)


def _estimate(problem: SearchProblem, history: Sequence[Observation]) -> int:
    """The posterior's median: on the problem's grid it could lie outside the interval."""
    median = round(float(np.exp(posterior(problem, history).quantile(0.5))))
    return min(problem.ceiling, max(problem.floor, median))
