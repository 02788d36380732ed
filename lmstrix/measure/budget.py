"""What may still be spent, and what things cost: what a strategy is told before each step."""

from __future__ import annotations

import time

import attrs

from lmstrix.costs import learn_costs
from lmstrix.measure.ledger import Ledger
from lmstrix.measure.options import MeasureOptions
from lmstrix.problem import SearchProblem

__all__ = ["Budget", "BudgetSpent"]


class BudgetSpent(Exception):
    """The next question is not expected to fit into what is left."""


@attrs.define
class Budget:
    """The user's limits, and what the ledger says was spent of them."""

    options: MeasureOptions
    ledger: Ledger
    started: float = attrs.field(factory=time.monotonic)
    before: int = attrs.field(init=False)
    """Tokens that earlier runs of the same measurement spent: the budget is this run's."""

    def __attrs_post_init__(self) -> None:
        self.before = self._spent()

    def refresh(self, problem: SearchProblem, document: int) -> SearchProblem:
        """`problem` with costs as the engine's own numbers have them by now, what of `document`
        is cached, and what remains.
        """
        return attrs.evolve(
            problem,
            costs=learn_costs(self.ledger.trials),
            cached_tokens=self.ledger.cached(document),
            remaining_tokens=self._tokens(),
            remaining_s=self._seconds(),
        )

    def affords(self, problem: SearchProblem, length_tokens: int, trials: int) -> bool:
        """Whether `trials` questions on a document that was never read are expected to fit."""
        fresh = attrs.evolve(self.refresh(problem, -1), cached_tokens=0)
        return fresh.affordable(length_tokens, trials) == trials

    def within(self, problem: SearchProblem, document: int, length_tokens: int, trials: int) -> int:
        """How many of `trials` questions on `document` are expected to fit.

        Raises `BudgetSpent` where that is none of them.
        """
        found = self.refresh(problem, document).affordable(length_tokens, trials)
        if trials and not found:
            raise BudgetSpent
        return found

    def _tokens(self) -> int | None:
        if self.options.budget_tokens is None:
            return None
        return max(0, self.options.budget_tokens - (self._spent() - self.before))

    def _spent(self) -> int:
        return self.ledger.cost.prompt_tokens + self.ledger.cost.generated_tokens

    def _seconds(self) -> float | None:
        if self.options.budget_s is None:
            return None
        return max(0.0, self.options.budget_s - (time.monotonic() - self.started))
