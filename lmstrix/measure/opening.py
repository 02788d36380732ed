"""The first phases of a measurement: load, and the model's own rate at short length."""

from __future__ import annotations

import attrs

from lmstrix.errors import ConfigurationError, InfrastructureError, LoadError
from lmstrix.events import BaselineMeasured
from lmstrix.measure.announcing import Announcer
from lmstrix.measure.asking import Asker
from lmstrix.measure.engine import Engine
from lmstrix.measure.findings import Findings
from lmstrix.measure.ledger import BASELINE, Ledger
from lmstrix.measure.loading import Loadable, find_loadable, load_cause, wanted_context
from lmstrix.measure.retrying import with_retries
from lmstrix.models import Cause, Observation
from lmstrix.ports import Adapter
from lmstrix.problem import SearchProblem

__all__ = ["Opening"]

BASELINE_TRIALS = 12
LOWEST_BASELINE = 0.5
"""A model that misses more than half at short length is not measurable by this validator."""


@attrs.frozen(kw_only=True)
class Opening:
    """Finds out between which lengths there is something to search."""

    adapter: Adapter
    findings: Findings
    ledger: Ledger
    instance: Engine
    asker: Asker
    announcer: Announcer

    async def problem(self) -> SearchProblem | Cause:
        """What is to be solved, with the model loaded; a cause where there will be no number."""
        loadable = await self._load()
        if isinstance(loadable, Cause):
            return loadable
        self._reach(loadable.context_length)
        return await self._baseline(loadable)

    async def _load(self) -> Loadable | Cause:
        self.announcer.phase("load")
        options, model = self.findings.options, self.findings.model
        shortest = self.findings.validator.baseline_length
        wanted = wanted_context(model, options.max_context)
        if model.declared_context is None and options.max_context is None:
            self.announcer.note(f"it declares no context, so {wanted} tokens are tried at most")
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
                    deaths=self.ledger.deaths,
                    loaded_before=self.ledger.loaded_before,
                    max_memory_bytes=options.max_memory_bytes,
                    load_timeout_s=options.load_timeout_s,
                ),
                on=(InfrastructureError,),
                announce=self.announcer.retry,
            )
        except LoadError as error:
            self.announcer.note(str(error))
            return load_cause(error)
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
        for document in (self.findings.document(-1), self.findings.document(0)):
            missing = BASELINE_TRIALS // 2 - ledger.asked(BASELINE, length, document)
            try:
                await self.asker.ask(main, BASELINE, length, document, max(0, missing))
            except ConfigurationError as error:  # a chat template may be longer than that
                self.announcer.note(f"at {length} tokens nothing can be asked: {error}")
                return Cause.NOT_MEASURABLE
            if length in ledger.failures:
                return ledger.failures[length]
        baseline = ledger.baseline(length)
        self.announcer.emit(BaselineMeasured(model_key=self.findings.model.key, baseline=baseline))
        if ledger.inconclusive(BASELINE) * 2 > BASELINE_TRIALS:
            return Cause.INCONCLUSIVE
        problem = SearchProblem(
            floor=length,
            ceiling=loadable.context_length,
            baseline=baseline,
            rule=self.findings.options.rule,
            tolerance=self.findings.options.tolerance,
        )
        if baseline.rate < LOWEST_BASELINE or _contradicts(problem):
            self.announcer.note(
                f"at {length} tokens it passes {baseline.passes} of {baseline.trials} "
                f"{validator.name} questions, so nothing can be said about longer prompts"
            )
            return Cause.NOT_MEASURABLE
        return problem

    def _reach(self, context_length: int) -> None:
        """From now on that much is loaded, and no more of what earlier runs said counts."""
        self.asker.context_length = self.ledger.reach = context_length
        if beyond := self.ledger.beyond():
            self.announcer.note(
                f"an earlier run had more loaded: its answers at {min(beyond)} tokens"
                f"{' and more' if len(beyond) > 1 else ''} are left out"
            )


def _contradicts(problem: SearchProblem) -> bool:
    """Whether the floor itself fails: with an absolute pass rate the baseline may miss it."""
    at_floor = Observation(
        length_tokens=problem.floor,
        passes=problem.baseline.passes,
        trials=problem.baseline.trials,
    )
    return problem.rule.refutes(at_floor, problem.baseline)
