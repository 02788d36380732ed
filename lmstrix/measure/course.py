"""The phases of a measurement in their order: what opens it, search, levels, certify."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lmstrix.events import BracketChanged
from lmstrix.measure.announcing import Announcer
from lmstrix.measure.asking import Asker
from lmstrix.measure.budget import Budget, BudgetSpent
from lmstrix.measure.engine import Engine
from lmstrix.measure.findings import Findings, limit_of
from lmstrix.measure.ledger import CERTIFY, SEARCH, Ledger
from lmstrix.measure.levels import LevelSearch
from lmstrix.measure.opening import Opening
from lmstrix.models import Cause, Verdict
from lmstrix.ports import Adapter
from lmstrix.problem import Ask, Done, SearchProblem

__all__ = ["Course"]

CERTIFY_TRIALS = 14
"""Fourteen passes of fourteen show a rate above 80 % at one-sided 95 %: .8 ** 14 < .05."""

MOST_CERTIFICATES = 4

NEAR_ENOUGH = 7 / 8
"""An answer is certified on a load made for it, or for one larger by an eighth at most."""


class _Unjudged(Exception):
    """Too few replies at a certificate's length can be judged: it says neither yes nor no."""


@attrs.define(kw_only=True)
class Course:
    """One run through the phases, with the parts that they share."""

    adapter: Adapter
    findings: Findings
    ledger: Ledger
    budget: Budget
    instance: Engine
    asker: Asker
    announcer: Announcer

    async def run(self) -> Cause | None:
        """Go through the phases, and leave nothing loaded.

        Returns a cause where there is no number, None where the evidence speaks.
        """
        try:
            problem = await self._opening.problem()
            if isinstance(problem, Cause):
                return problem
            self.findings.problem = problem
            await self._levels.baselines(problem, self.findings.document(0))
            return await self._search_and_certify(problem)
        except BudgetSpent:
            return Cause.BUDGET_SPENT
        finally:
            # The adapter shields its own cleanup and gives it a deadline.
            await self.instance.release()

    async def _search_and_certify(self, problem: SearchProblem) -> Cause | None:
        for certificate in range(self.ledger.settled_certificates() + 1, MOST_CERTIFICATES + 1):
            stuck = await self._answer(problem, self._searched(certificate))
            if stuck is not None or not self.findings.options.certify:
                return stuck
            if not self.budget.affords(problem, self._bracket(problem)[0], CERTIFY_TRIALS):
                return Cause.BUDGET_SPENT
            try:
                held = await self._certify(problem, self._certifying(certificate))
            except _Unjudged as length:
                self.announcer.note(f"not certified: at {length} tokens few replies can be judged")
                return None
            if held:
                loadable = self.findings.loadable
                self.findings.certified = loadable is None or not loadable.untried
                return None
            self.asker.context_length = problem.ceiling
        self.announcer.note(f"not certified: {MOST_CERTIFICATES} certificates did not hold")
        # The last one has moved the bracket too, perhaps wide open.
        return await self._answer(problem, self._searched(MOST_CERTIFICATES + 1))

    async def _answer(self, problem: SearchProblem, document: int) -> Cause | None:
        """Search, with the levels. Where one that counts fails below the answer, it moves.

        Returns a cause where that gives no answer.
        """
        stuck = await self._search(problem, document)
        while stuck is None and not await self._levels.measure(problem, document):
            stuck = await self._search(problem, document)
        searched = stuck is None and self.findings.options.only_at is None
        if searched and self._verdict(problem, problem.floor) is Verdict.FAIL:
            self.announcer.note(f"its answers at {problem.floor} tokens contradict the baseline")
            return Cause.INCONCLUSIVE
        return stuck

    async def _search(self, problem: SearchProblem, document: int) -> Cause | None:
        """Do what the strategy says until it is done."""
        self.announcer.phase(SEARCH)
        strategy = self.findings.strategy
        shown: tuple[int, int | None] | None = None
        while True:
            history = self.ledger.evidence()
            bracket = strategy.bracket(problem, history)
            if bracket != shown:
                shown = bracket
                self.announcer.emit(
                    BracketChanged(model_key=self._key, low=bracket[0], high=bracket[1])
                )
            limited = self.budget.refresh(problem, document)
            step = strategy.next_step(limited, history)
            if isinstance(step, Done):
                # What is done only because nothing is left to spend goes on another time.
                unlimited = strategy.next_step(_unlimited(limited), history)
                return None if isinstance(unlimited, Done) else Cause.BUDGET_SPENT
            await self._probe(problem, step, SEARCH, document)
            seen = self.ledger.observation(step.length_tokens)
            if seen.failure is None and problem.rule.is_mute(seen):
                self._tell_unjudged(step.length_tokens)
                return Cause.INCONCLUSIVE

    def _tell_unjudged(self, length: int) -> None:
        """With what is known all the same: below that length there may have been an answer."""
        right = [o.length_tokens for o in self.ledger.evidence() if o.trials == o.passes]
        longest = max((n for n in right if n < length), default=None)
        known = "" if longest is None else f"; at {longest} tokens every answer was right"
        self.announcer.note(f"at {length} tokens hardly a reply could be judged{known}")

    async def _certify(self, problem: SearchProblem, documents: Sequence[int]) -> bool:
        """Whether both ends of the bracket hold on a fresh load, on each of fresh documents."""
        self.announcer.phase(CERTIFY)
        await self.instance.release()
        for document in documents:
            if not await self._certify_on(problem, document):
                return False
        return True

    async def _certify_on(self, problem: SearchProblem, document: int) -> bool:
        """Whether both ends of the bracket hold on a fresh document.

        The load is made for the upper end, so that one reading serves both: it is larger than
        the answer by the bracket's width, a 64th. Where the engine itself failed there, or
        nothing did, it is made for the answer. If the answer does not hold and another one is
        known just below, that one is put to the test at once: the document is read already.
        """
        low, high = self._bracket(problem)
        size = low if high is None or high in self.ledger.failures else high
        self.asker.context_length = size
        while not await self._holds(problem, low, document):
            self.announcer.note(f"{low} did not hold on a fresh load and a fresh document")
            if low <= problem.floor:  # the baseline's own length: there is no lower answer
                return False
            await self.asker.record_failure(low, limit_of(self.ledger.at(low)))
            low, high = self._bracket(problem)
            costing = _unlimited(self.budget.refresh(problem, document))
            step = self.findings.strategy.next_step(costing, self.ledger.evidence())
            if not isinstance(step, Done) or low < NEAR_ENOUGH * size:
                return False
        if high is None or high in self.ledger.failures:
            return True
        await self._probe_for(problem, high, document, problem.rule.full)
        if self._verdict(problem, high) is Verdict.FAIL:
            return True
        self.announcer.note(f"{high} did not fail again on a fresh document")
        return False

    def _bracket(self, problem: SearchProblem) -> tuple[int, int | None]:
        return self.findings.strategy.bracket(problem, self.ledger.history())

    async def _holds(self, problem: SearchProblem, length: int, document: int) -> bool:
        """All that is known at this length, the old document's answers and the new one's,
        still passes, and the new ones alone do not refute it.

        Raises `_Unjudged` where most of the new ones say nothing either way.
        """
        await self._probe_for(problem, length, document, CERTIFY_TRIALS)
        alone = self.ledger.certificate(length, document)
        if alone.failure is None and alone.inconclusive * 2 > CERTIFY_TRIALS:
            raise _Unjudged(length)
        passes = self._verdict(problem, length) is Verdict.PASS
        return passes and not problem.rule.refutes(alone, problem.baseline)

    async def _probe_for(
        self, problem: SearchProblem, length: int, document: int, trials: int
    ) -> None:
        """Bring a certificate's questions at one length up to `trials`.

        Raises `BudgetSpent` where they are not expected to fit, after those that are.
        """
        missing = max(0, trials - self.ledger.asked(CERTIFY, length, document))
        fitting = self.budget.within(problem, document, length, missing)
        await self._probe(problem, Ask(length_tokens=length, trials=fitting), CERTIFY, document)
        if fitting < missing and length not in self.ledger.failures:
            raise BudgetSpent

    def _verdict(self, problem: SearchProblem, length: int) -> Verdict:
        return problem.rule.verdict(self.ledger.observation(length), problem.baseline)

    async def _probe(self, problem: SearchProblem, step: Ask, phase: str, document: int) -> None:
        length = step.length_tokens
        self.announcer.probe(phase, length, step.trials)
        await self.asker.ask(self.findings.main, phase, length, document, step.trials)
        seen = self.ledger.observation(length)
        self.announcer.probed(
            phase,
            length,
            (seen.passes, seen.trials),
            problem.rule.verdict(seen, problem.baseline),
            seen.failure,
        )

    def _searched(self, certificate: int) -> int:
        """The document of the search before a certificate: after a broken one its first, which
        may be in the cache.
        """
        return (
            self.findings.document(0) if certificate == 1 else self._certifying(certificate - 1)[0]
        )

    def _certifying(self, certificate: int) -> Sequence[int]:
        """The fresh documents of a certificate; the first has the number 1."""
        fresh = self.findings.options.documents - 1
        first = 1 + (certificate - 1) * fresh
        return [self.findings.document(number) for number in range(first, first + fresh)]

    @property
    def _opening(self) -> Opening:
        return Opening(
            adapter=self.adapter,
            findings=self.findings,
            ledger=self.ledger,
            instance=self.instance,
            asker=self.asker,
            announcer=self.announcer,
        )

    @property
    def _levels(self) -> LevelSearch:
        return LevelSearch(
            findings=self.findings,
            ledger=self.ledger,
            budget=self.budget,
            asker=self.asker,
            announcer=self.announcer,
        )

    @property
    def _key(self) -> str:
        return self.findings.model.key


def _unlimited(problem: SearchProblem) -> SearchProblem:
    """The same, with as much to spend as it takes."""
    return attrs.evolve(problem, remaining_tokens=None, remaining_s=None)
