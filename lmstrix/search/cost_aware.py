"""The cheapest search by the engine's own costs."""

from __future__ import annotations

from bisect import bisect_left

import attrs

from lmstrix.problem import SearchProblem
from lmstrix.search.bracketing import Bracketing
from lmstrix.search.lattice import inside, lattice, thinned
from lmstrix.search.planning import make_plan

__all__ = ["CostAware", "cheapest_length"]

WHOLE = 400
"""Lengths that one plan spans at most: more take too long to solve."""

PART = 96
"""Lengths of a coarse plan, where the lattice holds too many."""


class CostAware(Bracketing):
    """Ask where the expected cost of the whole rest of the search is least.

    What a new token, a cached one, a question and an answer cost, what attention adds to a
    long prompt, and whether the engine keeps prefixes, is taken from `SearchProblem.costs`.
    With cheap questions it climbs in small steps, with dear ones in big steps, and where
    nothing is reused it comes close to a bisection in log length.
    """

    name = "cost_aware"

    def _choose(self, problem: SearchProblem, low: int, high: int | None) -> int:
        return cheapest_length(problem, low, high, problem.rule.first)


def cheapest_length(problem: SearchProblem, low: int, high: int | None, trials: int) -> int:
    """The length to ask `trials` questions at in a bracket that is not tight."""
    lengths, open_end = _lengths(lattice(problem), low, high)
    # What does not change the path is left out, so that solved plans are found again.
    costs = attrs.evolve(problem.costs, load=0.0, seconds_per_token=None)
    plan = make_plan(lengths, costs, trials, open_end=open_end)
    top = len(lengths) if high is None else bisect_left(lengths, high)
    return lengths[plan.best(bisect_left(lengths, low), top, problem.cached_tokens)]


def _lengths(whole: tuple[int, ...], low: int, high: int | None) -> tuple[tuple[int, ...], bool]:
    """The lengths to plan over, both ends among them, and whether the last may pass too.

    All of the lattice if that is few enough; else a coarse choice of it, and of the part
    inside the bracket once the bracket is narrow.
    """
    chosen = whole if len(whole) <= WHOLE else thinned(whole, PART)
    ends = {low} if high is None else {low, high}
    if ends <= set(chosen) and inside(chosen, low, high):
        return chosen, True
    part = thinned(tuple(sorted({*inside(whole, low, high), *ends})), PART)
    return part, high is None
