"""Everything that reads the rows of a store in SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import suppress

from fuzz_stores import CONTENTS, check_contents
from lmstrix.stores._sqlite_merge import merge
from lmstrix.stores._sqlite_rows import RowReader

from lmstrix.errors import StoreError
from lmstrix.stores.export import StoreContents

__all__ = ["use_rows"]


def use_rows(connection: sqlite3.Connection) -> int:
    """Everything that reads a store's rows, and a merge. Gives how many were left out."""
    rows = RowReader()
    rows.unfinished(connection, "key")
    rows.unfinished_models(connection)
    reports = rows.reports(connection)
    assert len({stored.key for stored in reports}) == len(reports)
    rows.summaries(connection)
    rows.imported(connection)
    check_contents(
        StoreContents(measurements=tuple(rows.kept(connection)), imported=rows.imported(connection))
    )
    with suppress(StoreError):
        merge(connection, rows, CONTENTS)
    return rows.skipped
