"""Opening the file of a `SqliteStore`: recognise it, create it, or set a wrong one aside."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Generator
from pathlib import Path

from lmstrix.errors import StoreError
from lmstrix.stores._files import (
    BUSY_S,
    check_regular,
    code_of,
    one_at_a_time,
    refuse_other_kind,
    set_aside,
)
from lmstrix.stores._sqlite_schema import (
    APPLICATION_ID,
    SCHEMA,
    TABLE_NAMES,
    create_tables,
    migrate,
)

__all__ = ["Suspicion", "open_database", "transaction"]

_PAUSE_S = 0.02
"""Between two attempts where SQLite itself does not wait: the change to WAL, recovery."""
CHECKED_BYTES = 16 << 20
"""Up to this size a file is read through whenever it is opened (some 20 ms); a larger one
only on suspicion, so that opening does not take longer with every measurement."""

_BESIDE = ("-wal", "-shm", "-journal", "")
"""The log and journal first: a new file must not take those up."""


class _NotOurs(Exception):
    """The file is no store of LMStrix, or a damaged one; the text ends a sentence."""


class Suspicion:
    """Remembers in the lock's file that the store was found damaged while it was in use.

    Whoever opens it next, in whatever process, then reads it through.
    """

    @staticmethod
    def note(path: Path) -> None:
        """Remember it; where that is impossible, nothing is lost but the early finding."""
        with contextlib.suppress(sqlite3.Error, OSError, StoreError), one_at_a_time(path) as lock:
            lock.execute("PRAGMA user_version = 1")

    @staticmethod
    def exists(lock: sqlite3.Connection) -> bool:
        """Whether it was noted."""
        return bool(_pragma(lock, "user_version"))

    @staticmethod
    def dispel(lock: sqlite3.Connection) -> None:
        """The file was read through."""
        lock.execute("PRAGMA user_version = 0")


def open_database(path: Path) -> tuple[sqlite3.Connection, tuple[str, ...]]:
    """A connection to the store at `path`, and sentences that the user should read.

    Creates folder and file, and brings a file of an earlier version up to date. A damaged
    file, or one of another program, is moved aside with everything that SQLite keeps beside
    it, and is never written to. Every call must hold the same lock as the connection's other
    users. Raises `StoreError`, `sqlite3.Error`, `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    check_regular(path)
    # Under the lock from the first look on: SQLite finds a log by its name, so whoever still
    # had the wrong file open while it is renamed would take up the new store's log with it.
    with one_at_a_time(path) as lock:
        suspicious = Suspicion.exists(lock)
        notes = ()
        try:
            connection = _open(path, thorough=suspicious)
        except _NotOurs as problem:
            refuse_other_kind(path, "sqlite")
            aside = set_aside(path, _BESIDE)
            notes = (f"{path} {problem}; it was kept as {aside.name} and a new store was begun.",)
            connection = _open(path, thorough=False)
        if suspicious:
            Suspicion.dispel(lock)
        return connection, notes


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


def _open(path: Path, *, thorough: bool) -> sqlite3.Connection:
    """Open or create; tries again for a while when another process is at it too."""
    deadline = time.monotonic() + BUSY_S
    while True:
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection, thorough=thorough or path.stat().st_size <= CHECKED_BYTES)
        except sqlite3.DatabaseError as error:
            connection.close()
            if code_of(error) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
                raise _NotOurs("is damaged or not a SQLite database") from error
            if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_S)
        except BaseException:
            connection.close()
            raise
        else:
            return connection


def _prepare(connection: sqlite3.Connection, *, thorough: bool) -> None:
    # Bytes, because one text that is not UTF-8 would otherwise fail the whole query.
    connection.text_factory = bytes
    # The file may be anybody's: nothing in its own words is trusted to do more than be read.
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    # Looks first: nothing below may be written into a file of another program.
    version = _version(connection)
    # Where WAL cannot be had (some network drives) SQLite stays with its rollback journal,
    # which is as durable.
    connection.execute("PRAGMA journal_mode=WAL")
    # FULL: a commit returns only when the log is on the disk, so it also survives a power cut.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    if version and thorough and _pragma(connection, "quick_check(1)") != b"ok":
        raise _NotOurs("is damaged")
    if version < SCHEMA:
        _update(connection)


def _version(connection: sqlite3.Connection) -> int:
    """The version of its tables, 0 for an empty database.

    Raises `_NotOurs`, and `StoreError` for a newer one.
    """
    with transaction(connection, "DEFERRED"):
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        objects = set(connection.execute("SELECT type, name FROM sqlite_master").fetchall())
    if application == 0 and version == 0 and not objects:
        return 0
    if application != APPLICATION_ID:
        raise _NotOurs("is a database of another program")
    if isinstance(version, int) and version > SCHEMA:
        raise StoreError(
            f"The store was written by a newer LMStrix (version {version} of its tables).",
            hint="Update LMStrix, or name another file as the store.",
        )
    tables = {name for kind, name in objects if kind == b"table"}
    if not isinstance(version, int) or not tables >= TABLE_NAMES.get(version, {b""}):
        raise _NotOurs("is damaged")
    # We make none, and they would run while we read and write.
    if any(kind in {b"view", b"trigger"} for kind, _ in objects):
        raise _NotOurs("was changed by another program")
    return version


def _update(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring them up to date."""
    with transaction(connection):
        # Looks again under the lock: another process may have been quicker.
        version = _pragma(connection, "user_version")
        if version == 0:
            create_tables(connection)
        elif isinstance(version, int) and version < SCHEMA:
            migrate(connection, version)


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    row = connection.execute(f"PRAGMA {name}").fetchone()
    return row[0] if row else None
