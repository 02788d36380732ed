"""The default: the cheapest search for clean answers, the surest for noisy ones."""

from __future__ import annotations

from collections.abc import Sequence

from lmstrix.models import Interval, Observation
from lmstrix.problem import Ask, Done, SearchProblem
from lmstrix.search.bayes import Bayes
from lmstrix.search.cost_aware import CostAware

__all__ = ["Auto"]


class Auto:
    """`CostAware` where one answer settles a length, `Bayes` where answers may lapse.

    Which one it is depends on the rule alone, never on the answers, so it does not change
    within a measurement. Both climb by the same plan as long as everything passes.
    """

    name = "auto"

    def __init__(self) -> None:
        self._clean = CostAware()
        self._noisy = Bayes()

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        """See `lmstrix.ports.SearchStrategy`."""
        return self._strategy(problem).next_step(problem, history)

    def bracket(
        self, problem: SearchProblem, history: Sequence[Observation]
    ) -> tuple[int, int | None]:
        """See `lmstrix.search.bracketing.bracket_of`."""
        return self._strategy(problem).bracket(problem, history)

    def interval(self, problem: SearchProblem, history: Sequence[Observation]) -> Interval:
        """See `lmstrix.ports.SearchStrategy`."""
        return self._strategy(problem).interval(problem, history)

    def _strategy(self, problem: SearchProblem) -> CostAware | Bayes:
        return self._clean if problem.rule.most == 1 else self._noisy
