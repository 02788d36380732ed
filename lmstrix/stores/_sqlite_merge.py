"""Merging into a `SqliteStore`, in the caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from lmstrix.models import ContextReport, Cost, Observation, StoredReport, Trial
from lmstrix.stores._facts import encode
from lmstrix.stores._sqlite_rows import RowReader, decode_key, encode_key
from lmstrix.stores.archive import KeptMeasurement, Merged, StoreContents, summarize
from lmstrix.stores.merging import Extension, Known, plan_merge

__all__ = ["add_report", "merge"]


def merge(connection: sqlite3.Connection, rows: RowReader, contents: StoreContents) -> Merged:
    """Add what is not here yet. Raises `StoreError`."""
    known = Known(
        kept=lambda identity: rows.one_kept(connection, identity),
        offered=rows.offered_keys(connection),
        finished=rows.finished(connection),
        imported=set(rows.imported(connection)),
    )
    plan = plan_merge(known, contents)
    for new in plan.new:
        _add(connection, new)
    for extension in plan.extensions:
        _extend(connection, extension)
    # Renumbered from 1, as if they had finished in this order.
    connection.executemany(
        "UPDATE measurements SET finished = ? WHERE id = ?", enumerate(plan.order, start=1)
    )
    connection.executemany(
        "INSERT INTO imported (body) VALUES (?)", ((encode(result),) for result in plan.imported)
    )
    return plan.merged


def add_report(connection: sqlite3.Connection, identity: str, report: ContextReport) -> int:
    """Keep a report as the newest one; the number of measurements of that id, 0 or 1."""
    row = connection.execute("SELECT key FROM measurements WHERE id = ?", (identity,)).fetchone()
    if row is None:
        return 0
    stored = StoredReport(id=identity, key=decode_key(row[0]), report=report)
    # Numbered, because the clocks of several processes give no order.
    connection.execute(
        "UPDATE measurements SET report = ?, finished ="
        " (SELECT coalesce(max(finished), 0) + 1 FROM measurements WHERE finished IS NOT NULL)"
        " WHERE id = ?",
        (encode(report), identity),
    )
    connection.execute(
        "INSERT OR REPLACE INTO summaries SELECT seq, ? FROM measurements WHERE id = ?",
        (encode(summarize(stored)), identity),
    )
    return 1


def _add(connection: sqlite3.Connection, new: KeptMeasurement) -> None:
    connection.execute(
        "INSERT INTO measurements (id, key, model, started_at, cost, replaced)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            new.id,
            encode_key(new.key),
            encode(new.model),
            new.started_at.isoformat(),
            None if new.cost == Cost() else encode(new.cost),
            new.replaced,
        ),
    )
    _add_trials(connection, new.id, new.trials)
    _add_failures(connection, new.id, new.failures)
    if new.trying is not None:
        connection.execute(
            "INSERT INTO loads SELECT seq, ? FROM measurements WHERE id = ?", (new.trying, new.id)
        )
    if new.report is not None:
        add_report(connection, new.id, new.report)


def _extend(connection: sqlite3.Connection, more: Extension) -> None:
    _add_trials(connection, more.id, more.trials)
    _add_failures(connection, more.id, more.failures)
    if more.cost is not None:
        connection.execute(
            "UPDATE measurements SET cost = ? WHERE id = ?", (encode(more.cost), more.id)
        )
    if more.report is not None:
        add_report(connection, more.id, more.report)


def _add_trials(connection: sqlite3.Connection, identity: str, trials: Iterable[Trial]) -> None:
    connection.executemany(
        "INSERT INTO trials (measurement, body) VALUES (?, ?)",
        ((identity, encode(trial)) for trial in trials),
    )


def _add_failures(
    connection: sqlite3.Connection, identity: str, failures: Iterable[Observation]
) -> None:
    connection.executemany(
        "INSERT INTO failures (measurement, body) VALUES (?, ?)",
        ((identity, encode(failure)) for failure in failures),
    )
