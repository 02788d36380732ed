"""One measurement, from the outside: run it, watch it, ask what it knows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import anyio

from lmstrix.events import Event, MeasurementFinished, MeasurementStarted
from lmstrix.measure.announcing import announce
from lmstrix.measure.asking import Asker
from lmstrix.measure.budget import Budget
from lmstrix.measure.course import Course
from lmstrix.measure.findings import Findings
from lmstrix.measure.instance import Instance
from lmstrix.measure.ledger import Ledger
from lmstrix.measure.level import Level
from lmstrix.measure.options import MeasureOptions
from lmstrix.measure.reporting import build_report
from lmstrix.models import Cause, ContextReport, ModelInfo, StoredMeasurement
from lmstrix.ports import Adapter, Observer, SearchStrategy, Store, Validator

__all__ = ["Measurement"]

SAVE_DEADLINE_S = 10.0
"""For the last words to the store when the measurement is being cancelled."""


class Measurement:
    """One search on one model. Run it once; ask it for what it knows at any time."""

    def __init__(
        self,
        *,
        adapter: Adapter,
        model: ModelInfo,
        strategy: SearchStrategy,
        validator: Validator,
        store: Store,
        levels: Sequence[Level] = (),
        options: MeasureOptions | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.model = model
        self.options = options or MeasureOptions()
        self._adapter = adapter
        self._store = store
        self._observers = tuple(observers)
        self._findings = Findings(
            model=model,
            strategy=strategy,
            validator=validator,
            levels=tuple(levels),
            options=self.options,
            started_at=datetime.now(UTC),
        )
        self._started = time.monotonic()

    async def run(self) -> ContextReport:
        """Measure, store and report.

        Also returns a report where the model is not measurable, where it cannot be loaded,
        and where the budget is spent (then `ContextReport.cause` says so, and a later run
        goes on). Cancelling releases the model, keeps every trial, and propagates.

        Raises:
            InfrastructureError: the engine is away, and stayed away.
            PredictionError: the engine keeps answering with an error of its own.
            ModelError: the model turned out to be broken or of the wrong kind at loading.
            StoreError: the trials cannot be kept.
        """
        status = self._findings.status = await self._adapter.status()
        stored = await self._open(self._findings.key(status))
        ledger = self._findings.ledger = Ledger(stored)
        self._emit(
            MeasurementStarted(
                model_key=self.model.key, model=self.model, resumed_trials=ledger.resumed
            )
        )
        cause: Cause | None = None
        try:
            with anyio.move_on_after(self.options.budget_s) as scope:
                cause = await self._course(stored.id, ledger).run()
            if scope.cancelled_caught:
                cause = Cause.BUDGET_SPENT
        finally:
            await self._save_cost(stored.id, ledger)
        report = self.partial_report(cause)
        if report.cause is not Cause.BUDGET_SPENT:
            await self._store.finish(stored.id, report)
        self._emit(MeasurementFinished(model_key=self.model.key, report=report))
        return report

    def partial_report(self, cause: Cause | None = None) -> ContextReport:
        """What is known now. `cause` overrides what the evidence says the limit is."""
        return build_report(self._findings, cause, seconds=time.monotonic() - self._started)

    def _course(self, measurement_id: str, ledger: Ledger) -> Course:
        async def mark(context_length: int | None) -> None:
            if context_length is None:
                await self._store.clear_load(measurement_id)
            else:
                await self._store.mark_load(measurement_id, context_length)

        instance = Instance(self._adapter, self.model, self._emit, ledger.add_load, mark)
        asker = Asker(
            model_key=self.model.key,
            instance=instance,
            ledger=ledger,
            store=self._store,
            measurement_id=measurement_id,
            retry=self.options.retry,
            emit=self._emit,
        )
        return Course(
            adapter=self._adapter,
            findings=self._findings,
            ledger=ledger,
            budget=Budget(self.options, ledger),
            instance=instance,
            asker=asker,
            emit=self._emit,
        )

    async def _open(self, key: str) -> StoredMeasurement:
        if not self.options.fresh:
            unfinished = await self._store.unfinished(key)
            if unfinished is not None:
                return unfinished
        return await self._store.begin(key, self.model)

    async def _save_cost(self, measurement_id: str, ledger: Ledger) -> None:
        with anyio.move_on_after(SAVE_DEADLINE_S, shield=True):
            cost = ledger.with_seconds(time.monotonic() - self._started)
            await self._store.save_cost(measurement_id, cost)

    def _emit(self, event: Event) -> None:
        announce(self._observers, event)
