"""Facts to rows of a `SqliteStore` and back. A row that cannot be read is skipped, and counted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs

from lmstrix.converter import FormatError, from_json, load_report
from lmstrix.errors import StoreError
from lmstrix.models import Cost, ModelInfo, Observation, StoredMeasurement, StoredReport, Trial
from lmstrix.stores.archive import ImportedResult, KeptMeasurement, ReportSummary, summarize
from lmstrix.stores.exchange import check_id
from lmstrix.stores.merging import Finished

__all__ = ["RowReader", "decode_key", "encode_key"]

T = TypeVar("T")
Row = tuple[Any, ...]

_MEASUREMENT = (
    "SELECT seq, id, key, model, started_at, cost, replaced, finished, context_length"
    " FROM measurements LEFT JOIN loads ON loads.measurement = seq"
)


def encode_key(key: str) -> str:
    """A key as ASCII JSON: a model's name may hold what SQLite's text does not take."""
    return json.dumps(key)


def decode_key(value: object) -> str:
    """The key that `encode_key` wrote; raises `StoreError` for a damaged one."""
    try:
        return from_json(_text(value), str)
    except ValueError as error:
        raise StoreError("The measurement's row in the store is damaged.") from error


def _text(value: object) -> str:
    """A text column's value. It comes as bytes, and anything can be in a damaged row."""
    if not isinstance(value, bytes):
        raise FormatError(f"expected text, got {type(value).__name__}")
    return value.decode()


class RowReader:
    """Reads rows, and remembers those that could not be read."""

    def __init__(self) -> None:
        self._skipped: set[tuple[str, int]] = set()

    @property
    def skipped(self) -> int:
        """How many rows could not be read so far, each counted once."""
        return len(self._skipped)

    def unfinished(self, connection: sqlite3.Connection, key: str) -> StoredMeasurement | None:
        """The measurement under `key` that was neither finished nor replaced."""
        row: Row | None = connection.execute(
            f"{_MEASUREMENT} WHERE key = ? AND finished IS NULL AND replaced = 0"
            " ORDER BY seq DESC LIMIT 1",
            (encode_key(key),),
        ).fetchone()
        if row is None:
            return None
        seq, identity, _, _, started_at, cost, _, _, trying = row
        names = self._read("measurement", seq, lambda: (_identity(identity), _moment(started_at)))
        if names is None:
            return None
        return StoredMeasurement(
            id=names[0],
            key=key,
            started_at=names[1],
            trials=self._trials(connection, names[0]),
            failures=self._failures(connection, names[0]),
            cost=self._cost(seq, cost),
            trying=_length(trying),
        )

    def reports(self, connection: sqlite3.Connection) -> tuple[StoredReport, ...]:
        """The newest report of each key that can be read, newest first."""
        rows: Iterable[Row] = connection.execute(
            "SELECT seq, id, key FROM measurements"
            " WHERE finished IS NOT NULL ORDER BY finished DESC"
        )
        newest: dict[str, StoredReport] = {}
        seen = set[bytes]()
        for seq, identity, key in rows:
            stored = None if key in seen else self._report(connection, seq, identity, key)
            if stored is not None:
                seen.add(key)
                # Not by the row's own bytes: a damaged row may write the same key in another way.
                newest.setdefault(stored.key, stored)
        return tuple(newest.values())

    def summaries(self, connection: sqlite3.Connection) -> tuple[ReportSummary, ...]:
        """What `reports` gives, without reading reports; newest first."""
        rows: Iterable[Row] = connection.execute(
            "SELECT seq, id, key, body FROM measurements LEFT JOIN summaries ON measurement = seq"
            " WHERE finished IS NOT NULL ORDER BY finished DESC"
        )
        newest: dict[str, ReportSummary] = {}
        seen = set[bytes]()
        for seq, identity, key, body in rows:
            if key in seen:
                continue
            summary = None if body is None else self._fact("summary", seq, body, ReportSummary)
            if summary is None:
                # An LMStrix of an earlier version, running on after the change, makes none.
                stored = self._report(connection, seq, identity, key)
                summary = summarize(stored) if stored else None
            if summary is not None:
                seen.add(key)
                newest.setdefault(summary.key, summary)
        return tuple(newest.values())

    def unfinished_models(self, connection: sqlite3.Connection) -> tuple[ModelInfo, ...]:
        """Models with an unfinished measurement, newest first, each once."""
        rows = connection.execute(
            "SELECT seq, model FROM measurements"
            " WHERE finished IS NULL AND replaced = 0 ORDER BY seq DESC"
        )
        return tuple(dict.fromkeys(self._facts("model", rows, ModelInfo)))

    def imported(self, connection: sqlite3.Connection) -> tuple[ImportedResult, ...]:
        """All imported results, in the order in which they came."""
        rows = connection.execute("SELECT seq, body FROM imported ORDER BY seq")
        return tuple(self._facts("imported", rows, ImportedResult))

    def kept(self, connection: sqlite3.Connection) -> Iterator[KeptMeasurement]:
        """Every measurement: finished ones as they finished, then the others as begun."""
        rows: list[Row] = connection.execute(
            f"{_MEASUREMENT} ORDER BY finished IS NULL, finished, seq"
        ).fetchall()
        for row in rows:
            kept = self._kept(connection, row)
            if kept is not None:
                yield kept

    def one_kept(self, connection: sqlite3.Connection, identity: str) -> KeptMeasurement | None:
        """The measurement of that id, or None.

        Raises `StoreError` for one that is there and cannot be read: nothing can be added to it.
        """
        row: Row | None = connection.execute(f"{_MEASUREMENT} WHERE id = ?", (identity,)).fetchone()
        if row is None:
            return None
        kept = self._kept(connection, row)
        if kept is None:
            raise StoreError("A measurement to be merged is unreadable in this store.")
        return kept

    def offered_keys(self, connection: sqlite3.Connection) -> set[str]:
        """Keys with an unfinished measurement."""
        rows = connection.execute(
            "SELECT seq, key FROM measurements WHERE finished IS NULL AND replaced = 0"
        )
        return set(self._facts("key", rows, str))

    def finished(self, connection: sqlite3.Connection) -> list[Finished]:
        """Finished measurements, the oldest first."""
        rows: Iterable[Row] = connection.execute(
            "SELECT seq, id, body FROM measurements LEFT JOIN summaries ON measurement = seq"
            " WHERE finished IS NOT NULL ORDER BY finished"
        )
        moment = datetime.min.replace(tzinfo=UTC)
        found = list[Finished]()
        for seq, identity, body in rows:
            summary = None if body is None else self._fact("summary", seq, body, ReportSummary)
            # One without a readable summary keeps its place behind the one before.
            moment = summary.finished_at if summary else moment
            name = self._read("measurement", seq, lambda i=identity: _identity(i))
            if name is not None:
                found.append((name, moment))
        return found

    def _kept(self, connection: sqlite3.Connection, row: Row) -> KeptMeasurement | None:
        seq, identity, key, model, started_at, cost, replaced, finished, trying = row
        kept = self._read(
            "measurement",
            seq,
            lambda: KeptMeasurement(
                id=_identity(identity),
                key=from_json(_text(key), str),
                model=from_json(_text(model), ModelInfo),
                started_at=_moment(started_at),
            ),
        )
        if kept is None:
            return None
        stored = None if finished is None else self._report(connection, seq, identity, key)
        return attrs.evolve(
            kept,
            trials=self._trials(connection, kept.id),
            failures=self._failures(connection, kept.id),
            cost=self._cost(seq, cost),
            trying=_length(trying),
            # Finished, but with a report that cannot be read, it is not to be gone on with.
            replaced=bool(replaced) or (finished is not None and stored is None),
            report=stored.report if stored else None,
        )

    def _report(
        self, connection: sqlite3.Connection, seq: int, identity: object, key: object
    ) -> StoredReport | None:
        (body,) = connection.execute(
            "SELECT report FROM measurements WHERE seq = ?", (seq,)
        ).fetchone()
        return self._read(
            "report",
            seq,
            lambda: StoredReport(
                id=_identity(identity),
                key=from_json(_text(key), str),
                report=load_report(_text(body)),
            ),
        )

    def _trials(self, connection: sqlite3.Connection, identity: str) -> tuple[Trial, ...]:
        rows = connection.execute(
            "SELECT seq, body FROM trials WHERE measurement = ? ORDER BY seq", (identity,)
        )
        return tuple(self._facts("trial", rows, Trial))

    def _failures(self, connection: sqlite3.Connection, identity: str) -> tuple[Observation, ...]:
        rows = connection.execute(
            "SELECT seq, body FROM failures WHERE measurement = ? ORDER BY seq", (identity,)
        )
        return tuple(self._facts("failure", rows, Observation))

    def _cost(self, seq: int, body: object) -> Cost:
        cost = None if body is None else self._fact("cost", seq, body, Cost)
        return cost or Cost()

    def _facts(self, what: str, rows: Iterable[Row], kind: type[T]) -> Iterator[T]:
        read = (self._fact(what, seq, body, kind) for seq, body in rows)
        return (fact for fact in read if fact is not None)

    def _fact(self, what: str, seq: int, body: object, kind: type[T]) -> T | None:
        return self._read(what, seq, lambda: from_json(_text(body), kind))

    def _read(self, what: str, seq: int, decode: Callable[[], T]) -> T | None:
        try:
            return decode()
        except ValueError:  # a FormatError, bytes that are no UTF-8, a date that is none
            self._skipped.add((what, seq))
            return None


def _identity(value: object) -> str:
    return check_id(_text(value))


def _moment(value: object) -> datetime:
    """A time with its offset: one without cannot be put in order with the others."""
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise FormatError("expected a time with its offset from UTC")
    return moment


def _length(value: object) -> int | None:
    """A context length; a damaged row may hold anything."""
    return value if isinstance(value, int) and value > 0 else None
