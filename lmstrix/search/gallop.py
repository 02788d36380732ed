"""Gallop up from what works, then close in geometrically.

Climbing extends one document, so an engine that reuses prefixes reads each token once;
bisecting down from the declared maximum would read the whole of it first, super-linearly.
Galloping also *tests* the lengths below the answer, so that a hole there shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from lmstrix.models import Interval, Observation, Verdict
from lmstrix.problem import Ask, Done, SearchProblem
from lmstrix.search.posterior import threshold_interval

__all__ = ["Gallop"]


class Gallop:
    """Multiply by `factor` until something fails, then halve the bracket in log space.

    Few trials where all agree, more where they do not, and a full set at both ends of the
    final bracket. A smaller factor overshoots less and asks more questions; 1.41 is the
    square root of two.
    """

    name = "gallop"

    def __init__(self, factor: float = sqrt(2)) -> None:
        if not factor > 1:
            raise ValueError(f"the factor must be greater than 1, got {factor}")
        self._factor = factor

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        """See `lmstrix.ports.SearchStrategy`."""
        known = {o.length_tokens: o for o in history}
        low, high = self.bracket(problem, history)
        open_lengths = [
            n
            for n, o in known.items()
            if low < n and (high is None or n < high) and _verdict(problem, o) is Verdict.UNDECIDED
        ]
        if open_lengths:
            length = min(open_lengths)
            return Ask(length_tokens=length, trials=problem.rule.wanted(known[length]))
        if (length := self._next_length(problem, low, high)) is not None:
            return Ask(length_tokens=length, trials=problem.rule.first)
        for edge in (high, low):
            if edge is not None and (missing := _missing(problem, known.get(edge))):
                return Ask(length_tokens=edge, trials=missing)
        return Done(low=low, high=high, interval=self.interval(problem, history))

    def bracket(
        self, problem: SearchProblem, history: Sequence[Observation]
    ) -> tuple[int, int | None]:
        """Largest length below every failure that passed, and the smallest failure."""
        verdicts = {o.length_tokens: _verdict(problem, o) for o in history}
        high = min((n for n, v in verdicts.items() if v is Verdict.FAIL), default=None)
        passed = [
            n
            for n, v in verdicts.items()
            if v is Verdict.PASS and (high is None or n < high) and n > problem.floor
        ]
        return max(passed, default=problem.floor), high

    def interval(self, problem: SearchProblem, history: Sequence[Observation]) -> Interval:
        """See `lmstrix.ports.SearchStrategy`."""
        return threshold_interval(problem, history, fallback=problem.floor)

    def _next_length(self, problem: SearchProblem, low: int, high: int | None) -> int | None:
        """A length that is not known yet and lies inside the bracket, or None."""
        step = problem.granularity
        if high is None:
            if low >= problem.ceiling:
                return None
            target = round(low * self._factor / step) * step
            return min(problem.ceiling, max(target, (low // step + 1) * step))
        if problem.is_tight(low, high):
            return None
        middle = round(sqrt(low * high) / step) * step
        return middle if low < middle < high else _between(low, high, step)


def _missing(problem: SearchProblem, edge: Observation | None) -> int:
    """Trials that the evidence at one end of the final bracket still lacks."""
    return 0 if edge is None or edge.failure else max(0, problem.rule.full - edge.trials)


def _verdict(problem: SearchProblem, observation: Observation) -> Verdict:
    return problem.rule.verdict(observation, problem.baseline)


def _between(low: int, high: int, step: int) -> int | None:
    """A multiple of `step` strictly inside (low, high), or None."""
    inside = (low // step + 1) * step
    return inside if inside < high else None
