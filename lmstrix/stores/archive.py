"""What a store can do beside keeping one measurement going: be listed, moved and merged.

`Archive` is a promise apart from `lmstrix.ports.Store`, so that a store of somebody else's
may leave it out. All of ours keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

import attrs

from lmstrix.models import (
    Cause,
    ContextReport,
    Cost,
    ModelInfo,
    Observation,
    StoredReport,
    Trial,
    Verdict,
)

__all__ = [
    "Archive",
    "ImportedResult",
    "KeptMeasurement",
    "Merged",
    "ReportSummary",
    "StoreContents",
    "summarize",
]


@attrs.frozen(kw_only=True)
class KeptMeasurement:
    """Everything that a store keeps of one measurement."""

    id: str
    key: str
    model: ModelInfo
    started_at: datetime
    trials: tuple[Trial, ...] = ()
    failures: tuple[Observation, ...] = ()
    cost: Cost = attrs.field(factory=Cost)
    trying: int | None = None
    """As in `lmstrix.models.StoredMeasurement`."""
    replaced: bool = False
    """Begun anew under the same key, so no longer offered as unfinished."""
    report: ContextReport | None = None
    """None while it is unfinished."""


@attrs.frozen(kw_only=True)
class ImportedResult:
    """What an earlier LMStrix noted about a model. Not a measurement, and never used as one.

    Earlier versions asked two sums at one context length and did not fill the window, so
    `tested_context` is no true context: show it apart from measured results, under its
    `source`. Lengths are tokens.
    """

    source: str
    """Where it comes from, such as ``lmstrix.json``."""
    model_key: str
    model_path: str = ""
    size_bytes: int | None = None
    declared_context: int | None = None
    tested_context: int | None = None
    loadable_context: int | None = None
    last_good_context: int | None = None
    last_bad_context: int | None = None
    status: str = ""
    """The old version's own word: ``completed``, ``failed``, ``testing``, ``untested``."""
    tested_at: datetime | None = None


@attrs.frozen(kw_only=True)
class StoreContents:
    """All of a store, or what is to be merged into one."""

    measurements: tuple[KeptMeasurement, ...] = ()
    """In the order in which they were finished, the oldest first; then the unfinished ones
    in the order in which they were begun."""
    imported: tuple[ImportedResult, ...] = ()


@attrs.frozen(kw_only=True)
class Merged:
    """What a merge added; 0 everywhere where the store had it all."""

    measurements: int = 0
    trials: int = 0
    """Also those of the new measurements."""
    reports: int = 0
    imported: int = 0


@attrs.frozen(kw_only=True)
class ReportSummary:
    """One line on a finished measurement: enough for a list, quick to read by the thousand."""

    id: str
    key: str
    model_key: str
    model_path: str
    model_digest: str
    architecture: str
    quantization: str
    size_bytes: int
    declared_context: int | None
    loadable_context: int | None
    true_context: int | None
    cause: Cause
    certified: bool
    ttft_s: float | None
    """At the true context, like the speed; the largest length that passed up to there."""
    tokens_per_second: float | None
    adapter: str
    validator: str
    seconds: float
    finished_at: datetime


@runtime_checkable
class Archive(Protocol):
    """A store that can be listed quickly, taken out as a whole, and merged with another."""

    async def summaries(self) -> Sequence[ReportSummary]:
        """One summary for each of `Store.reports`, in the same order."""
        ...

    async def imported(self) -> Sequence[ImportedResult]:
        """Results of earlier versions, each model's newest, sorted by model key."""
        ...

    async def contents(self) -> StoreContents:
        """Everything that can be read; what cannot is left out and in `Store.warnings`."""
        ...

    async def merge(self, contents: StoreContents) -> Merged:
        """Add what is not here yet; nothing that is here is changed or lost.

        Measurements are known by their id, and their trials by what names a trial. Reports
        take their place by the time at which they finished. All or nothing; raises
        `StoreError`.
        """
        ...


def summarize(stored: StoredReport) -> ReportSummary:
    """The summary of a report."""
    report = stored.report
    passed = [
        point
        for point in report.curve
        if point.verdict is Verdict.PASS
        and (report.true_context is None or point.length_tokens <= report.true_context)
    ]
    best = max(passed, key=lambda point: point.length_tokens, default=None)
    return ReportSummary(
        id=stored.id,
        key=stored.key,
        model_key=report.model.key,
        model_path=report.model.path,
        model_digest=report.model.digest,
        architecture=report.model.architecture,
        quantization=report.model.quantization,
        size_bytes=report.model.size_bytes,
        declared_context=report.declared_context,
        loadable_context=report.loadable_context,
        true_context=report.true_context,
        cause=report.cause,
        certified=report.certified,
        ttft_s=best.ttft_s if best else None,
        tokens_per_second=best.tokens_per_second if best else None,
        adapter=report.environment.adapter,
        validator=report.method.validator,
        seconds=report.cost.seconds,
        finished_at=report.finished_at,
    )
