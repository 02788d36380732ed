"""The default store: one SQLite file that several processes may use at once."""

from __future__ import annotations

import os
import sqlite3
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
from lmstrix.stores._facts import encode
from lmstrix.stores._files import code_of
from lmstrix.stores._sqlite_file import Suspicion, open_database, transaction
from lmstrix.stores._sqlite_merge import add_report, merge
from lmstrix.stores._sqlite_rows import RowReader, encode_key
from lmstrix.stores._worker import Worker
from lmstrix.stores.archive import ImportedResult, Merged, ReportSummary, StoreContents
from lmstrix.stores.exchange import LARGEST_LENGTH
from lmstrix.stores.merging import newest_imported

__all__ = ["SqliteStore"]

T = TypeVar("T")


class SqliteStore:
    """Keeps trials and reports in one SQLite file.

    Without a `path` that is ``lmstrix.sqlite3`` in the user's data folder. Nothing is touched
    before the first call. Each call is one short transaction in a worker thread, and calls
    take turns. A call that has begun is not abandoned when its task is cancelled: it ends
    within the busy timeout of 10 seconds, and has happened entirely or not at all. After
    `aclose` the next call opens the file again.

    Trials are only ever added. A measurement that was begun anew keeps its rows and is no
    longer offered as unfinished, so a process that still works on it is not disturbed.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or platformdirs.user_data_path("lmstrix") / "lmstrix.sqlite3"
        self._connection: sqlite3.Connection | None = None
        self._worker = Worker(self._path, self._suspect)
        self._notes: list[str] = []
        self._rows = RowReader()

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that the user should read, on a file set aside and rows left out."""
        count = self._rows.skipped
        if not count:
            return tuple(self._notes)
        what = "1 record was" if count == 1 else f"{count} records were"
        return (*self._notes, f"{what} left out: unreadable in {self.location}.")

    async def begin(self, key: str, model: ModelInfo) -> StoredMeasurement:
        """A new, empty measurement under `key`, which replaces an unfinished one."""
        new = StoredMeasurement(
            id=uuid.uuid4().hex, key=key, started_at=datetime.now(UTC), trials=()
        )
        row = (new.id, encode_key(key), encode(model), new.started_at.isoformat())

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.execute(
                    "UPDATE measurements SET replaced = 1 WHERE key = ? AND finished IS NULL",
                    row[1:2],
                )
                connection.execute(
                    "INSERT INTO measurements (id, key, model, started_at) VALUES (?, ?, ?, ?)",
                    row,
                )

        await self._run(work)
        return new

    async def unfinished(self, key: str) -> StoredMeasurement | None:
        """The interrupted measurement under `key`, with its trials in order, or None."""
        return await self._view(lambda connection: self._rows.unfinished(connection, key))

    async def append_trial(self, measurement_id: str, trial: Trial) -> None:
        """Remember one trial."""
        await self._change(
            "INSERT INTO trials (body, measurement) SELECT ?, id FROM measurements WHERE id = ?",
            (encode(trial), measurement_id),
        )

    async def append_failure(self, measurement_id: str, failure: Observation) -> None:
        """Remember that the engine failed at a length."""
        await self._change(
            "INSERT INTO failures (body, measurement) SELECT ?, id FROM measurements WHERE id = ?",
            (encode(failure), measurement_id),
        )

    async def save_cost(self, measurement_id: str, cost: Cost) -> None:
        """Remember what the measurement has cost so far."""
        await self._change(
            "UPDATE measurements SET cost = ? WHERE id = ?", (encode(cost), measurement_id)
        )

    async def mark_load(self, measurement_id: str, context_length: int) -> None:
        """Remember that a load at `context_length` is about to be tried."""
        if not 0 < context_length <= LARGEST_LENGTH:
            raise StoreError(f"{context_length} is no context length.")
        await self._change(
            "INSERT OR REPLACE INTO loads (context_length, measurement)"
            " SELECT ?, seq FROM measurements WHERE id = ?",
            (context_length, measurement_id),
        )

    async def clear_load(self, measurement_id: str) -> None:
        """Remember that the load has ended."""

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                row = connection.execute(
                    "SELECT seq FROM measurements WHERE id = ?", (measurement_id,)
                ).fetchone()
                self._found(row)
                connection.execute("DELETE FROM loads WHERE measurement = ?", row)

        await self._run(work)

    async def finish(self, measurement_id: str, report: ContextReport) -> None:
        """Keep the report; the measurement is no longer unfinished."""

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                self._found(add_report(connection, measurement_id, report))

        await self._run(work)

    async def reports(self) -> Sequence[StoredReport]:
        """The newest finished report of each key, newest first."""
        return await self._view(self._rows.reports)

    async def unfinished_models(self) -> Sequence[ModelInfo]:
        """Models with an interrupted measurement, newest first, each once."""
        return await self._view(self._rows.unfinished_models)

    async def summaries(self) -> Sequence[ReportSummary]:
        """One summary for each of `reports`, in the same order; no report is read for it."""
        return await self._view(self._rows.summaries)

    async def imported(self) -> Sequence[ImportedResult]:
        """Results of earlier versions, each model's newest, sorted by model key."""
        return newest_imported(await self._view(self._rows.imported))

    async def contents(self) -> StoreContents:
        """Everything that can be read, as of one moment."""
        return await self._view(
            lambda connection: StoreContents(
                measurements=tuple(self._rows.kept(connection)),
                imported=self._rows.imported(connection),
            )
        )

    async def merge(self, contents: StoreContents) -> Merged:
        """Add what is not here yet, in one transaction; nothing that is here is changed."""

        def work(connection: sqlite3.Connection) -> Merged:
            with transaction(connection):
                return merge(connection, self._rows, contents)

        return await self._run(work)

    async def aclose(self) -> None:
        """Close the file. Idempotent, and done even in a cancelled task."""
        with anyio.CancelScope(shield=True):
            await self._worker.run(self._close)

    async def _view(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read in one transaction, so that all of it is of the same moment."""

        def work(connection: sqlite3.Connection) -> T:
            with transaction(connection, "DEFERRED"):
                return read(connection)

        return await self._run(work)

    async def _change(self, statement: str, values: tuple[str | int, str]) -> None:
        """Run one statement, which must change one row; raises `StoreError` otherwise."""

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                self._found(connection.execute(statement, values).rowcount)

        await self._run(work)

    def _found(self, what: object) -> None:
        """Raise `StoreError` unless something was found or changed."""
        if not what:
            raise StoreError(f"There is no such measurement in the store {self.location}.")

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._worker.run(lambda: work(self._open()))

    def _suspect(self, error: Exception) -> None:
        """A damaged page was found: whoever opens the file next reads all of it."""
        if code_of(error) == sqlite3.SQLITE_CORRUPT:
            Suspicion.note(self._real_path())

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection, notes = open_database(self._real_path())
            self._notes.extend(notes)
        return self._connection

    def _real_path(self) -> Path:
        """SQLite keeps its log beside the real file, so a link is followed first."""
        return Path(os.path.realpath(self._path))

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
