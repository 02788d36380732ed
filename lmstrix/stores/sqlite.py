"""The one store: an SQLite file that several processes may use at once, or memory alone."""
# ruff: noqa: S608 - statements are made of constants of this module; every value is bound

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import sqlite3
import stat
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self, TypeVar

import anyio
import anyio.to_thread
import attrs
import platformdirs
from filelock import FileLock

from lmstrix.errors import StoreError
from lmstrix.models import (
    RESUMABLE,
    ContextReport,
    Cost,
    ModelInfo,
    Observation,
    StoredMeasurement,
    StoredReport,
    Trial,
)
from lmstrix.serialize import FormatError, from_json, load_report, to_json
from lmstrix.stores.export import (
    LARGEST_LENGTH,
    KeptMeasurement,
    Merged,
    ReportSummary,
    StoreContents,
    check_measurement,
    summarize,
)

T = TypeVar("T")
Keyed = TypeVar("Keyed", StoredReport, ReportSummary)

MEMORY = ":memory:"
BUSY_S = 10.0
"""How long a call waits for another process. A transaction takes milliseconds; the rest is room
for a slow disk."""
CHECKED_BYTES = 16 << 20
"""Files up to this size are checked whenever they are opened (about 40 ms), larger ones only after
damage or if the file was not closed cleanly, so that opening does not become slower with every
measurement."""

_APPLICATION_ID = b"LMSX"
"""In the file's header, so that a database of another program is recognized."""
_SCHEMA = 3
"""Version of the tables, kept in ``PRAGMA user_version``."""
_TABLES = {
    # `key` is JSON, because SQLite's text cannot hold every name that a file may have. `body` is
    # a `KeptMeasurement` without its trials, failures, deaths, cost and report.
    "measurements": "seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, key TEXT NOT NULL,"
    " body TEXT NOT NULL, cost TEXT, replaced INTEGER NOT NULL DEFAULT 0",
    # `name` identifies a trial: the same evidence is never counted twice.
    "trials": "seq INTEGER PRIMARY KEY, measurement INTEGER NOT NULL, name TEXT NOT NULL,"
    " body TEXT NOT NULL, UNIQUE (measurement, name)",
    "failures": "seq INTEGER PRIMARY KEY, measurement INTEGER NOT NULL, body TEXT NOT NULL",
    "loads": "seq INTEGER PRIMARY KEY, measurement INTEGER NOT NULL,"
    " context_length INTEGER NOT NULL",
    # `finished` orders the reports, in seconds since 1970; see `SqliteStore.finish`.
    "reports": "seq INTEGER PRIMARY KEY, measurement INTEGER NOT NULL UNIQUE,"
    " finished REAL NOT NULL, summary TEXT NOT NULL, body TEXT NOT NULL",
}
_INDICES = {
    "measurements_by_key": "measurements (key)",
    "failures_by_measurement": "failures (measurement)",
    "loads_by_measurement": "loads (measurement)",
    "reports_by_time": "reports (finished)",
}
_KEPT = (
    "SELECT m.seq, m.body, m.cost, m.replaced, r.body"
    " FROM measurements m LEFT JOIN reports r ON r.measurement = m.seq"
)
_BROKEN_OFF = ", ".join(f"'{cause}'" for cause in sorted(RESUMABLE))
_PARTIAL = (
    "coalesce(CASE WHEN json_valid(summary) THEN json_extract(summary, '$.resumable') END, 0)"
)
"""Whether a report holds only the results so far. A damaged one counts as finished."""
_RANK = (
    f"CASE WHEN {_PARTIAL} THEN 1 + (coalesce(json_extract(summary, '$.cause'), '')"
    f" IN ({_BROKEN_OFF})) ELSE 0 END"
)
"""0 for a full result, 1 for a quick one, 2 for one that was broken off: the first is shown."""
_OPEN = (
    "NOT m.replaced AND NOT EXISTS"
    f" (SELECT 1 FROM reports WHERE measurement = m.seq AND NOT {_PARTIAL})"
)
_ADD_TRIAL = "INSERT OR IGNORE INTO trials (measurement, name, body) VALUES (?, ?, ?)"
_GET_TRIAL = "SELECT seq, body FROM trials WHERE measurement = ? AND name = ?"
_ADD_LOAD = "INSERT INTO loads (measurement, context_length) VALUES (?, ?)"
_SET_COST = "UPDATE measurements SET cost = ?2 WHERE seq = ?1"

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_NOT_ALLOWED_CODES = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN}
_DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_OTHER_FILE = "Name another file as the store; one that does not exist yet is created."


class SqliteStore:
    """Keeps trials and reports in one SQLite file.

    The default `path` is ``lmstrix.sqlite3`` in the user's data folder; with ``":memory:"``
    everything is lost with the object. The first write creates the file. With `read_only` nothing
    is created, changed or renamed, and a file that does not exist reads as an empty store. A file
    that may not be written is read in the same way.

    The file is opened by the first call, and again by the first call after `aclose`. Each call is
    one short transaction in a worker thread. A call that has begun is not abandoned when its task
    is cancelled: it ends within the busy timeout of 10 seconds, completely or without any effect.
    """

    def __init__(self, path: Path | str | None = None, *, read_only: bool = False) -> None:
        default = platformdirs.user_data_path("lmstrix") / "lmstrix.sqlite3"
        self._path = default if path is None else Path(path).expanduser()
        self._in_memory = str(path) == MEMORY
        self._read_only = read_only
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._may_write = not read_only
        # Not anyio's: a store may be used from several event loops.
        self._lock = threading.Lock()
        self._notes: list[str] = []
        self._skipped: set[tuple[str, int]] = set()

    @classmethod
    def in_memory(cls) -> Self:
        """The store that is registered as ``memory``."""
        return cls(MEMORY)

    @property
    def location(self) -> str:
        """The path of the file; empty if nothing is kept."""
        return "" if self._in_memory else str(self._path)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the user: files that were set aside, and rows that were left out."""
        count = len(self._skipped)
        if not count:
            return tuple(self._notes)
        records = "1 record was" if count == 1 else f"{count} records were"
        return (*self._notes, f"{records} left out: unreadable in {self.location}.")

    async def begin(self, key: str, model: ModelInfo) -> StoredMeasurement:
        """A new, empty measurement under `key`, which replaces an unfinished one."""
        new = KeptMeasurement(
            id=uuid.uuid4().hex, key=key, model=model, started_at=datetime.now(UTC)
        )
        body = _encode(new)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                f"UPDATE measurements AS m SET replaced = 1 WHERE key = ? AND {_OPEN}",
                (json.dumps(key),),
            )
            connection.execute(
                "INSERT INTO measurements (id, key, body) VALUES (?, ?, ?)",
                (new.id, json.dumps(key), body),
            )

        await self._run(work, "IMMEDIATE")
        return _as_stored(new)

    async def unfinished(self, key: str) -> StoredMeasurement | None:
        """The interrupted measurement under `key`, with its trials in order, or None."""
        where = f"WHERE m.key = ? AND {_OPEN} ORDER BY m.seq DESC LIMIT 1"
        found = await self._run(lambda c: [*self._kept(c, where, (json.dumps(key),))])
        return _as_stored(found[0]) if found else None

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        """Store the trials of one request: all of them or none. Returns the stored ones.

        A trial whose name is already there is not stored again.
        """
        rows = [(_name(trial), _encode(trial)) for trial in trials]

        def work(connection: sqlite3.Connection) -> tuple[Trial, ...]:
            seq, _ = self._find(connection, measurement_id)
            connection.executemany(_ADD_TRIAL, [(seq, *row) for row in rows])
            names = ((seq, name) for name, _ in rows)
            stored = (connection.execute(_GET_TRIAL, name).fetchone() for name in names)
            read = (self._fact("trial", number, body, Trial) for number, body in stored)
            return tuple(found or own for found, own in zip(read, trials, strict=True))

        return await self._run(work, "IMMEDIATE")

    async def append_failure(self, measurement_id: str, failure: Observation) -> None:
        """Store a failure of the engine at a length."""
        statement = "INSERT INTO failures (measurement, body) VALUES (?, ?)"
        await self._change(measurement_id, statement, _encode(failure))

    async def save_cost(self, measurement_id: str, cost: Cost) -> None:
        """Store the cost of the measurement so far."""
        await self._change(measurement_id, _SET_COST, _encode(cost))

    async def mark_load(self, measurement_id: str, context_length: int) -> None:
        """Store a mark that a load at `context_length` begins."""
        if not 0 < context_length <= LARGEST_LENGTH:
            raise StoreError(f"{context_length} is not a context length.")
        await self._change(measurement_id, _ADD_LOAD, context_length)

    async def clear_load(self, measurement_id: str) -> None:
        """Remove the newest mark: the load has ended."""
        newest = "SELECT max(seq) FROM loads WHERE measurement = ?"
        await self._change(measurement_id, f"DELETE FROM loads WHERE seq = ({newest})")

    async def finish(self, measurement_id: str, report: ContextReport) -> None:
        """Keep the report; the measurement is no longer unfinished, unless the report is
        `ContextReport.resumable`.

        It is the newest report from now on, even if a clock was set back meanwhile. One of a
        measurement that was broken off is not kept in the place of a quick result.
        """
        body = _encode(report)

        def work(connection: sqlite3.Connection) -> None:
            seq, key = self._find(connection, measurement_id)
            if report.cause in RESUMABLE:
                quick = f"SELECT 1 FROM reports WHERE measurement = ? AND {_RANK} = 1"
                if connection.execute(quick, (seq,)).fetchone():
                    return
            (newest,) = connection.execute("SELECT max(finished) FROM reports").fetchone()
            finished = report.finished_at.timestamp()
            if isinstance(newest, float):  # a damaged row may hold anything
                finished = max(finished, newest)
            stored = StoredReport(id=measurement_id, key=from_json(_text(key), str), report=report)
            _add_report(connection, seq, finished, stored, body)

        await self._run(work, "IMMEDIATE")

    async def reports(self) -> Sequence[StoredReport]:
        """The newest finished report of each key that can be read, newest first."""

        def read(identity: object, key: object, body: object) -> StoredReport:
            report = load_report(_text(body))
            return StoredReport(id=_text(identity), key=from_json(_text(key), str), report=report)

        return await self._run(lambda c: self._newest(c, "body", read))

    async def summaries(self) -> Sequence[ReportSummary]:
        """One summary for each of `reports`, in the same order; no report is read for it."""

        def read(_identity: object, _key: object, body: object) -> ReportSummary:
            return from_json(_text(body), ReportSummary)

        return await self._run(lambda c: self._newest(c, "summary", read))

    async def unfinished_models(self) -> Sequence[ModelInfo]:
        """Models with an interrupted measurement, newest first, each once."""

        def work(connection: sqlite3.Connection) -> tuple[ModelInfo, ...]:
            # Without their trials, which may be damaged.
            rows = connection.execute(
                f"SELECT m.seq, m.body FROM measurements m WHERE {_OPEN} ORDER BY m.seq DESC"
            )
            found = self._facts("measurement", rows, KeptMeasurement)
            return tuple(dict.fromkeys(kept.model for kept in found))

        return await self._run(work)

    async def interrupted(self) -> Sequence[KeptMeasurement]:
        """The measurements that would be resumed, newest first."""
        where = f"WHERE {_OPEN} ORDER BY m.seq DESC"
        return await self._run(lambda c: tuple(self._kept(c, where)))

    async def contents(self) -> StoreContents:
        """Everything that can be read, as of one moment."""
        order = "ORDER BY r.seq IS NULL, r.finished, r.seq, m.seq"
        kept = await self._run(lambda c: tuple(self._kept(c, order)))
        return StoreContents(measurements=kept)

    async def merge(self, contents: StoreContents) -> Merged:
        """Add everything that is missing here, in one transaction; nothing here is changed."""
        return await self._run(lambda c: self._merge(c, contents), "IMMEDIATE")

    async def aclose(self) -> None:
        """Close the file. Idempotent, and done even in a cancelled task."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        # A store in memory lives as long as the object.
        with self._lock:
            if self._connection is not None and not self._in_memory:
                self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _has_moved(self) -> bool:
        """Whether the path no longer leads to the open file: SQLite would write to a lost file."""
        if self._in_memory or self._connection is None:
            return False
        return _identity(self._path) != self._file

    async def _change(self, measurement_id: str, statement: str, *values: str | int) -> None:
        """Run `statement` with the number of the measurement and `values`."""

        def work(connection: sqlite3.Connection) -> None:
            seq, _ = self._find(connection, measurement_id)
            connection.execute(statement, (seq, *values))

        await self._run(work, "IMMEDIATE")

    def _find(self, connection: sqlite3.Connection, measurement_id: str) -> tuple[int, bytes]:
        """The number and the key of a measurement. Raises `StoreError` if it is missing."""
        row: tuple[int, bytes] | None = connection.execute(
            "SELECT seq, key FROM measurements WHERE id = ?", (measurement_id,)
        ).fetchone()
        if row is None:
            raise StoreError(
                f"The store {self.location} does not have this measurement: its file was deleted"
                " or replaced.",
                hint="Leave the store alone until the measurement has ended.",
            )
        return row

    async def _run(self, work: Callable[[sqlite3.Connection], T], kind: str = "DEFERRED") -> T:
        """Do `work` in a worker thread, in one transaction; ``DEFERRED`` is for reading.

        Raises `StoreError` for every failure.
        """
        return await anyio.to_thread.run_sync(self._work, work, kind)

    def _work(self, work: Callable[[sqlite3.Connection], T], kind: str) -> T:
        reads = kind == "DEFERRED"
        with self._lock:
            try:
                # A file that could not be written is opened again: another process may have
                # written to it, and a write has to report the reason.
                if self._has_moved() or not (self._may_write or self._read_only):
                    self._drop()
                connection = self._connection or self._open(reads=reads)
                connection.execute(f"BEGIN {kind}")
                with connection:  # all of it or nothing
                    result = work(connection)
            except StoreError:
                raise
            # A ValueError is an unusable text, such as a path with a NUL.
            except (sqlite3.Error, OSError, ValueError) as error:
                if _code(error) in _DAMAGE_CODES and not self._read_only:
                    with contextlib.suppress(OSError):
                        _suspicion(_real(self._path)).touch()
                raise _store_error(error, self._path) from error
            # A file that another process has just created replaces nothing of ours.
            if self._file is not None and self._has_moved():
                self._drop()
                raise StoreError(
                    f"The store {self._path} was deleted or replaced while it was in use.",
                    hint="The last results may be lost. Leave the store alone while it is in use.",
                )
            return result

    def _open(self, *, reads: bool) -> sqlite3.Connection:
        path = _real(self._path)
        if self._in_memory:
            connection = _connect(MEMORY, None)
        elif self._read_only or (reads and not path.exists()):
            connection = _open_to_read(path)
            self._may_write = False  # reading creates nothing: the next call opens it again
        else:
            try:
                connection, note = _open_to_write(path)
                self._may_write = True
                self._notes += [note] if note else []
            except (sqlite3.Error, OSError) as error:
                if not (reads and _is_forbidden(error)):
                    raise
                connection = _open_to_read(path)
                self._may_write = False
        # Closes a store that nobody else closes, such as `memory`. Not at exit: a forked process
        # must not close its parent's connection.
        weakref.finalize(self, connection.close).atexit = False
        self._connection = connection
        self._file = _identity(self._path)
        return connection

    def _newest(
        self,
        connection: sqlite3.Connection,
        column: str,
        read: Callable[[object, object, object], Keyed],
    ) -> tuple[Keyed, ...]:
        """The newest readable one of each key: an older one replaces a damaged one, a quick one,
        and one of a measurement that did not end.
        """
        rows = connection.execute(
            f"SELECT {_RANK}, r.seq, m.id, m.key, r.{column} FROM reports r"
            " JOIN measurements m ON m.seq = r.measurement ORDER BY r.finished DESC, r.seq DESC"
        )
        newest: dict[str, tuple[int, Keyed]] = {}
        seen = set[object]()
        for age, (_, seq, identity, key, body) in sorted(
            enumerate(rows), key=lambda row: row[1][0]
        ):
            if key not in seen:
                fact = self._read(column, seq, lambda row=(identity, key, body): read(*row))
                if fact is not None:
                    seen.add(key)
                    # A damaged row may spell the same key differently.
                    newest.setdefault(fact.key, (age, fact))
        return tuple(fact for _, fact in sorted(newest.values(), key=lambda found: found[0]))

    def _kept(
        self, connection: sqlite3.Connection, where: str, values: tuple[str, ...] = ()
    ) -> Iterator[KeptMeasurement]:
        """The measurements that can be read, each whole."""
        for seq, body, cost, replaced, report_body in connection.execute(
            f"{_KEPT} {where}", values
        ).fetchall():
            head = self._fact("measurement", seq, body, KeptMeasurement)
            if head is None:
                continue
            report = None
            if report_body is not None:
                report = self._read("report", seq, lambda b=report_body: load_report(_text(b)))
            of_it = "WHERE measurement = ? ORDER BY seq"
            trials = connection.execute(f"SELECT seq, body FROM trials {of_it}", (seq,))
            failures = connection.execute(f"SELECT seq, body FROM failures {of_it}", (seq,))
            loads = connection.execute(f"SELECT context_length FROM loads {of_it}", (seq,))
            kept = attrs.evolve(
                head,
                trials=tuple(self._facts("trial", trials, Trial)),
                failures=tuple(self._facts("failure", failures, Observation)),
                cost=self._cost(seq, cost),
                deaths=tuple(n for (n,) in loads if isinstance(n, int) and n > 0),
                # A finished one whose report cannot be read must not be resumed.
                replaced=bool(replaced) or (report_body is not None and report is None),
                report=report,
            )
            if self._read("measurement", seq, lambda k=kept: check_measurement(k) or k):
                yield kept

    def _cost(self, seq: int, body: object) -> Cost:
        return (None if body is None else self._fact("cost", seq, body, Cost)) or Cost()

    def _facts(self, what: str, rows: sqlite3.Cursor, kind: type[T]) -> Iterator[T]:
        facts = (self._fact(what, seq, body, kind) for seq, body in rows)
        return (fact for fact in facts if fact is not None)

    def _fact(self, what: str, seq: int, body: object, kind: type[T]) -> T | None:
        return self._read(what, seq, lambda: from_json(_text(body), kind))

    def _read(self, what: str, seq: int, decode: Callable[[], T]) -> T | None:
        """The decoded row; None for one that cannot be read, which is counted once."""
        try:
            return decode()
        except ValueError:  # a FormatError, or bytes that are not UTF-8
            self._skipped.add((what, seq))
            return None

    def _merge(self, connection: sqlite3.Connection, contents: StoreContents) -> Merged:
        measurements = trials = reports = 0
        finished = -math.inf
        # If a document has several unfinished ones for a key, the one begun last is resumed.
        last = {kept.key: kept.id for kept in contents.measurements if _is_open(kept)}
        for kept in contents.measurements:
            check_measurement(kept)
            key = json.dumps(kept.key)
            row = connection.execute(
                "SELECT seq, key, cost FROM measurements WHERE id = ?", (kept.id,)
            ).fetchone()
            if row is None:
                seq = _add_measurement(connection, kept, key, is_last=last.get(kept.key) == kept.id)
                measurements += 1
            elif row[1] != key.encode():
                raise StoreError(
                    "A measurement to be merged has the id of another one in this store.",
                    hint="The file was edited or is damaged; nothing of it was merged.",
                )
            else:
                seq = int(row[0])
                if kept.cost.seconds > self._cost(seq, row[2]).seconds:
                    connection.execute(_SET_COST, (seq, to_json(kept.cost)))
            rows = [(seq, _name(trial), to_json(trial)) for trial in kept.trials]
            trials += connection.executemany(_ADD_TRIAL, rows).rowcount
            connection.executemany(
                "INSERT INTO failures (measurement, body) SELECT ?1, ?2"
                " WHERE NOT EXISTS (SELECT 1 FROM failures WHERE measurement = ?1 AND body = ?2)",
                [(seq, to_json(failure)) for failure in kept.failures],
            )
            partial = kept.report is None or kept.report.resumable
            there = connection.execute(
                "SELECT 1 FROM reports WHERE measurement = ?"
                + ("" if partial else f" AND NOT {_PARTIAL}"),
                (seq,),
            )
            if kept.report is not None and there.fetchone() is None:
                # The document's own order is kept, whatever its clock showed.
                finished = max(finished, kept.report.finished_at.timestamp())
                stored = StoredReport(id=kept.id, key=kept.key, report=kept.report)
                _add_report(connection, seq, finished, stored, to_json(kept.report))
                reports += 1
        return Merged(measurements=measurements, trials=trials, reports=reports)


def is_store(content: bytes) -> bool:
    """Whether a file that begins with `content` is a store of LMStrix, damaged or not."""
    return content.startswith(b"SQLite format 3\0") and content[68:72] == _APPLICATION_ID


def _encode(fact: object) -> str:
    """The JSON of a fact. Raises `StoreError` for one that could not be read again."""
    try:
        text = to_json(fact)
        from_json(text, type(fact))
    except FormatError as error:
        reason = str(error)[:300]
        raise StoreError(f"A {type(fact).__name__} cannot be stored: {reason}") from error
    return text


def _text(value: object) -> str:
    """The value of a text column, which comes as bytes. A damaged row may hold anything."""
    if not isinstance(value, bytes):
        raise FormatError(f"expected text, got {type(value).__name__}")
    return value.decode()


def _name(trial: Trial) -> str:
    """The identity of a trial within its measurement."""
    return json.dumps(
        [trial.level, trial.phase, trial.length_tokens, trial.seed, trial.region, trial.index]
    )


def _is_open(kept: KeptMeasurement) -> bool:
    partial = kept.report is None or kept.report.resumable
    return partial and not kept.replaced


def _as_stored(kept: KeptMeasurement) -> StoredMeasurement:
    return StoredMeasurement(
        id=kept.id,
        key=kept.key,
        started_at=kept.started_at,
        trials=kept.trials,
        failures=kept.failures,
        cost=kept.cost,
        deaths=kept.deaths,
    )


def _add_measurement(
    connection: sqlite3.Connection, kept: KeptMeasurement, key: str, *, is_last: bool
) -> int:
    """Add a merged measurement. One that is unfinished here is still the one to resume."""
    head = KeptMeasurement(id=kept.id, key=kept.key, model=kept.model, started_at=kept.started_at)
    taken = connection.execute(
        f"SELECT 1 FROM measurements m WHERE key = ? AND {_OPEN}", (key,)
    ).fetchone()
    replaced = kept.replaced or (_is_open(kept) and (taken is not None or not is_last))
    cost = None if kept.cost == Cost() else to_json(kept.cost)
    cursor = connection.execute(
        "INSERT INTO measurements (id, key, body, cost, replaced) VALUES (?, ?, ?, ?, ?)",
        (kept.id, key, to_json(head), cost, replaced),
    )
    seq = int(cursor.lastrowid or 0)
    connection.executemany(_ADD_LOAD, [(seq, length) for length in kept.deaths])
    return seq


def _add_report(
    connection: sqlite3.Connection, seq: int, finished: float, stored: StoredReport, body: str
) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO reports (measurement, finished, summary, body) VALUES (?, ?, ?, ?)",
        (seq, finished, to_json(summarize(stored)), body),
    )


class _Damaged(sqlite3.DatabaseError):
    """The file is a store, and cannot be used as it is."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def _open_to_write(path: Path) -> tuple[sqlite3.Connection, str]:
    """The store at `path`, and a sentence about a file that was set aside, or an empty one.

    Creates folder and file. A damaged store is renamed with the files that SQLite keeps next to
    it. A file of another program is refused and left alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_others(path)  # before a lock file is made next to it
    # SQLite finds a log by its name, so a process that still has the damaged file open while it is
    # renamed would use the new store's log with it.
    with FileLock(f"{path}.lock", timeout=BUSY_S, thread_local=False):
        try:
            return _connect(str(path), path), ""
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGE_CODES:
                raise
            aside = _set_aside(path)
            note = f"{path} is damaged; it was kept as {aside.name} and a new store was begun."
            return _connect(str(path), path), note


def _open_to_read(path: Path) -> sqlite3.Connection:
    """The store at `path` as it is; an empty one if there is no file."""
    if not _refuse_others(path):
        return _fixed(_connect(MEMORY, None))
    # Without a log no process is writing, and SQLite can read without creating a file.
    if not _log(path).exists():
        return _connect(f"{path.as_uri()}?immutable=1", path, read_only=True)
    try:
        return _connect(f"{path.as_uri()}?mode=ro", path, read_only=True)
    except sqlite3.OperationalError as error:
        if not _is_forbidden(error):
            raise
        return _copy(path)


def _copy(path: Path) -> sqlite3.Connection:
    """A copy of the store in memory, including the commits that only its log has: SQLite cannot
    read a log if it may not write next to it.
    """
    with TemporaryDirectory() as folder:
        copy = Path(folder, "store")
        shutil.copyfile(path, copy)
        shutil.copyfile(_log(path), _log(copy))
        with contextlib.closing(_connect(copy.as_uri(), copy, read_only=True)) as source:
            memory = sqlite3.connect(MEMORY, isolation_level=None, check_same_thread=False)
            source.backup(memory)
    memory.text_factory = bytes
    return _fixed(memory)


def _fixed(connection: sqlite3.Connection) -> sqlite3.Connection:
    """The connection, which refuses to write from now on."""
    connection.execute("PRAGMA query_only=ON")
    return connection


def _connect(database: str, path: Path | None, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection to `database`: the file `path`, or memory if that is None."""
    thorough = path is not None and _is_doubtful(path)
    connection = sqlite3.connect(
        database, timeout=BUSY_S, isolation_level=None, check_same_thread=False, uri=read_only
    )
    try:
        # Bytes, because one text that is not UTF-8 would otherwise fail the whole query.
        connection.text_factory = bytes
        # The file is untrusted: nothing in it may run.
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        if not read_only and connection.execute("PRAGMA page_count").fetchone() == (0,):
            # Before there is a log, so that the header is in the file from the start.
            _create(connection)
        if path is not None:
            _check(connection, path, thorough=thorough)
        if path is not None and not read_only:
            # On file systems without WAL (some network drives) SQLite keeps its rollback journal,
            # which is as durable.
            connection.execute("PRAGMA journal_mode=WAL")
            # A commit returns only when the log is on the disk: it survives a power cut.
            connection.execute("PRAGMA synchronous=FULL")
            _suspicion(path).unlink(missing_ok=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        for name, columns in _TABLES.items():
            connection.execute(f"CREATE TABLE {name} ({columns})")
        for name, columns in _INDICES.items():
            connection.execute(f"CREATE INDEX {name} ON {columns}")
        connection.execute(f"PRAGMA application_id = {int.from_bytes(_APPLICATION_ID)}")
        connection.execute(f"PRAGMA user_version = {_SCHEMA}")


def _check(connection: sqlite3.Connection, path: Path, *, thorough: bool) -> None:
    """Raises `_Damaged`, or `StoreError` for a store that this LMStrix does not understand."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _SCHEMA:
        raise StoreError(
            f"The store {path} was written by a newer LMStrix (version {version} of its tables).",
            hint="Update LMStrix, or name another file as the store.",
        )
    if 0 < version < _SCHEMA:
        raise StoreError(
            f"The store {path} was written by a version of LMStrix that was never released"
            f" (version {version} of its tables).",
            hint="Export it with that version and import it here, or name another file.",
        )
    found = connection.execute("SELECT type, name FROM sqlite_master").fetchall()
    if any(kind in {b"view", b"trigger"} for kind, _ in found):
        # They would run while the store is read and written.
        raise StoreError(f"The store {path} was changed by another program.", hint=_OTHER_FILE)
    tables = {name.decode(errors="replace") for kind, name in found if kind == b"table"}
    if version != _SCHEMA or not tables >= _TABLES.keys():
        raise _Damaged
    # Not `quick_check`, which does not compare indices with their tables.
    if thorough and connection.execute("PRAGMA integrity_check(1)").fetchone() != (b"ok",):
        raise _Damaged


def _real(path: Path) -> Path:
    """The file behind links: SQLite keeps its log next to that one."""
    return Path(os.path.realpath(path))


def _identity(path: Path) -> tuple[int, int] | None:
    """The file that `path` leads to; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _refuse_others(path: Path) -> bool:
    """Whether there is a store. Raises `StoreError` for a file of another program."""
    try:
        # Before it is opened: opening a pipe waits for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoreError(f"the store {path} is not a file", hint=_OTHER_FILE)
        with path.open("rb") as file:
            header = file.read(100)
    except FileNotFoundError:
        return False
    if header and not is_store(header):
        raise StoreError(f"{path} is not an LMStrix store", hint=_OTHER_FILE)
    return bool(header)


def _is_doubtful(path: Path) -> bool:
    """Whether to check the whole file. An existing log belongs to a process that is writing or
    has died.
    """
    if _suspicion(path).exists() or _log(path).exists():
        return True
    return path.exists() and path.stat().st_size <= CHECKED_BYTES


def _log(path: Path) -> Path:
    """SQLite's log: the newest commits, until it is closed by its last process."""
    return Path(f"{path}-wal")


def _suspicion(path: Path) -> Path:
    """A file that marks damage: the next opening checks the whole store."""
    return Path(f"{path}.suspect")


def _set_aside(path: Path) -> Path:
    """Rename the store and the files that belong to it; no existing file is replaced."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.set-aside-{stamp}")
    # The log and the journal first: a new store must not use those.
    for suffix in ("-wal", "-shm", "-journal", ""):
        old, new = Path(f"{path}{suffix}"), Path(f"{aside}{suffix}")
        if new.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
        with contextlib.suppress(FileNotFoundError):
            old.rename(new)
    return aside


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 for an error that is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_forbidden(error: Exception) -> bool:
    number = error.errno if isinstance(error, OSError) else None
    return _code(error) in _NOT_ALLOWED_CODES or number in _NOT_ALLOWED


def _store_error(error: Exception, path: Path) -> StoreError:
    """The error for the user: what happened to the store at `path`, then what to do."""
    code = _code(error)
    number = error.errno if isinstance(error, OSError) else None
    if code in _DAMAGE_CODES:
        message = f"The store {path} is damaged."
        hint = "The next use keeps the damaged file under another name and begins a new store."
    elif code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} or isinstance(error, TimeoutError):
        message = f"Another process is using the store {path}."
        hint = "Try again when it has finished."
    elif code == sqlite3.SQLITE_FULL or number in _NO_SPACE:
        message = f"There is no space left for the store {path}."
        hint = "Free some space, or name another file as the store."
    elif _is_forbidden(error):
        message = f"The store {path} cannot be written: {error}."
        hint = "Name a file in a folder that you may write to as the store."
    elif code == sqlite3.SQLITE_IOERR or number == errno.EIO:
        message = f"The disk of the store {path} failed: {error}."
        hint = "Check the disk and the space on it, or name another file as the store."
    else:
        message = f"The store {path} cannot be read or written ({type(error).__name__}: {error})."
        hint = "Name a file in a folder that you may write to as the store."
    return StoreError(message, hint=hint)
