"""Frozen facts of a check: whether a model handles one context length.

A check is no measurement of the true context: it says nothing about any other length, and is
kept in no store.
"""

from __future__ import annotations

import enum
from datetime import datetime

import attrs

from lmstrix.models import (
    Baseline,
    Cause,
    ContextReport,
    Cost,
    CurvePoint,
    Environment,
    LevelReport,
    Method,
    ModelInfo,
    Proportion,
    Verdict,
)
from lmstrix.stats import wilson

__all__ = ["CHECK_SCHEMA_VERSION", "Outcome", "SizeCheck", "check_of"]

CHECK_SCHEMA_VERSION = 1
"""Version of the JSON form of `SizeCheck`."""

_FAILING = frozenset(
    {
        Cause.LOAD_REFUSED,
        Cause.LOAD_FAILED,
        Cause.LOAD_HUNG,
        Cause.CLAMPED,
        Cause.CRASHED_ON_FILL,
        Cause.OVERFLOW,
        Cause.TRUNCATED,
        Cause.TOO_SLOW,
    }
)
"""What ends a check before a question at that length was answered, and answers it."""


class Outcome(enum.StrEnum):
    """What a check says."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@attrs.frozen(kw_only=True)
class SizeCheck:
    """Whether `model` does at `length_tokens` what it does at short length, with evidence.

    `cause` is why not, or what kept it from being told; None where it passes.
    """

    model: ModelInfo
    length_tokens: int
    outcome: Outcome
    cause: Cause | None
    passes: int
    trials: int
    """Answers that count, passes and fails."""
    wilson: Proportion
    """Of the pass rate, 95 %."""
    inconclusive: int
    ttft_s: float | None
    tokens_per_second: float | None
    baseline: Baseline
    levels: tuple[LevelReport, ...]
    cost: Cost
    method: Method
    environment: Environment
    started_at: datetime
    finished_at: datetime
    notes: tuple[str, ...] = ()
    schema_version: int = CHECK_SCHEMA_VERSION


def check_of(report: ContextReport, length_tokens: int) -> SizeCheck:
    """What the report of a measurement with `only_at` says about that length."""
    point = next((p for p in report.curve if p.length_tokens == length_tokens), None)
    outcome = _outcome(report, point)
    passes, trials = (point.passes, point.trials) if point else (0, 0)
    return SizeCheck(
        model=report.model,
        length_tokens=length_tokens,
        outcome=outcome,
        cause=None if outcome is Outcome.PASS else report.cause,
        passes=passes,
        trials=trials,
        wilson=wilson(passes, trials),
        inconclusive=point.inconclusive if point else 0,
        ttft_s=point.ttft_s if point else None,
        tokens_per_second=point.tokens_per_second if point else None,
        baseline=report.baseline,
        levels=report.levels,
        cost=report.cost,
        method=report.method,
        environment=report.environment,
        started_at=report.started_at,
        finished_at=report.finished_at,
        notes=report.notes,
    )


def _outcome(report: ContextReport, point: CurvePoint | None) -> Outcome:
    if point is not None and point.verdict is Verdict.FAIL:
        return Outcome.FAIL
    if report.cause in _FAILING or (point is None and report.cause is Cause.DECLARED_MAXIMUM):
        return Outcome.FAIL
    # Cut short before everything was asked, what is there so far is no verdict.
    finished = report.cause in {Cause.DECLARED_MAXIMUM, Cause.MAX_CONTEXT}
    passed = point is not None and point.verdict is Verdict.PASS
    return Outcome.PASS if passed and finished else Outcome.INCONCLUSIVE
