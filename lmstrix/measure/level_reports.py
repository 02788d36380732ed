"""From what is known of each level to its part of the report."""

from __future__ import annotations

from collections.abc import Iterator

from lmstrix.measure.curve import curve_of
from lmstrix.measure.findings import Findings, limit_of
from lmstrix.measure.ledger import Ledger
from lmstrix.measure.level import Level
from lmstrix.measure.levels import level_bracket
from lmstrix.models import UNFINISHED, Cause, LevelReport

__all__ = ["level_reports"]


def level_reports(
    findings: Findings, bracket: tuple[int, int | None], cause: Cause
) -> Iterator[LevelReport]:
    """The levels that count first, then the validator itself, then the deeper ones.

    `bracket` and `cause` are the main search's. Nothing where only that was measured.
    """
    ledger, problem = findings.ledger, findings.problem
    if ledger is None or problem is None or not findings.levels:
        return
    for level in findings.levels:
        if level.required:
            yield _report(findings, ledger, level, cause)
    yield LevelReport(
        name=findings.validator.name,
        limit_tokens=bracket[0],
        bracket=bracket,
        cause=cause,
        baseline=problem.baseline,
        curve=tuple(curve_of(ledger, problem)),
    )
    for level in findings.levels:
        if not level.required:
            yield _report(findings, ledger, level, cause)


def _report(findings: Findings, ledger: Ledger, level: Level, ended: Cause) -> LevelReport:
    """`ended` is why the measurement ended: too early, and it is the cause of its levels too."""
    length = level.validator.baseline_length
    problem = findings.level_problems.get(level.key)
    baseline = ledger.baseline(length, level.key)
    if problem is None:
        return LevelReport(
            name=level.key,
            limit_tokens=None,
            bracket=(0, None),
            cause=ended if ended in UNFINISHED else Cause.NOT_MEASURABLE,
            baseline=baseline,
        )
    low, high = level_bracket(ledger, problem, level)
    return LevelReport(
        name=level.key,
        limit_tokens=low,
        bracket=(low, high),
        cause=_cause(findings, ledger, level, (low, high), ended),
        baseline=baseline,
        curve=tuple(curve_of(ledger, problem, level.key)),
    )


def _cause(
    findings: Findings, ledger: Ledger, level: Level, bracket: tuple[int, int | None], ended: Cause
) -> Cause:
    low, high = bracket
    if high is not None:
        return limit_of(ledger.at(high, level.key))
    if ended in UNFINISHED:
        return ended
    if findings.loadable is not None and low == findings.loadable.context_length:
        declared = findings.model.declared_context
        at_the_end = Cause.DECLARED_MAXIMUM if low == declared else Cause.MAX_CONTEXT
        return findings.loadable.limit or at_the_end
    return Cause.NOTHING_FAILED
