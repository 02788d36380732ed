"""No search at all: is one length within what the model handles?"""

from __future__ import annotations

from collections.abc import Sequence

from lmstrix.models import Observation, Verdict
from lmstrix.problem import Ask, SearchProblem
from lmstrix.search.bracketing import Bracketing

__all__ = ["OneSize"]


class OneSize(Bracketing):
    """Asks at the largest length and nowhere else, until the verdict there is settled.

    A full set of questions, so that the rate there has an interval that says something. Made
    for `lmstrix.LMStrix.check_context`; as a strategy for a true context it would look at one
    end of the range alone, so it has no name to choose it by.
    """

    name = "one_size"

    def _wish(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | None:
        length = problem.ceiling
        nothing = Observation(length_tokens=length)
        seen = next((o for o in history if o.length_tokens == length), nothing)
        verdict = problem.rule.verdict(seen, problem.baseline)
        if verdict is Verdict.FAIL:
            return None
        missing = problem.rule.full - seen.trials
        if missing <= 0 and verdict is Verdict.UNDECIDED:
            missing = problem.rule.wanted(seen)
        return Ask(length_tokens=length, trials=missing) if missing > 0 else None

    def _choose(self, problem: SearchProblem, low: int, high: int | None) -> int:
        del low, high
        return problem.ceiling
