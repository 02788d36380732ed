"""Opening the file of a `SqliteStore`: recognise it, create it, or set a wrong one aside."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

from lmstrix.errors import StoreError

__all__ = ["open_database", "store_error", "transaction"]

APPLICATION_ID = 0x4C4D5358
"""``LMSX`` in the file's header, so that a database of another program is recognised."""
SCHEMA = 1
"""Version of the tables below, kept in ``PRAGMA user_version``."""
BUSY_S = 10.0
"""How long a call waits for another process. Our transactions take milliseconds; this is
room for a slow disk, and the longest that a call into the store can hang on a lock."""
_PAUSE_S = 0.02
"""Between two attempts where SQLite itself does not wait: the change to WAL, recovery."""

_TABLES = (
    """CREATE TABLE measurements (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        started_at TEXT NOT NULL,
        cost TEXT,
        replaced INTEGER NOT NULL DEFAULT 0,
        finished INTEGER,
        report TEXT
    )""",
    "CREATE INDEX measurements_key ON measurements (key)",
    """CREATE TABLE trials (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        measurement TEXT NOT NULL REFERENCES measurements (id),
        body TEXT NOT NULL
    )""",
    "CREATE INDEX trials_measurement ON trials (measurement)",
    """CREATE TABLE failures (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        measurement TEXT NOT NULL REFERENCES measurements (id),
        body TEXT NOT NULL
    )""",
    "CREATE INDEX failures_measurement ON failures (measurement)",
)
_TABLE_NAMES = frozenset({b"measurements", b"trials", b"failures"})


class _NotOurs(Exception):
    """The file is no store of LMStrix, or a damaged one; the text ends a sentence."""


def open_database(path: Path) -> tuple[sqlite3.Connection, tuple[str, ...]]:
    """A connection to the store at `path`, and sentences that the user should read.

    Creates folder and file. A damaged file, or one of another program, is moved aside with
    everything that SQLite keeps beside it, and is never written to. Every call must hold the
    same lock as the connection's other users. Raises `StoreError`, `sqlite3.Error`, `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under the lock from the first look on: SQLite finds a log by its name, so whoever still
    # had the wrong file open while it is renamed would take up the new store's log with it.
    with _one_at_a_time(path):
        try:
            return _open(path), ()
        except _NotOurs as problem:
            aside = _set_aside(path)
            note = f"{path} {problem}; it was kept as {aside.name} and a new store was begun."
            return _open(path), (note,)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Generator[None]:
    """One transaction: all of it or nothing. ``DEFERRED`` gives a stable view for reading."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself, as it does when the disk is full.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def store_error(error: Exception, path: Path) -> StoreError:
    """What went wrong with the store at `path`, in one sentence and a hint."""
    code = _code(error)
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreError(
            f"Another process keeps the store {path} busy.", hint="Try again when it has ended."
        )
    if code == sqlite3.SQLITE_FULL or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return StoreError(
            f"There is no space left for the store {path}.",
            hint="Free some space, or name another file as the store.",
        )
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StoreError(
            f"The store {path} is damaged.",
            hint="Start again: a damaged store is set aside and a new one is begun.",
        )
    return StoreError(
        f"The store {path} cannot be read or written ({type(error).__name__}: {error}).",
        hint="Name a file in a folder that you may write to as the store.",
    )


def _code(error: Exception) -> int:
    """SQLite's primary result code, 0 for an error that is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _open(path: Path) -> sqlite3.Connection:
    """Open or create; tries again for a while when another process is at it too."""
    deadline = time.monotonic() + BUSY_S
    while True:
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            if _code(error) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
                raise _NotOurs("is damaged or not a SQLite database") from error
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
        except BaseException:
            connection.close()
            raise
        else:
            return connection


def _prepare(connection: sqlite3.Connection) -> None:
    # Bytes, because one text that is not UTF-8 would otherwise fail the whole query.
    connection.text_factory = bytes
    # Looks first: nothing below may be written into a file of another program.
    fresh = _is_fresh(connection)
    # Where WAL cannot be had (some network drives) SQLite stays with its rollback journal,
    # which is as durable.
    connection.execute("PRAGMA journal_mode=WAL")
    # FULL: a commit returns only when the log is on the disk, so it also survives a power cut.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    if fresh:
        _create(connection)
    elif _pragma(connection, "quick_check(1)") != b"ok":
        raise _NotOurs("is damaged")


def _is_fresh(connection: sqlite3.Connection) -> bool:
    """Whether the database is empty; raises `_NotOurs`, and `StoreError` for a newer one."""
    with transaction(connection, "DEFERRED"):
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        rows = connection.execute("SELECT name FROM sqlite_master").fetchall()
    names = {row[0] for row in rows}
    if application == 0 and version == 0 and not names:
        return True
    if application != APPLICATION_ID:
        raise _NotOurs("is a database of another program")
    if isinstance(version, int) and version > SCHEMA:
        raise StoreError(
            f"The store was written by a newer LMStrix (version {version} of its tables).",
            hint="Update LMStrix, or name another file as the store.",
        )
    if version != SCHEMA or not names >= _TABLE_NAMES:
        raise _NotOurs("is damaged")
    return False


def _create(connection: sqlite3.Connection) -> None:
    with transaction(connection):
        # Looks again under the lock: another process may have been quicker.
        if _pragma(connection, "application_id") == APPLICATION_ID:
            return
        for statement in _TABLES:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    row = connection.execute(f"PRAGMA {name}").fetchone()
    return row[0] if row else None


@contextlib.contextmanager
def _one_at_a_time(path: Path) -> Generator[None]:
    """Locks out others, in this process and elsewhere, that would open the same file.

    The lock is an empty SQLite file beside the store: the one lock between processes that the
    standard library has on every system. It stays, because removing a lock is a race.
    """
    lock = sqlite3.connect(f"{path}.lock", timeout=BUSY_S, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
        yield
    finally:
        lock.close()


def _set_aside(path: Path) -> Path:
    """Rename the file, and first its log and journal: a new file must not take those up."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.set-aside-{stamp}")
    for suffix in ("-wal", "-shm", "-journal", ""):
        old, new = Path(f"{path}{suffix}"), Path(f"{aside}{suffix}")
        if new.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
        with contextlib.suppress(FileNotFoundError):
            old.rename(new)
    return aside
