"""What all strategies share that go by verdicts alone: a bracket, and when it is settled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from lmstrix.models import Interval, Observation, Verdict
from lmstrix.problem import Ask, Done, SearchProblem

__all__ = [
    "Bracketing",
    "bracket_of",
    "checkpoint_below",
    "in_doubt",
    "missing_at_edge",
    "within_budget",
]

MORE_LIKELY_THAN_NOT = 0.5


class Bracketing(ABC):
    """Ask at a length until its verdict is settled, move the bracket, choose the next length.

    Few trials where all agree, more where they do not, and a full set at both ends of the
    final bracket. A subclass chooses the lengths.
    """

    name = ""

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        """See `lmstrix.ports.SearchStrategy`."""
        ask = self._wish(problem, history)
        affordable = None if ask is None else within_budget(problem, history, ask)
        if affordable is not None:
            return affordable
        low, high = self.bracket(problem, history)
        return Done(low=low, high=high, interval=self.interval(problem, history))

    def bracket(
        self, problem: SearchProblem, history: Sequence[Observation]
    ) -> tuple[int, int | None]:
        """See `bracket_of`."""
        return bracket_of(problem, history)

    def interval(self, problem: SearchProblem, history: Sequence[Observation]) -> Interval:
        """See `lmstrix.ports.SearchStrategy`."""
        # numpy takes as long to import as all the rest of `import lmstrix`.
        from lmstrix.search.posterior import threshold_interval  # noqa: PLC0415 - see above

        return threshold_interval(problem, history, fallback=problem.floor)

    def _wish(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | None:
        """The next step if it can be paid for; None at the end."""
        known = {o.length_tokens: o for o in history}
        low, high = self.bracket(problem, history)
        if (length := _undecided(problem, known, low, high)) is not None:
            return Ask(length_tokens=length, trials=problem.rule.wanted(known[length]))
        if low < problem.ceiling and (high is None or not problem.is_tight(low, high)):
            return Ask(length_tokens=self._choose(problem, low, high), trials=problem.rule.first)
        for edge in (high, low):
            if edge is not None and (missing := missing_at_edge(problem, known.get(edge))):
                return Ask(length_tokens=edge, trials=missing)
        return None

    @abstractmethod
    def _choose(self, problem: SearchProblem, low: int, high: int | None) -> int:
        """A length strictly inside a bracket that is not tight; the ceiling counts as inside
        while nothing has failed.
        """


def bracket_of(problem: SearchProblem, history: Sequence[Observation]) -> tuple[int, int | None]:
    """The smallest length that failed, and the largest below it that passed.

    Nothing that failed lies below the answer, so a hole ends it, whatever passes beyond; nor
    does a length that may yet turn out to be one (see `in_doubt`).
    """
    verdicts = {o.length_tokens: problem.rule.verdict(o, problem.baseline) for o in history}
    high = min((n for n, v in verdicts.items() if v is Verdict.FAIL), default=None)
    doubts = [o.length_tokens for o in history if in_doubt(problem, o)]
    limit = min((n for n in (high, *doubts) if n is not None), default=None)
    passed = [
        n
        for n, v in verdicts.items()
        if v is Verdict.PASS and (limit is None or n < limit) and n > problem.floor
    ]
    return max(passed, default=problem.floor), high


def in_doubt(problem: SearchProblem, observation: Observation) -> bool:
    """Whether an open tally speaks more against a pass than for it.

    So few passes would be seen less than half of the time at a rate that just passes: 0 of 1,
    1 of 2 and 2 of 4 are in doubt, 3 of 4 is not.
    """
    undecided = problem.rule.verdict(observation, problem.baseline) is Verdict.UNDECIDED
    return undecided and problem.rule.tail(observation, problem.baseline) < MORE_LIKELY_THAN_NOT


def within_budget(problem: SearchProblem, history: Sequence[Observation], ask: Ask) -> Ask | None:
    """`ask` with as many trials as can be paid for; None where not even one can."""
    checkpoint = checkpoint_below(problem, history, ask.length_tokens)
    trials = problem.affordable(ask.length_tokens, ask.trials, checkpoint=checkpoint)
    return Ask(length_tokens=ask.length_tokens, trials=trials) if trials else None


def checkpoint_below(problem: SearchProblem, history: Sequence[Observation], length: int) -> int:
    """The longest earlier prompt, no longer than `length`, that is still in the cache."""
    most = min(length, problem.cached_tokens)
    ends = (o.length_tokens for o in history if o.length_tokens <= most)
    return max(ends, default=min(problem.floor, most))


def _undecided(
    problem: SearchProblem, known: Mapping[int, Observation], low: int, high: int | None
) -> int | None:
    """The shortest length inside the bracket that was asked at and is not settled."""
    return min(
        (
            n
            for n, o in known.items()
            if low < n
            and (high is None or n < high)
            and problem.rule.verdict(o, problem.baseline) is Verdict.UNDECIDED
        ),
        default=None,
    )


def missing_at_edge(problem: SearchProblem, edge: Observation | None) -> int:
    """Trials that the evidence at one end of the final bracket still lacks."""
    return 0 if edge is None or edge.failure else max(0, problem.rule.full - edge.trials)
