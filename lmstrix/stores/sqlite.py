"""The default store: one SQLite file that several processes may use at once."""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread
import platformdirs
from anyio.lowlevel import RunVar

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
from lmstrix.stores._sqlite_file import open_database, store_error, transaction
from lmstrix.stores._sqlite_rows import RowReader, encode, encode_key

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
        # The lock is what keeps calls apart, also from several event loops. The limiter, one
        # for each event loop, keeps the waiting ones from filling the pool of threads.
        self._lock = threading.Lock()
        self._limiter: RunVar[anyio.CapacityLimiter | None] = RunVar("lmstrix_sqlite_store")
        self._notes: list[str] = []
        self._rows = RowReader()

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, one sentence each: a file set aside, rows skipped."""
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

    async def finish(self, measurement_id: str, report: ContextReport) -> None:
        """Keep the report; the measurement is no longer unfinished."""
        # Numbered, because the clocks of several processes give no order.
        await self._change(
            "UPDATE measurements SET report = ?, finished ="
            " (SELECT coalesce(max(finished), 0) + 1 FROM measurements) WHERE id = ?",
            (encode(report), measurement_id),
        )

    async def reports(self) -> Sequence[StoredReport]:
        """The newest finished report of each key, newest first."""
        return await self._view(self._rows.reports)

    async def unfinished_models(self) -> Sequence[ModelInfo]:
        """Models with an interrupted measurement, newest first, each once."""
        return await self._view(self._rows.unfinished_models)

    async def aclose(self) -> None:
        """Close the file. Idempotent, and done even in a cancelled task."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close, limiter=self._turn())

    async def _view(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Read in one transaction, so that all of it is of the same moment."""

        def work(connection: sqlite3.Connection) -> T:
            with transaction(connection, "DEFERRED"):
                return read(connection)

        return await self._run(work)

    async def _change(self, statement: str, values: tuple[str, str]) -> None:
        """Run one statement, which must change one row; raises `StoreError` otherwise."""

        def work(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                if connection.execute(statement, values).rowcount != 1:
                    raise StoreError(f"There is no such measurement in the store {self.location}.")

        await self._run(work)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await anyio.to_thread.run_sync(self._work, work, limiter=self._turn())

    def _turn(self) -> anyio.CapacityLimiter:
        limiter = self._limiter.get(None)
        if limiter is None:
            limiter = anyio.CapacityLimiter(1)
            self._limiter.set(limiter)
        return limiter

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """In the worker thread: one call at a time, every failure a `StoreError`."""
        with self._lock:
            try:
                return work(self._open())
            except StoreError:
                raise
            # A ValueError is a text that the system does not take, such as a path with a NUL.
            except (sqlite3.Error, OSError, ValueError) as error:
                raise store_error(error, self._path) from error

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            # SQLite keeps its log beside the real file, so a link is followed first.
            real = Path(os.path.realpath(self._path))
            self._connection, notes = open_database(real)
            self._notes.extend(notes)
        return self._connection

    def _close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()
