"""Facts to rows of a `SqliteStore` and back. A row that cannot be read is skipped, and counted."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypeVar

from lmstrix.converter import FormatError, from_json, load_report, to_json
from lmstrix.errors import StoreError
from lmstrix.models import Cost, ModelInfo, Observation, StoredMeasurement, StoredReport, Trial

__all__ = ["RowReader", "encode", "encode_key"]

T = TypeVar("T")
Row = tuple[Any, ...]


def encode(fact: object) -> str:
    """The JSON that a row holds; raises `StoreError` for a fact that JSON cannot hold."""
    try:
        return to_json(fact)
    except FormatError as error:
        raise StoreError(f"{type(fact).__name__} cannot be stored: {error}") from error


def encode_key(key: str) -> str:
    """A key as ASCII JSON: a model's name may hold what SQLite's text does not take."""
    return json.dumps(key)


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
            "SELECT seq, id, started_at, cost FROM measurements WHERE key = ?"
            " AND finished IS NULL AND replaced = 0 ORDER BY seq DESC LIMIT 1",
            (encode_key(key),),
        ).fetchone()
        if row is None:
            return None
        seq, identity, started_at, cost = row
        names = self._read(
            "measurement", seq, lambda: (_text(identity), datetime.fromisoformat(_text(started_at)))
        )
        if names is None:
            return None
        trials = connection.execute(
            "SELECT seq, body FROM trials WHERE measurement = ? ORDER BY seq", names[:1]
        )
        failures = connection.execute(
            "SELECT seq, body FROM failures WHERE measurement = ? ORDER BY seq", names[:1]
        )
        costs = [] if cost is None else self._facts("cost", [(seq, cost)], Cost)
        return StoredMeasurement(
            id=names[0],
            key=key,
            started_at=names[1],
            trials=tuple(self._facts("trial", trials, Trial)),
            failures=tuple(self._facts("failure", failures, Observation)),
            cost=costs[0] if costs else Cost(),
        )

    def reports(self, connection: sqlite3.Connection) -> tuple[StoredReport, ...]:
        """The newest report of each key that can be read, newest first."""
        rows: Iterable[Row] = connection.execute(
            "SELECT seq, id, key, report FROM measurements"
            " WHERE finished IS NOT NULL ORDER BY finished DESC"
        )
        newest: dict[bytes, StoredReport] = {}
        for seq, identity, key, report in rows:
            if key in newest:
                continue
            stored = self._read("report", seq, lambda v=(identity, key, report): _report(*v))
            if stored is not None:
                newest[key] = stored
        return tuple(newest.values())

    def unfinished_models(self, connection: sqlite3.Connection) -> tuple[ModelInfo, ...]:
        """Models with an unfinished measurement, newest first, each once."""
        rows = connection.execute(
            "SELECT seq, model FROM measurements"
            " WHERE finished IS NULL AND replaced = 0 ORDER BY seq DESC"
        )
        return tuple(dict.fromkeys(self._facts("model", rows, ModelInfo)))

    def _facts(self, what: str, rows: Iterable[Row], kind: type[T]) -> list[T]:
        read = (
            self._read(what, seq, lambda b=body: from_json(_text(b), kind)) for seq, body in rows
        )
        return [fact for fact in read if fact is not None]

    def _read(self, what: str, seq: int, decode: Callable[[], T]) -> T | None:
        try:
            return decode()
        except ValueError:  # a FormatError, bytes that are no UTF-8, a date that is none
            self._skipped.add((what, seq))
            return None


def _report(identity: object, key: object, report: object) -> StoredReport:
    return StoredReport(
        id=_text(identity), key=from_json(_text(key), str), report=load_report(_text(report))
    )
