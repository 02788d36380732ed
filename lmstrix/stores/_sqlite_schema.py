"""The tables of a `SqliteStore`, and how a file of an earlier version gets them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from types import MappingProxyType

from lmstrix.converter import FormatError, from_json, load_report, to_json
from lmstrix.models import StoredReport
from lmstrix.stores.archive import summarize

__all__ = ["APPLICATION_ID", "SCHEMA", "TABLE_NAMES", "create_tables", "migrate"]

APPLICATION_ID = 0x4C4D5358
"""``LMSX`` in the file's header, so that a database of another program is recognised."""
SCHEMA = 2
"""Version of the tables, kept in ``PRAGMA user_version``."""

_VERSION_1 = (
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
_VERSION_2 = (
    # In tables of their own: behind a long report each would cost a walk through its pages.
    "CREATE TABLE loads (measurement INTEGER PRIMARY KEY, context_length INTEGER NOT NULL)",
    "CREATE TABLE summaries (measurement INTEGER PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE imported (seq INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL UNIQUE)",
    # What `lmstrix list` asks for, without a look at every measurement.
    "CREATE INDEX measurements_finished ON measurements (finished) WHERE finished IS NOT NULL",
    """CREATE INDEX measurements_open ON measurements (seq)
        WHERE finished IS NULL AND replaced = 0""",
)

TABLE_NAMES: Mapping[int, frozenset[bytes]] = MappingProxyType(
    {
        1: frozenset({b"measurements", b"trials", b"failures"}),
        2: frozenset(
            {b"measurements", b"trials", b"failures", b"loads", b"summaries", b"imported"}
        ),
    }
)
"""By version: without these a file is damaged."""


def create_tables(connection: sqlite3.Connection) -> None:
    """All tables of this version, in an empty database and the caller's transaction."""
    for statement in (*_VERSION_1, *_VERSION_2):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")


def migrate(connection: sqlite3.Connection, version: int) -> None:
    """From `version` to this one, in the caller's transaction: all of it or nothing.

    Rows are only ever added, so an LMStrix of the earlier version that has the file open at
    this moment goes on undisturbed.
    """
    for step in range(version, SCHEMA):
        _STEPS[step](connection)
    connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _from_1_to_2(connection: sqlite3.Connection) -> None:
    for statement in _VERSION_2:
        connection.execute(statement)
    rows = connection.execute(
        "SELECT seq, id, key, report FROM measurements WHERE finished IS NOT NULL"
    )
    for seq, *texts in rows.fetchall():
        try:
            identity, key, report = (bytes(text).decode() for text in texts)
            stored = StoredReport(id=identity, key=from_json(key, str), report=load_report(report))
        except (FormatError, ValueError, TypeError):
            continue  # A report that cannot be read has no summary either.
        connection.execute("INSERT INTO summaries VALUES (?, ?)", (seq, to_json(summarize(stored))))


_STEPS: Mapping[int, Callable[[sqlite3.Connection], None]] = MappingProxyType({1: _from_1_to_2})
"""By the version that a step starts from."""
