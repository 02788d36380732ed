"""One measurement, from the outside: run it, watch it, ask what it knows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import anyio

from lmstrix.errors import EngineUnavailable, InfrastructureError, StoreError
from lmstrix.events import MeasurementFinished, MeasurementStarted
from lmstrix.measure.announcing import Announcer
from lmstrix.measure.asking import Asker
from lmstrix.measure.budget import Budget
from lmstrix.measure.course import Course
from lmstrix.measure.engine import Engine
from lmstrix.measure.findings import Findings
from lmstrix.measure.forecast import Forecast, forecast
from lmstrix.measure.keeping import Keeper
from lmstrix.measure.ledger import Ledger
from lmstrix.measure.level import Level
from lmstrix.measure.options import MeasureOptions
from lmstrix.measure.reporting import build_report
from lmstrix.measure.retrying import with_retries
from lmstrix.measure.taking_turns import its_turn
from lmstrix.models import Cause, ContextReport, ModelInfo, Status, StoredMeasurement
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
        self._findings = Findings(
            model=model,
            strategy=strategy,
            validator=validator,
            levels=tuple(levels),
            options=self.options,
            started_at=datetime.now(UTC),
        )
        self._announcer = Announcer(model.key, tuple(observers), self._findings.notes)
        self._started = time.monotonic()
        self._keeper: Keeper | None = None

    async def run(self) -> ContextReport:
        """Wait for our turn, measure, store and report.

        Also returns a report where the model is not measurable, where it cannot be loaded,
        and where the budget is spent (then `ContextReport.cause` says so, and a later run
        goes on). Cancelling releases the model, keeps every trial, and propagates.

        Raises:
            InfrastructureError: the engine is away, and stayed away.
            PredictionError: the engine keeps answering with an error of its own.
            ModelError: the model turned out to be broken or of the wrong kind at loading.
            StoreError: the store cannot be opened. One that fails later does not end the
                measurement: see `store_error`.
        """
        status = self._findings.status = await self._status()
        async with its_turn(self._adapter, self._announcer):
            # What was waited for is no part of what the measurement took.
            self._started = time.monotonic()
            self._findings.started_at = datetime.now(UTC)
            return await self._run(self._findings.key(status))

    async def _run(self, key: str) -> ContextReport:
        stored = await self._open(key)
        ledger = self._findings.ledger = Ledger(stored)
        keeper = self._keeper = Keeper(self._store, stored.id, ledger.resumed, self._announcer.note)
        self._announcer.emit(
            MeasurementStarted(
                model_key=self.model.key, model=self.model, resumed_trials=ledger.resumed
            )
        )
        cause: Cause | None = None
        try:
            with anyio.move_on_after(self.options.budget_s) as scope:
                cause = await self._course(keeper, ledger).run()
            if scope.cancelled_caught:
                cause = Cause.BUDGET_SPENT
        finally:
            await self._save_cost(keeper, ledger)
        report = self.partial_report(cause)
        if report.cause is not Cause.BUDGET_SPENT:
            await keeper.finish(report)
            if keeper.error is not None:
                report = self.partial_report(cause)  # with the note on what was not kept
        self._announcer.emit(MeasurementFinished(model_key=self.model.key, report=report))
        return report

    @property
    def store_error(self) -> StoreError | None:
        """Why the store does not have everything that the report says; None: it has."""
        return self._keeper.error if self._keeper else None

    async def give_up_load(self) -> None:
        """Say that a load which may be under way is being broken off, not deadly for its size.

        For a caller that cancels `run` and may then end the process before `run` does: the next
        run would go below that size. Raises nothing.
        """
        if self._keeper is not None:
            await self._keeper.clear_load()

    async def key(self) -> str:
        """What the store keeps its report under: model, engine and method, and their versions."""
        return self._findings.key(await self._adapter.status())

    async def forecast(self) -> Forecast:
        """What it would try and read. Loads nothing."""
        return await forecast(self._adapter, self.model, self.options)

    def partial_report(self, cause: Cause | None = None) -> ContextReport:
        """What is known now. `cause` overrides what the evidence says the limit is."""
        return build_report(self._findings, cause, seconds=time.monotonic() - self._started)

    def _course(self, keeper: Keeper, ledger: Ledger) -> Course:
        instance = Engine(
            self._adapter, self.model, self._announcer.emit, ledger.add_load, keeper.mark
        )
        asker = Asker(
            instance=instance,
            ledger=ledger,
            keeper=keeper,
            retry=self.options.retry,
            announcer=self._announcer,
        )
        return Course(
            adapter=self._adapter,
            findings=self._findings,
            ledger=ledger,
            budget=Budget(self.options, ledger),
            instance=instance,
            asker=asker,
            announcer=self._announcer,
        )

    async def _status(self) -> Status:
        """The engine's, once it answers: what is stored depends on the versions that it tells."""

        async def ask() -> Status:
            status = await self._adapter.status()
            if not status.available:
                raise EngineUnavailable(status.detail, hint=status.hint)
            return status

        return await with_retries(
            self.options.retry,
            ask,
            on=(InfrastructureError,),
            announce=self._announcer.retry,
        )

    async def _open(self, key: str) -> StoredMeasurement:
        if not self.options.fresh:
            unfinished = await self._store.unfinished(key)
            if unfinished is not None:
                return unfinished
        return await self._store.begin(key, self.model)

    async def _save_cost(self, keeper: Keeper, ledger: Ledger) -> None:
        with anyio.move_on_after(SAVE_DEADLINE_S, shield=True):
            cost = ledger.with_seconds(time.monotonic() - self._started)
            await keeper.save_cost(cost)
            await keeper.clear_load()
