"""From what is known to a report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from lmstrix.errors import (
    InfrastructureError,
    InvalidModel,
    LMStrixError,
    LoadError,
    LoadHung,
    LoadRefused,
    ModelNotFound,
    UnsupportedModel,
)
from lmstrix.measure.curve import curve_of
from lmstrix.measure.findings import Findings, limit_of
from lmstrix.measure.ledger import Ledger
from lmstrix.measure.level_reports import level_reports
from lmstrix.models import (
    Baseline,
    Cause,
    ContextReport,
    Cost,
    CurvePoint,
    Environment,
    Interval,
    LevelReport,
    Method,
    ModelInfo,
    Observation,
    Usable,
    Verdict,
)
from lmstrix.problem import Done, SearchProblem
from lmstrix.speed import usable_context

__all__ = ["build_report", "unmeasured_report"]

NO_INTERVAL = Interval(low=0, high=None, level=0.0)


def build_report(findings: Findings, cause: Cause | None, *, seconds: float) -> ContextReport:
    """The report that the evidence carries; `cause` where something else ended it."""
    ledger, problem, loadable = findings.ledger, findings.problem, findings.loadable
    bracket: tuple[int, int | None] = (0, None)
    interval = NO_INTERVAL
    true_context: int | None = None
    estimate: int | None = None
    levels: tuple[LevelReport, ...] = ()
    curve = tuple(curve_of(ledger, problem)) if ledger else ()
    if ledger and problem and cause is not Cause.INCONCLUSIVE:
        history = ledger.evidence()
        bracket = findings.strategy.bracket(problem, history)
        interval = findings.strategy.interval(problem, history)
        true_context = bracket[0] if findings.options.only_at is None else None
        cause = cause or _cause(findings, ledger, bracket)
        estimate = _estimate(findings, problem, history)
        levels = tuple(level_reports(findings, bracket, cause))
    return ContextReport(
        model=findings.model,
        declared_context=findings.model.declared_context,
        loadable_context=loadable.context_length if loadable else None,
        true_context=true_context,
        cause=cause or Cause.INCONCLUSIVE,
        certified=findings.certified,
        bracket=bracket,
        interval=interval,
        monotone=_is_monotone(problem, ledger),
        baseline=_baseline(findings),
        curve=curve,
        cost=ledger.with_seconds(seconds) if ledger else Cost(seconds=seconds),
        method=findings.method,
        environment=_environment(findings),
        started_at=findings.started_at,
        finished_at=datetime.now(UTC),
        levels=levels,
        estimate=estimate,
        usable=_usable(findings, curve, true_context),
        notes=tuple(findings.notes),
    )


def unmeasured_report(
    *,
    model: ModelInfo,
    error: LMStrixError,
    method: Method,
    environment: Environment,
) -> ContextReport:
    """The report of a model that could not be measured at all, with the cause in `error`."""
    now = datetime.now(UTC)
    notes = (str(error), *((error.hint,) if error.hint else ()))
    return ContextReport(
        model=model,
        declared_context=model.declared_context,
        loadable_context=None,
        true_context=None,
        cause=_cause_of(error),
        certified=False,
        bracket=(0, None),
        interval=NO_INTERVAL,
        monotone=True,
        baseline=Baseline(passes=0, trials=0),
        curve=(),
        cost=Cost(),
        method=method,
        environment=environment,
        started_at=now,
        finished_at=now,
        notes=notes,
    )


def _estimate(
    findings: Findings, problem: SearchProblem, history: Sequence[Observation]
) -> int | None:
    step = findings.strategy.next_step(problem, history)
    return step.estimate if isinstance(step, Done) else None


def _usable(
    findings: Findings, curve: Sequence[CurvePoint], true_context: int | None
) -> Usable | None:
    speed, wait = findings.options.min_tokens_per_second, findings.options.max_ttft_s
    if speed is None and wait is None:
        return None
    limit = usable_context(curve, true_context or 0, min_tokens_per_second=speed, max_ttft_s=wait)
    return Usable(limit_tokens=limit, min_tokens_per_second=speed, max_ttft_s=wait)


def _cause_of(error: LMStrixError) -> Cause:
    causes: tuple[tuple[type[LMStrixError], Cause], ...] = (
        (ModelNotFound, Cause.MODEL_NOT_FOUND),
        (InvalidModel, Cause.INVALID_MODEL),
        (UnsupportedModel, Cause.UNSUPPORTED_MODEL),
        (InfrastructureError, Cause.INFRASTRUCTURE),
        (LoadRefused, Cause.LOAD_REFUSED),
        (LoadHung, Cause.LOAD_HUNG),
        (LoadError, Cause.LOAD_FAILED),
    )
    return next((cause for kind, cause in causes if isinstance(error, kind)), Cause.INCONCLUSIVE)


def _cause(findings: Findings, ledger: Ledger, bracket: tuple[int, int | None]) -> Cause:
    """Why the true context is not larger."""
    low, high = bracket
    if high is not None:
        return ledger.failures.get(high) or _limit_at(findings, ledger, high)
    if findings.loadable is not None and findings.loadable.limit is not None:
        return findings.loadable.limit
    declared = findings.model.declared_context
    return Cause.DECLARED_MAXIMUM if low == declared else Cause.MAX_CONTEXT


def _baseline(findings: Findings) -> Baseline:
    length = findings.validator.baseline_length
    if findings.ledger is None:
        return Baseline(passes=0, trials=0, length_tokens=length)
    return findings.ledger.baseline(length)


def _is_monotone(problem: SearchProblem | None, ledger: Ledger | None) -> bool:
    """Whether no length failed below one that passed."""
    if problem is None or ledger is None:
        return True
    failed = False
    for observation in ledger.history():
        verdict = problem.rule.verdict(observation, problem.baseline)
        if verdict is Verdict.PASS and failed:
            return False
        failed = failed or verdict is Verdict.FAIL
    return True


def _limit_at(findings: Findings, ledger: Ledger, length: int) -> Cause:
    """Why the answers at `length` are wrong: where it no longer writes language, that is why."""
    for level in findings.levels:
        problem = findings.level_problems.get(level.key)
        if level.required and problem is not None:
            seen = ledger.observation(length, level.key)
            if problem.rule.verdict(seen, problem.baseline) is Verdict.FAIL:
                return limit_of(ledger.at(length, level.key))
    return limit_of(ledger.at(length))


def _environment(findings: Findings) -> Environment:
    status = findings.status
    if status is None:
        return Environment(adapter="")
    return Environment(adapter=status.adapter, engine=status.engine, versions=dict(status.versions))
