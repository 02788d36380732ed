"""Whole files of a store in SQLite, damaged."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz_counts import NotTaken, put_through
from fuzz_files import DATABASE
from fuzz_rows import use_rows
from fuzz_values import damaged, fuzz_slowly
from hypothesis import given
from lmstrix.stores._sqlite_file import open_database

from lmstrix.errors import StoreError

REFUSALS = (NotTaken, StoreError, sqlite3.Error, OSError, ValueError)
"""The store makes a `StoreError` of each."""


def _read(path: Path) -> bool:
    connection, notes = open_database(path)
    with closing(connection):
        left_out = use_rows(connection)
    if notes or left_out:
        assert not notes or _set_aside(path.parent)
        raise NotTaken
    return True


def _set_aside(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if entry.name.startswith("store.set-aside-")}


@fuzz_slowly
@given(damaged(DATABASE))
def test_sqlite_files(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        path.write_bytes(content)
        put_through("store in SQLite", lambda: _read(path), *REFUSALS, writes=True)
        names = {entry.name for entry in Path(folder).iterdir()}
        kept = _set_aside(Path(folder))
        assert names - kept <= {"store", "store.lock", "store-wal", "store-shm", "store-journal"}
        assert all(Path(folder, name).read_bytes() == content for name in kept)
