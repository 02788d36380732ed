"""A store that people can read: one JSON object on each line of a text file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import anyio
import platformdirs

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
from lmstrix.stores._files import check_regular, one_at_a_time
from lmstrix.stores._jsonl_lines import (
    BeginLine,
    CostLine,
    FailureLine,
    Line,
    LoadLine,
    ReportLine,
    TrialLine,
)
from lmstrix.stores._jsonl_log import Log
from lmstrix.stores._worker import Worker
from lmstrix.stores.archive import (
    ImportedResult,
    Merged,
    ReportSummary,
    StoreContents,
    summarize,
)
from lmstrix.stores.exchange import LARGEST_LENGTH
from lmstrix.stores.merging import newest_imported

__all__ = ["JsonlStore"]

T = TypeVar("T")


class JsonlStore:
    """Keeps trials and reports as lines of JSON, to be read with any text tool.

    Without a `path` that is ``lmstrix.jsonl`` in the user's data folder. Nothing is touched
    before the first call. Lines are only ever added, one write and one fsync each, in a
    worker thread and under a lock that dies with its holder; several processes may use the
    file at once. A call that has begun is not abandoned when its task is cancelled.

    The first call reads the file through, so with thousands of reports `SqliteStore` is the
    quicker one.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or platformdirs.user_data_path("lmstrix") / "lmstrix.jsonl"
        self._worker = Worker(self._path)
        self._log: Log | None = None

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that the user should read, on a file set aside and lines left out."""
        return () if self._log is None else self._log.warnings

    async def begin(self, key: str, model: ModelInfo) -> StoredMeasurement:
        """A new, empty measurement under `key`, which replaces an unfinished one."""
        new = StoredMeasurement(
            id=uuid.uuid4().hex, key=key, started_at=datetime.now(UTC), trials=()
        )
        line = BeginLine(measurement=new.id, key=key, model=model, started_at=new.started_at)
        await self._run(lambda log: log.add(line))
        return new

    async def unfinished(self, key: str) -> StoredMeasurement | None:
        """The interrupted measurement under `key`, with its trials in order, or None."""
        return await self._run(lambda log: log.unfinished(key))

    async def append_trial(self, measurement_id: str, trial: Trial) -> None:
        """Remember one trial."""
        await self._add(measurement_id, TrialLine(measurement=measurement_id, trial=trial))

    async def append_failure(self, measurement_id: str, failure: Observation) -> None:
        """Remember that the engine failed at a length."""
        await self._add(measurement_id, FailureLine(measurement=measurement_id, failure=failure))

    async def save_cost(self, measurement_id: str, cost: Cost) -> None:
        """Remember what the measurement has cost so far."""
        await self._add(measurement_id, CostLine(measurement=measurement_id, cost=cost))

    async def mark_load(self, measurement_id: str, context_length: int) -> None:
        """Remember that a load at `context_length` is about to be tried."""
        if not 0 < context_length <= LARGEST_LENGTH:
            raise StoreError(f"{context_length} is no context length.")
        line = LoadLine(measurement=measurement_id, context_length=context_length)
        await self._add(measurement_id, line)

    async def clear_load(self, measurement_id: str) -> None:
        """Remember that the load has ended."""
        line = LoadLine(measurement=measurement_id, context_length=None)
        await self._add(measurement_id, line)

    async def finish(self, measurement_id: str, report: ContextReport) -> None:
        """Keep the report; the measurement is no longer unfinished."""
        await self._add(measurement_id, ReportLine(measurement=measurement_id, report=report))

    async def reports(self) -> Sequence[StoredReport]:
        """The newest finished report of each key, newest first."""
        return await self._run(Log.reports)

    async def unfinished_models(self) -> Sequence[ModelInfo]:
        """Models with an interrupted measurement, newest first, each once."""
        return await self._run(Log.unfinished_models)

    async def summaries(self) -> Sequence[ReportSummary]:
        """One summary for each of `reports`, in the same order."""
        return [summarize(stored) for stored in await self.reports()]

    async def imported(self) -> Sequence[ImportedResult]:
        """Results of earlier versions, each model's newest, sorted by model key."""
        return newest_imported(await self._run(lambda log: tuple(log.imported)))

    async def contents(self) -> StoreContents:
        """Everything that can be read, as of one moment."""
        return await self._run(Log.contents)

    async def merge(self, contents: StoreContents) -> Merged:
        """Add what is not here yet, in one write; nothing that is here is changed."""
        return await self._run(lambda log: log.merge(contents))

    async def aclose(self) -> None:
        """Nothing is held open between calls; the next one reads the file again."""

        def forget() -> None:
            # The warnings of what was found stay with the object.
            if self._log is not None:
                self._log.forget()

        with anyio.CancelScope(shield=True):
            await self._worker.run(forget)

    async def _add(self, measurement_id: str, line: Line) -> None:
        def work(log: Log) -> None:
            log.find(measurement_id)
            log.add(line)

        await self._run(work)

    async def _run(self, work: Callable[[Log], T]) -> T:
        def locked() -> T:
            real = Path(os.path.realpath(self._path))
            if self._log is None:
                self._log = Log(real)
            # Before the lock: none is made beside a device or a pipe.
            check_regular(real)
            real.parent.mkdir(parents=True, exist_ok=True)
            with one_at_a_time(real):
                self._log.catch_up()
                return work(self._log)

        return await self._worker.run(locked)
