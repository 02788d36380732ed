"""A store's contents as one JSON document, and the facts that are listed, moved and merged.

The document is untrusted: it is checked as a whole before any of it is used.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

import attrs

from lmstrix.errors import StoreError
from lmstrix.models import (
    SCHEMA_VERSION,
    Cause,
    ContextReport,
    Cost,
    ModelInfo,
    Observation,
    StoredReport,
    Trial,
    Verdict,
)
from lmstrix.serialize import FormatError, from_json, to_json

EXPORT_FORMAT = "lmstrix-store"
EXPORT_VERSION = 1
"""Version of the document. Raised when a key changes its meaning."""
LARGEST_LENGTH = 2**63 - 1
"""Largest context length that a store can keep, in tokens. It is SQLite's largest integer."""

_ID = re.compile(r"[0-9a-f]{32}")
_HINT = (
    "Give a file written by `lmstrix export`. If this is one, it is damaged or incomplete: export"
    " again."
)


@attrs.frozen(kw_only=True)
class KeptMeasurement:
    """Everything that a store keeps about one measurement."""

    id: str
    key: str
    model: ModelInfo
    started_at: datetime
    trials: tuple[Trial, ...] = ()
    failures: tuple[Observation, ...] = ()
    cost: Cost = attrs.field(factory=Cost)
    deaths: tuple[int, ...] = ()
    """As in `lmstrix.models.StoredMeasurement`."""
    replaced: bool = False
    """Whether a later measurement was begun under the same key, so that this one is not resumed."""
    report: ContextReport | None = None
    """None while it is unfinished."""


@attrs.frozen(kw_only=True)
class StoreContents:
    """All of a store, or a part to merge into one; also the exported document."""

    format: str = EXPORT_FORMAT
    schema_version: int = EXPORT_VERSION
    measurements: tuple[KeptMeasurement, ...] = ()
    """The finished ones in the order in which they finished, then the unfinished ones in the order
    in which they were begun."""


@attrs.frozen(kw_only=True)
class Merged:
    """How much a merge added; 0 if the store already had everything."""

    measurements: int = 0
    trials: int = 0
    """Including those of the new measurements."""
    reports: int = 0


@attrs.frozen(kw_only=True)
class ReportSummary:
    """One row about a finished measurement: enough for a list, and quick to read."""

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
    max_context: int | None = None
    """The largest context that was to be tried, if one was named."""
    true_context: int | None
    cause: Cause
    certified: bool
    resumable: bool = False
    """See `ContextReport.resumable`."""
    ttft_s: float | None
    """At the largest length that passed, up to the true context; the speed likewise."""
    tokens_per_second: float | None
    adapter: str
    validator: str
    seconds: float
    finished_at: datetime

    @property
    def model_identity(self) -> str:
        """As `lmstrix.models.ModelInfo.identity`."""
        return self.model_digest or self.model_key


@runtime_checkable
class Archive(Protocol):
    """Listing, export and merging, which a `lmstrix.ports.Store` may offer as well."""

    async def summaries(self) -> Sequence[ReportSummary]:
        """One summary for each of `Store.reports`, in the same order."""
        ...

    async def interrupted(self) -> Sequence[KeptMeasurement]:
        """The measurements that would be resumed, newest first."""
        ...

    async def contents(self) -> StoreContents:
        """Everything readable; `Store.warnings` reports the rest."""
        ...

    async def merge(self, contents: StoreContents) -> Merged:
        """Add everything that is missing here; existing records are not changed or lost.

        Measurements are compared by id, their trials by the fields that name a trial. Reports are
        ordered by the time at which they finished. All or nothing; raises `StoreError`.
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
        max_context=report.method.max_context,
        true_context=report.true_context,
        cause=report.cause,
        certified=report.certified,
        resumable=report.resumable,
        ttft_s=best.ttft_s if best else None,
        tokens_per_second=best.tokens_per_second if best else None,
        adapter=report.environment.adapter,
        validator=report.method.validator,
        seconds=report.cost.seconds,
        finished_at=report.finished_at,
    )


def dump_contents(contents: StoreContents) -> str:
    """The contents as one JSON document. Raises `StoreError` for values that JSON cannot hold."""
    try:
        return to_json(contents)
    except FormatError as error:
        raise StoreError(f"The store cannot be written as JSON: {error}") from error


@attrs.frozen(kw_only=True)
class _Head:
    format: str
    schema_version: int


def load_contents(text: str) -> StoreContents:
    """The contents that `dump_contents` wrote.

    Raises `StoreError` for any other text, for one with a wrong value, and for a document of a
    newer version.
    """
    try:
        return _checked(text)
    except FormatError as error:
        reason = str(error).removeprefix("not a _Head: ")[:300]
        raise StoreError(f"This is not an export of a store: {reason}.", hint=_HINT) from error


def _checked(text: str) -> StoreContents:
    # First the version: a newer document may have another shape in every other place.
    head = from_json(text, _Head)
    if head.format != EXPORT_FORMAT:
        raise FormatError(f"its format is {head.format[:40]!r}")
    if head.schema_version > EXPORT_VERSION:
        raise _newer("The export", head.schema_version)
    contents = from_json(text, StoreContents)
    for number, kept in enumerate(contents.measurements):
        check_measurement(kept, place=f"measurements[{number}].")
    if len({kept.id for kept in contents.measurements}) < len(contents.measurements):
        raise FormatError("two measurements have the same id")
    return contents


def check_measurement(kept: KeptMeasurement, place: str = "") -> None:
    """Raises `FormatError` for values that no store writes, `StoreError` for a newer report.

    `place` is put before the name of the field.
    """
    if not _ID.fullmatch(kept.id):
        raise FormatError(f"{place}id: not an id of a store")
    if not all(0 < length <= LARGEST_LENGTH for length in kept.deaths):
        raise FormatError(f"{place}deaths: an impossible context length")
    if kept.report is not None and kept.report.schema_version > SCHEMA_VERSION:
        raise _newer("A report in the export", kept.report.schema_version)


def _newer(what: str, version: int) -> StoreError:
    return StoreError(
        f"{what} was written by a newer LMStrix (version {version}).",
        hint="Update LMStrix to read it.",
    )
