"""Single cells of a store in SQLite, replaced by anything that SQLite can hold."""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress

from fuzz_counts import NotTaken, put_through
from fuzz_rows import use_rows
from fuzz_stores import CONTENTS
from fuzz_values import TEXTS, as_text, changed, damaged, fuzz
from hypothesis import given
from hypothesis import strategies as st
from lmstrix.stores._sqlite_merge import merge
from lmstrix.stores._sqlite_rows import RowReader
from lmstrix.stores._sqlite_schema import create_tables


def _filled() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.text_factory = bytes
    create_tables(connection)
    merge(connection, RowReader(), CONTENTS)
    return connection


CELLS = [
    *(("measurements", c) for c in ("id", "key", "model", "started_at", "cost", "report")),
    *(("measurements", c) for c in ("replaced", "finished")),
    *((table, "body") for table in ("trials", "failures", "summaries", "imported")),
    ("loads", "context_length"),
    ("trials", "measurement"),
]


@st.composite
def cells(draw: st.DrawFn, before: object) -> object:
    """What SQLite can hold in one place."""
    if isinstance(before, bytes) and draw(st.booleans()):
        # Not where it was damaged already: then there is nothing to change a part of.
        with suppress(ValueError, RecursionError):
            return as_text(draw(changed(json.loads(before))))
        return draw(damaged(before)).decode("utf-8", "replace")
    return draw(
        st.none()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats()
        | st.binary(max_size=30)
        | TEXTS.filter(lambda text: text.isascii() or text.isprintable())
    )


def read(connection: sqlite3.Connection) -> bool:
    if use_rows(connection):
        raise NotTaken
    return True


@fuzz
@given(st.data())
def test_sqlite_rows(data: st.DataObject) -> None:
    connection = CONNECTION
    connection.execute("SAVEPOINT fuzz")
    try:
        for _ in range(data.draw(st.integers(1, 3))):
            table, column = data.draw(st.sampled_from(CELLS))
            rows = connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
            row, before = data.draw(st.sampled_from(rows))
            value = data.draw(cells(before))
            # What the table itself does not take cannot be there either.
            with suppress(sqlite3.IntegrityError):
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
        put_through("rows of a store in SQLite", lambda: read(connection), NotTaken)
    finally:
        connection.execute("ROLLBACK TO fuzz")
        connection.execute("RELEASE fuzz")


CONNECTION = _filled()
