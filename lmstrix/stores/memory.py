"""A store for one run: everything is forgotten with the object."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import anyio.lowlevel
import attrs

from lmstrix.errors import StoreError
from lmstrix.models import (
    ContextReport,
    Cost,
    ModelInfo,
    Observation,
    StoredMeasurement,
    StoredReport,
    Trial,
)

__all__ = ["MemoryStore"]


@attrs.define
class _Measurement:
    id: str
    key: str
    model: ModelInfo
    started_at: datetime
    trials: list[Trial] = attrs.field(factory=list[Trial])
    failures: list[Observation] = attrs.field(factory=list[Observation])
    cost: Cost = attrs.field(factory=Cost)

    def stored(self) -> StoredMeasurement:
        """What it holds now; later appends do not change it."""
        return StoredMeasurement(
            id=self.id,
            key=self.key,
            started_at=self.started_at,
            trials=tuple(self.trials),
            failures=tuple(self.failures),
            cost=self.cost,
        )


class MemoryStore:
    """Keeps trials and reports in this process's memory.

    For tests, and for measurements that nobody wants to go on with later. Each change is one
    step without an await in it, so tasks cannot get in each other's way; the await comes
    before, so that a cancelled call has changed nothing.
    """

    def __init__(self) -> None:
        self._measurements: dict[str, _Measurement] = {}
        self._unfinished: dict[str, str] = {}
        self._reports: list[StoredReport] = []

    @property
    def location(self) -> str:
        """An empty string: it is nowhere."""
        return ""

    async def begin(self, key: str, model: ModelInfo) -> StoredMeasurement:
        """A new, empty measurement under `key`, which replaces an unfinished one."""
        await anyio.lowlevel.checkpoint()
        new = _Measurement(id=uuid.uuid4().hex, key=key, model=model, started_at=datetime.now(UTC))
        self._measurements[new.id] = new
        # Taken out first, so that the newest stands last.
        self._unfinished.pop(key, None)
        self._unfinished[key] = new.id
        return new.stored()

    async def unfinished(self, key: str) -> StoredMeasurement | None:
        """The interrupted measurement under `key`, with its trials in order, or None."""
        await anyio.lowlevel.checkpoint()
        found = self._unfinished.get(key)
        return None if found is None else self._measurements[found].stored()

    async def append_trial(self, measurement_id: str, trial: Trial) -> None:
        """Remember one trial."""
        await anyio.lowlevel.checkpoint()
        self._find(measurement_id).trials.append(trial)

    async def append_failure(self, measurement_id: str, failure: Observation) -> None:
        """Remember that the engine failed at a length."""
        await anyio.lowlevel.checkpoint()
        self._find(measurement_id).failures.append(failure)

    async def save_cost(self, measurement_id: str, cost: Cost) -> None:
        """Remember what the measurement has cost so far."""
        await anyio.lowlevel.checkpoint()
        self._find(measurement_id).cost = cost

    async def finish(self, measurement_id: str, report: ContextReport) -> None:
        """Keep the report; the measurement is no longer unfinished."""
        await anyio.lowlevel.checkpoint()
        found = self._find(measurement_id)
        self._reports.append(StoredReport(id=found.id, key=found.key, report=report))
        if self._unfinished.get(found.key) == found.id:
            del self._unfinished[found.key]

    async def reports(self) -> Sequence[StoredReport]:
        """The newest finished report of each key, newest first."""
        await anyio.lowlevel.checkpoint()
        newest: dict[str, StoredReport] = {}
        for stored in reversed(self._reports):
            newest.setdefault(stored.key, stored)
        return tuple(newest.values())

    async def unfinished_models(self) -> Sequence[ModelInfo]:
        """Models with an interrupted measurement, newest first, each once."""
        await anyio.lowlevel.checkpoint()
        newest_first = reversed(self._unfinished.values())
        return tuple(dict.fromkeys(self._measurements[found].model for found in newest_first))

    async def aclose(self) -> None:
        """Nothing is held open."""
        await anyio.lowlevel.checkpoint()

    def _find(self, measurement_id: str) -> _Measurement:
        found = self._measurements.get(measurement_id)
        if found is None:
            raise StoreError("There is no such measurement in this store.")
        return found
