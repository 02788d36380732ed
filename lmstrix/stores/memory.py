"""A store for one run: everything is forgotten with the object."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import anyio.lowlevel

from lmstrix.errors import StoreError
from lmstrix.models import (
    ContextReport,
    Cost,
    ModelInfo,
    Observation,
    StoredMeasurement,
    StoredReport,
    Trial,
)
from lmstrix.stores._book import Book, Page
from lmstrix.stores.archive import (
    ImportedResult,
    KeptMeasurement,
    Merged,
    ReportSummary,
    StoreContents,
    summarize,
)
from lmstrix.stores.exchange import LARGEST_LENGTH
from lmstrix.stores.merging import Known, MergePlan, newest_imported, plan_merge

__all__ = ["MemoryStore"]

_Page = Page[Trial, ContextReport]


class MemoryStore:
    """Keeps trials and reports in this process's memory.

    For tests, and for measurements that nobody wants to go on with later. Each change is one
    step without an await in it, so tasks cannot get in each other's way; the await comes
    before, so that a cancelled call has changed nothing.
    """

    def __init__(self) -> None:
        self._book = Book[Trial, ContextReport]()
        self._imported: dict[ImportedResult, None] = {}

    @property
    def location(self) -> str:
        """An empty string: it is nowhere."""
        return ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """There is no file that could be damaged, and nothing to say."""
        return ()

    async def begin(self, key: str, model: ModelInfo) -> StoredMeasurement:
        """A new, empty measurement under `key`, which replaces an unfinished one."""
        await anyio.lowlevel.checkpoint()
        page = _Page(id=uuid.uuid4().hex, key=key, model=model, started_at=datetime.now(UTC))
        self._book.begin(page)
        return _stored(page)

    async def unfinished(self, key: str) -> StoredMeasurement | None:
        """The interrupted measurement under `key`, with its trials in order, or None."""
        await anyio.lowlevel.checkpoint()
        page = self._book.offered(key)
        return None if page is None else _stored(page)

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> None:
        """Remember one trial."""
        await anyio.lowlevel.checkpoint()
        self._find(measurement_id).trials.extend(trials)

    async def append_failure(self, measurement_id: str, failure: Observation) -> None:
        """Remember that the engine failed at a length."""
        await anyio.lowlevel.checkpoint()
        self._find(measurement_id).failures.append(failure)

    async def save_cost(self, measurement_id: str, cost: Cost) -> None:
        """Remember what the measurement has cost so far."""
        await anyio.lowlevel.checkpoint()
        self._find(measurement_id).cost = cost

    async def mark_load(self, measurement_id: str, context_length: int) -> None:
        """Remember that a load at `context_length` is about to be tried."""
        await anyio.lowlevel.checkpoint()
        if not 0 < context_length <= LARGEST_LENGTH:
            raise StoreError(f"{context_length} is no context length.")
        self._find(measurement_id).deaths = (*self._find(measurement_id).deaths, context_length)

    async def clear_load(self, measurement_id: str) -> None:
        """Remember that the load has ended."""
        await anyio.lowlevel.checkpoint()
        self._find(measurement_id).deaths = self._find(measurement_id).deaths[:-1]

    async def finish(self, measurement_id: str, report: ContextReport) -> None:
        """Keep the report; the measurement is no longer unfinished."""
        await anyio.lowlevel.checkpoint()
        self._book.finish(self._find(measurement_id), report)

    async def reports(self) -> Sequence[StoredReport]:
        """The newest finished report of each key, newest first."""
        await anyio.lowlevel.checkpoint()
        newest: dict[str, StoredReport] = {}
        for page in reversed(list(self._book.finished_pages())):
            if page.report is not None and page.key not in newest:
                newest[page.key] = StoredReport(id=page.id, key=page.key, report=page.report)
        return tuple(newest.values())

    async def unfinished_models(self) -> Sequence[ModelInfo]:
        """Models with an interrupted measurement, newest first, each once."""
        await anyio.lowlevel.checkpoint()
        return tuple(dict.fromkeys(page.model for page in self._book.offered_pages()))

    async def summaries(self) -> Sequence[ReportSummary]:
        """One summary for each of `reports`, in the same order."""
        return [summarize(stored) for stored in await self.reports()]

    async def imported(self) -> Sequence[ImportedResult]:
        """Results of earlier versions, each model's newest, sorted by model key."""
        await anyio.lowlevel.checkpoint()
        return newest_imported(self._imported)

    async def contents(self) -> StoreContents:
        """Everything in it."""
        await anyio.lowlevel.checkpoint()
        return StoreContents(
            measurements=tuple(_kept(page) for page in self._book.all_pages()),
            imported=tuple(self._imported),
        )

    async def merge(self, contents: StoreContents) -> Merged:
        """Add what is not here yet; nothing that is here is changed or lost."""
        await anyio.lowlevel.checkpoint()
        book = self._book
        known = Known(
            kept=lambda identity: _kept(book.pages[identity]) if identity in book.pages else None,
            offered={page.key for page in book.offered_pages()},
            finished=[
                (page.id, page.report.finished_at)
                for page in book.finished_pages()
                if page.report is not None
            ],
            imported=self._imported,
        )
        plan = plan_merge(known, contents)
        self._apply(plan)
        return plan.merged

    async def aclose(self) -> None:
        """Nothing is held open."""
        await anyio.lowlevel.checkpoint()

    def _apply(self, plan: MergePlan) -> None:
        for new in plan.new:
            page = _Page(
                id=new.id,
                key=new.key,
                model=new.model,
                started_at=new.started_at,
                trials=list(new.trials),
                failures=list(new.failures),
                cost=new.cost,
                deaths=new.deaths,
                replaced=new.replaced,
                report=new.report,
            )
            self._book.begin(page)
        for more in plan.extensions:
            page = self._book.pages[more.id]
            page.trials.extend(more.trials)
            page.failures.extend(more.failures)
            page.cost = more.cost or page.cost
            if more.report is not None:
                self._book.finish(page, more.report)
        if plan.order:
            self._book.reorder(plan.order)
        self._imported.update(dict.fromkeys(plan.imported))

    def _find(self, measurement_id: str) -> _Page:
        found = self._book.pages.get(measurement_id)
        if found is None:
            raise StoreError("There is no such measurement in this store.")
        return found


def _stored(page: _Page) -> StoredMeasurement:
    """What it holds now; later appends do not change it."""
    return StoredMeasurement(
        id=page.id,
        key=page.key,
        started_at=page.started_at,
        trials=tuple(page.trials),
        failures=tuple(page.failures),
        cost=page.cost,
        deaths=page.deaths,
    )


def _kept(page: _Page) -> KeptMeasurement:
    return KeptMeasurement(
        id=page.id,
        key=page.key,
        model=page.model,
        started_at=page.started_at,
        trials=tuple(page.trials),
        failures=tuple(page.failures),
        cost=page.cost,
        deaths=page.deaths,
        replaced=page.replaced,
        report=page.report,
    )
