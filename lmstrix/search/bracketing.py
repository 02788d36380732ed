"""What all strategies share: the lengths to choose from, a bracket, and when it is settled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache

from lmstrix.models import Interval, Observation, Region, Verdict
from lmstrix.problem import Ask, Done, SearchProblem, missing_at, step_at

MORE_LIKELY_THAN_NOT = 0.5


class Bracketing(ABC):
    """Ask at a length until its verdict is settled, move the bracket, choose the next length.

    Few trials if all agree, more if they do not, and a full set at both ends of the final
    bracket. A subclass chooses the lengths.
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

        return threshold_interval(problem, history, self.bracket(problem, history))

    def _wish(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | None:
        """The next step if it can be paid for; None at the end."""
        known = {o.length_tokens: o for o in history}
        low, high = self.bracket(problem, history)
        undecided = (
            n
            for n, o in known.items()
            if low < n < (high or n + 1)
            and problem.rule.verdict(o, problem.baseline) is Verdict.UNDECIDED
        )
        if (length := min(undecided, default=None)) is not None:
            return missing_at(problem, length, known.get(length))
        if low < problem.ceiling and (high is None or not problem.is_tight(low, high)):
            return missing_at(problem, self.choose(problem, low, high), None)
        return at_the_ends(problem, known, low, high)

    @abstractmethod
    def choose(self, problem: SearchProblem, low: int, high: int | None) -> int:
        """The next length to try, when `low` works and `high` fails (None: nothing failed yet).

        It lies strictly between the two and is a multiple of `SearchProblem.granularity`, or the
        ceiling. The bracket is not tight yet.
        """


class OneSize(Bracketing):
    """No search: asks at the largest length and nowhere else, until the verdict is settled.

    Made for `lmstrix.LMStrix.check_context`, so no name chooses it.
    """

    name = "one_size"

    def _wish(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | None:
        length = problem.ceiling
        seen = next((o for o in history if o.length_tokens == length), None)
        if seen and problem.rule.verdict(seen, problem.baseline) is Verdict.FAIL:
            return None
        return missing_at(problem, length, seen, full=True)

    def choose(self, problem: SearchProblem, low: int, high: int | None) -> int:
        """See `Bracketing.choose`."""
        del low, high
        return problem.ceiling


def bracket_of(problem: SearchProblem, history: Sequence[Observation]) -> tuple[int, int | None]:
    """The largest length that passed below every failure, and the smallest length that failed.

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
    """Whether an open tally speaks more against a pass than for it, in all or in one region.

    So few passes would be seen less than half of the time at a rate that just passes: 0 of 1,
    1 of 2 and 2 of 4 are in doubt, 3 of 4 is not.
    """
    rule, baseline = problem.rule, problem.baseline
    if rule.verdict(observation, baseline) is not Verdict.UNDECIDED:
        return False
    parts = [
        Observation(length_tokens=observation.length_tokens, passes=t.passes, trials=t.trials)
        for t in observation.regions
        if rule.regions
    ]
    return any(rule.tail(part, baseline) < MORE_LIKELY_THAN_NOT for part in (observation, *parts))


def at_the_ends(
    problem: SearchProblem,
    known: Mapping[int, Observation],
    low: int,
    high: int | None,
    order: Sequence[Region] = (),
) -> Ask | None:
    """What a full set of questions lacks at the ends of the final bracket; None if nothing."""
    ends = (known[end] for end in (high, low) if end is not None and end in known)
    asks = (missing_at(problem, o.length_tokens, o, full=True, order=order) for o in ends)
    return next((ask for ask in asks if ask is not None), None)


def within_budget(problem: SearchProblem, history: Sequence[Observation], ask: Ask) -> Ask | None:
    """`ask` with as many trials as can be paid for; None if not even one can."""
    checkpoint = checkpoint_below(problem, history, ask.length_tokens)
    trials = problem.affordable(ask.length_tokens, ask.trials, checkpoint=checkpoint)
    if not trials:
        return None
    return Ask(length_tokens=ask.length_tokens, trials=trials, region=ask.region)


def checkpoint_below(problem: SearchProblem, history: Sequence[Observation], length: int) -> int:
    """The longest earlier prompt, no longer than `length`, that is still in the cache."""
    most = min(length, problem.cached_tokens)
    ends = (o.length_tokens for o in history if o.length_tokens <= most)
    return max(ends, default=min(problem.floor, most))


def lattice(problem: SearchProblem) -> tuple[int, ...]:
    """The lengths that a search may ask at, from the floor to the ceiling, both included.

    All between them are multiples of the granularity, and each neighbouring pair is tight.
    Whatever path a search takes over them, the bracket around a sharp limit is the same.
    """
    return _lattice(problem.floor, problem.ceiling, problem.tolerance, problem.granularity)


@lru_cache(maxsize=64)
def _lattice(floor: int, ceiling: int, tolerance: float, granularity: int) -> tuple[int, ...]:
    lengths = [floor]
    while lengths[-1] < ceiling:
        last = lengths[-1]
        step = step_at(last, granularity)
        furthest = last + max(step, int(tolerance * last))
        lengths.append(min(ceiling, furthest // step * step))
    return tuple(lengths)


def inside(lengths: tuple[int, ...], low: int, high: int | None) -> tuple[int, ...]:
    """Those strictly between `low` and `high`; all above `low` if `high` is None."""
    start = bisect_right(lengths, low)
    return lengths[start:] if high is None else lengths[start : bisect_left(lengths, high)]


def thinned(lengths: tuple[int, ...], most: int) -> tuple[int, ...]:
    """At most `most` of them, evenly picked, the first and the last among them."""
    if len(lengths) <= most:
        return lengths
    gap = (len(lengths) - 1) / (most - 1)
    return tuple(lengths[round(i * gap)] for i in range(most))
