"""Bisection between nothing and the ceiling: the textbook search, to compare with."""

from __future__ import annotations

from lmstrix.problem import SearchProblem
from lmstrix.search.bracketing import Bracketing


class Binary(Bracketing):
    """Halve what lies between 0 tokens and the ceiling until the bracket is tight.

    It knows no costs. Its first probe reads half of the ceiling, which costs most where the
    model's limit is far below it; and lengths below its first pass are never tested.
    """

    name = "binary"

    def choose(self, problem: SearchProblem, low: int, high: int | None) -> int:
        top = problem.ceiling
        bottom = 0 if low == problem.floor else low
        end = top if high is None else high
        middle = (bottom + end) // 2
        while middle <= low:  # what lies below the floor is known to work
            bottom = middle
            middle = (bottom + end + 1) // 2
        if high is None and problem.is_tight(low, top):
            return top
        step = problem.step_at(low)
        aligned = middle // step * step
        if aligned <= low:
            aligned += step
        return min(aligned, top) if high is None else aligned
