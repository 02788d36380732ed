"""Gallop up from what works, then close in geometrically.

Climbing extends one document, so an engine that reuses prefixes reads each token once;
bisecting down from the declared maximum would read the whole of it first, super-linearly.
Galloping also *tests* the lengths below the answer, so that a hole there shows.
"""

from __future__ import annotations

from math import sqrt

from lmstrix.problem import SearchProblem
from lmstrix.search.bracketing import Bracketing


class Gallop(Bracketing):
    """Multiply by `factor` until something fails, then halve the bracket in log space.

    A smaller factor overshoots less and asks more questions; 1.41 is the square root of two.
    """

    name = "gallop"

    def __init__(self, factor: float = sqrt(2)) -> None:
        if not factor > 1:
            raise ValueError(f"the factor must be greater than 1, got {factor}")
        self._factor = factor

    def choose(self, problem: SearchProblem, low: int, high: int | None) -> int:
        """See `Bracketing.choose`."""
        step = problem.step_at(low)
        above = (low // step + 1) * step
        if high is None:
            return min(problem.ceiling, max(round(low * self._factor / step) * step, above))
        middle = round(sqrt(low * high) / step) * step
        return middle if low < middle < high else above
