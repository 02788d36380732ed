"""What the stores that are files have in common: the lock, setting aside, saying what is wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import time
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from lmstrix.errors import StoreError

__all__ = [
    "BUSY_S",
    "check_regular",
    "code_of",
    "one_at_a_time",
    "refuse_other_kind",
    "set_aside",
    "store_error",
]

BUSY_S = 10.0
"""How long a call waits for another process. Our transactions take milliseconds; this is
room for a slow disk, and the longest that a call into the store can hang on a lock."""

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_RIGHT_CODES = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN}
_WRITABLE = "Name a file in a folder that you may write to as the store."


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Generator[sqlite3.Connection]:
    """Locks out others, in this process and elsewhere, that would use the same file.

    The lock is an empty SQLite file beside the store: the one lock between processes that the
    standard library has on every system. The system lets go of it when its holder dies. The
    file stays, because removing a lock is a race.
    """
    lock = sqlite3.connect(f"{path}.lock", timeout=BUSY_S, isolation_level=None)
    try:
        _hold(lock, path)
        yield lock
        if lock.in_transaction:
            lock.execute("COMMIT")
    finally:
        lock.close()


def _hold(lock: sqlite3.Connection, path: Path) -> None:
    """Take the lock; where SQLite itself would not wait (recovery), wait for it here."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.DatabaseError as error:
            if code_of(error) in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
                raise StoreError(
                    f"{path}.lock is in the way: it is no lock of a store.",
                    hint=f"Move {path}.lock away while no LMStrix is running.",
                ) from error
            if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return


def check_regular(path: Path) -> None:
    """Raise `StoreError` for a folder, a device, a pipe: only a file may be set aside."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise StoreError(f"The store {path} is not a file.", hint=_WRITABLE)


_OTHER_KIND = {
    "jsonl": "Open it as jsonl, as any name that ends in .jsonl is; or name another file.",
    "sqlite": "Open it as sqlite, as any name without .jsonl at its end is; or name another file.",
}
"""What to do with a store of that kind."""


def refuse_other_kind(path: Path, kind: str) -> None:
    """Raise `StoreError` for a store of ours of another kind: it is sound, only misnamed."""
    with path.open("rb") as file:
        head = file.read(100)
    if head.startswith(b'{"kind": "store", "format": "lmstrix"'):
        found = "jsonl"
    # SQLite keeps the application's id, ``LMSX``, at this place.
    elif head.startswith(b"SQLite format 3\0") and head[68:72] == b"LMSX":
        found = "sqlite"
    else:
        return
    if found != kind:
        raise StoreError(
            f"{path} is a store of the kind {found}, not {kind}.",
            hint=_OTHER_KIND[found],
        )


def set_aside(path: Path, suffixes: Sequence[str] = ("",)) -> Path:
    """Rename the file and what belongs to it, under one new name that nothing has yet.

    The order of `suffixes` is the order of renaming.
    """
    check_regular(path)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    aside = path.with_name(f"{path.name}.set-aside-{stamp}")
    for suffix in suffixes:
        old, new = Path(f"{path}{suffix}"), Path(f"{aside}{suffix}")
        if new.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
        with contextlib.suppress(FileNotFoundError):
            old.rename(new)
    return aside


def code_of(error: Exception) -> int:
    """SQLite's primary result code, 0 for an error that is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def store_error(error: Exception, path: Path) -> StoreError:
    """What went wrong with the store at `path`, in one sentence and a hint."""
    code = code_of(error)
    number = error.errno if isinstance(error, OSError) else None
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        message = f"Another process keeps the store {path} busy."
        hint = "Try again when it has ended."
    elif code == sqlite3.SQLITE_FULL or number in _NO_SPACE:
        message = f"There is no space left for the store {path}."
        hint = "Free some space, or name another file as the store."
    elif code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        message = f"The store {path} is damaged."
        hint = "Start again: a damaged store is set aside and a new one is begun."
    elif code in _NO_RIGHT_CODES or number in _NO_RIGHT:
        message = f"The store {path} may not be written: {error}."
        hint = f"{_WRITABLE} One that is there already can be copied."
    elif code == sqlite3.SQLITE_IOERR or number == errno.EIO:
        message = f"The disk of the store {path} failed: {error}."
        hint = "Look at the disk and the space on it, or name another file as the store."
    else:
        message = f"The store {path} cannot be read or written ({type(error).__name__}: {error})."
        hint = _WRITABLE
    return StoreError(message, hint=hint)
