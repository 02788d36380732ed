"""The phases of a measurement: load, baseline, search, certify."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lmstrix.errors import InfrastructureError, LoadError, LoadRefused
from lmstrix.events import BaselineMeasured, BracketChanged
from lmstrix.measure.announcing import Announcer
from lmstrix.measure.asking import Asker
from lmstrix.measure.budget import Budget, BudgetSpent
from lmstrix.measure.findings import Findings, limit_of
from lmstrix.measure.instance import Instance
from lmstrix.measure.ledger import BASELINE, CERTIFY, SEARCH, Ledger
from lmstrix.measure.levels import LevelSearch
from lmstrix.measure.loading import Loadable, find_loadable, wanted_context
from lmstrix.measure.retrying import with_retries
from lmstrix.models import Cause, Verdict
from lmstrix.ports import Adapter
from lmstrix.problem import Ask, Done, SearchProblem

__all__ = ["Course"]

BASELINE_TRIALS = 12
LOWEST_BASELINE = 0.5
"""A model that misses more than half at short length is not measurable by this validator."""

CERTIFY_TRIALS = 14
"""Fourteen passes of fourteen show a rate above 80 % at one-sided 95 %: .8 ** 14 < .05."""

MOST_CERTIFICATES = 4

NEAR_ENOUGH = 7 / 8
"""An answer is certified on a load made for it, or for one larger by an eighth at most."""


@attrs.define(kw_only=True)
class Course:
    """One run through the phases, with the parts that they share."""

    adapter: Adapter
    findings: Findings
    ledger: Ledger
    budget: Budget
    instance: Instance
    asker: Asker
    announcer: Announcer

    async def run(self) -> Cause | None:
        """Go through the phases, and leave nothing loaded.

        Returns a cause where there is no number, None where the evidence speaks.
        """
        try:
            loadable = await self._load()
            if isinstance(loadable, Cause):
                return loadable
            self.asker.context_length = loadable.context_length
            problem = await self._baseline(loadable)
            if isinstance(problem, Cause):
                return problem
            self.findings.problem = problem
            await self._levels.baselines(problem, self._document(0))
            return await self._search_and_certify(problem, loadable.context_length)
        except BudgetSpent:
            return Cause.BUDGET_SPENT
        finally:
            # The adapter shields its own cleanup and gives it a deadline.
            await self.instance.release()

    async def _load(self) -> Loadable | Cause:
        self.announcer.phase("load")
        options, model = self.findings.options, self.findings.model
        shortest = self.findings.validator.baseline_length
        wanted = wanted_context(model, options.max_context)
        if wanted < (options.only_at or 0):
            self.announcer.note(f"it declares {wanted} tokens, so {options.only_at} were not tried")
            return Cause.DECLARED_MAXIMUM
        try:
            loadable = await with_retries(
                options.retry,
                lambda: find_loadable(
                    self.adapter,
                    model,
                    self.instance,
                    wanted=wanted,
                    floor=options.only_at or min(shortest, wanted),
                    force=options.force,
                    deadly=self.ledger.deadly,
                    max_memory_bytes=options.max_memory_bytes,
                ),
                on=(InfrastructureError,),
                announce=self.announcer.retry,
            )
        except LoadError as error:
            self.announcer.note(str(error))
            return Cause.LOAD_REFUSED if isinstance(error, LoadRefused) else Cause.LOAD_FAILED
        self.findings.loadable = loadable
        if loadable.detail:
            self.announcer.note(loadable.detail)
        if loadable.context_length < (options.only_at or 0):
            return Cause.CLAMPED
        if loadable.context_length < shortest:
            self.announcer.note(
                f"the engine gives {loadable.context_length} tokens, and the baseline alone "
                f"needs {shortest}"
            )
            return Cause.NOT_MEASURABLE
        return loadable

    async def _baseline(self, loadable: Loadable) -> SearchProblem | Cause:
        """Half on a document of its own, half on the one that the search goes on with."""
        self.announcer.phase(BASELINE)
        main, ledger = self.findings.main, self.ledger
        validator, length = main.validator, main.validator.baseline_length
        for document in (self._document(-1), self._document(0)):
            missing = BASELINE_TRIALS // 2 - ledger.asked(BASELINE, length, document)
            await self.asker.ask(main, BASELINE, length, document, max(0, missing))
            if length in ledger.failures:
                return ledger.failures[length]
        baseline = ledger.baseline(length)
        self.announcer.emit(BaselineMeasured(model_key=self._key, baseline=baseline))
        if ledger.inconclusive(BASELINE) * 2 > BASELINE_TRIALS:
            return Cause.INCONCLUSIVE
        if baseline.rate < LOWEST_BASELINE:
            self.announcer.note(
                f"at {length} tokens it passes {baseline.passes} of {baseline.trials} "
                f"{validator.name} questions, so nothing can be said about longer prompts"
            )
            return Cause.NOT_MEASURABLE
        return SearchProblem(
            floor=length,
            ceiling=loadable.context_length,
            baseline=baseline,
            rule=self.findings.options.rule,
            tolerance=self.findings.options.tolerance,
        )

    async def _search_and_certify(self, problem: SearchProblem, ceiling: int) -> Cause | None:
        for certificate in range(self.ledger.settled_certificates() + 1, MOST_CERTIFICATES + 1):
            document = self._searched(certificate)
            stuck = await self._search(problem, document)
            # Where a level that counts fails below the answer, the answer moves.
            while stuck is None and not await self._levels.measure(problem, document):
                stuck = await self._search(problem, document)
            if stuck is not None or not self.findings.options.certify:
                return stuck
            if not self.budget.affords(problem, self._bracket(problem)[0], CERTIFY_TRIALS):
                return Cause.BUDGET_SPENT
            if await self._certify(problem, self._certifying(certificate)):
                self.findings.certified = True
                return None
            if self._verdict(problem, problem.floor) is Verdict.FAIL:
                self.announcer.note(
                    f"its answers at {problem.floor} tokens contradict the baseline"
                )
                return Cause.INCONCLUSIVE
            self.asker.context_length = ceiling
        self.announcer.note(f"not certified: {MOST_CERTIFICATES} certificates did not hold")
        return None

    async def _search(self, problem: SearchProblem, document: int) -> Cause | None:
        """Do what the strategy says until it is done."""
        self.announcer.phase(SEARCH)
        strategy = self.findings.strategy
        shown: tuple[int, int | None] | None = None
        while True:
            history = self.ledger.history()
            bracket = strategy.bracket(problem, history)
            if bracket != shown:
                shown = bracket
                self.announcer.emit(
                    BracketChanged(model_key=self._key, low=bracket[0], high=bracket[1])
                )
            step = strategy.next_step(self.budget.refresh(problem, document), history)
            if isinstance(step, Done):
                # What is done only because nothing is left to spend goes on another time.
                unlimited = strategy.next_step(problem, history)
                return None if isinstance(unlimited, Done) else Cause.BUDGET_SPENT
            before = self.ledger.observation(step.length_tokens)
            await self._probe(problem, step, SEARCH, document)
            after = self.ledger.observation(step.length_tokens)
            if after.failure is None and after.trials == before.trials:
                self.announcer.note(f"at {step.length_tokens} tokens no reply could be judged")
                return Cause.INCONCLUSIVE

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
            step = self.findings.strategy.next_step(problem, self.ledger.history())
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
        """
        await self._probe_for(problem, length, document, CERTIFY_TRIALS)
        alone = self.ledger.certificate(length, document)
        passes = self._verdict(problem, length) is Verdict.PASS
        return passes and not problem.rule.refutes(alone, problem.baseline)

    async def _probe_for(
        self, problem: SearchProblem, length: int, document: int, trials: int
    ) -> None:
        """Bring a certificate's questions at one length up to `trials`."""
        missing = trials - self.ledger.asked(CERTIFY, length, document)
        step = Ask(length_tokens=length, trials=max(0, missing))
        await self._probe(problem, step, CERTIFY, document)

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
        return self._document(0) if certificate == 1 else self._certifying(certificate - 1)[0]

    def _certifying(self, certificate: int) -> Sequence[int]:
        """The fresh documents of a certificate; the first has the number 1."""
        fresh = self.findings.options.documents - 1
        first = 1 + (certificate - 1) * fresh
        return [self._document(number) for number in range(first, first + fresh)]

    def _document(self, number: int) -> int:
        """A seed of its own for each document of a measurement; -1 is the baseline's own."""
        return self.findings.options.seed * 1000 + number + 1

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
