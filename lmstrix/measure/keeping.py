"""What a running measurement writes into the store, and what happens when that fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from lmstrix.errors import StoreError
from lmstrix.models import ContextReport, Cost, Observation, Trial
from lmstrix.ports import Store

__all__ = ["Keeper"]


APPEND_DEADLINE_S = 15.0
"""For one answer to be written, also when the measurement is being cancelled: it may have taken
minutes to get. Stores wait ten seconds for one another."""


class Keeper:
    """Writes for one measurement. After the first `StoreError` nothing more is written: the
    measurement goes on, and `error` says why it is not kept.
    """

    def __init__(
        self,
        store: Store,
        measurement_id: str,
        known: int,
        note: Callable[[str], None],
    ) -> None:
        self.error: StoreError | None = None
        self._store = store
        self._id = measurement_id
        self._kept = known
        self._note = note
        self._marked = False

    async def append_trial(self, trial: Trial) -> None:
        """Remember one trial."""
        await self._append(lambda: self._store.append_trials(self._id, (trial,)))
        self._kept += self.error is None

    async def append_failure(self, failure: Observation) -> None:
        """Remember that the engine failed at a length."""
        await self._append(lambda: self._store.append_failure(self._id, failure))

    async def save_cost(self, cost: Cost) -> None:
        """Remember what the measurement has cost so far."""
        await self._write(lambda: self._store.save_cost(self._id, cost))

    async def finish(self, report: ContextReport) -> None:
        """Keep the report."""
        await self._write(lambda: self._store.finish(self._id, report))

    async def mark(self, context_length: int | None) -> None:
        """Remember that a load is about to be tried; None: that it has ended."""
        if context_length is None:
            await self.clear_load()
        elif self.error is None:
            self._marked = True
            await self._write(lambda: self._store.mark_load(self._id, context_length))

    async def clear_load(self) -> None:
        """Remember that no load is under way.

        A mark that was left because the store failed is tried once more: the next run would take
        the size for one that kills.
        """
        if not self._marked:
            return
        if await self._write(lambda: self._store.clear_load(self._id), anyway=True):
            self._marked = False

    async def _append(self, append: Callable[[], Awaitable[None]]) -> None:
        async def to_the_end() -> None:
            with anyio.move_on_after(APPEND_DEADLINE_S, shield=True) as scope:
                await append()
            if scope.cancelled_caught:
                raise StoreError(f"the store took more than {APPEND_DEADLINE_S:.0f} seconds")

        await self._write(to_the_end)

    async def _write(self, write: Callable[[], Awaitable[None]], *, anyway: bool = False) -> bool:
        """Whether it was written."""
        if self.error is not None and not anyway:
            return False
        try:
            await write()
        except StoreError as error:
            if self.error is None:
                self.error = error
                self._note(
                    f"what was found out after {self._kept} answers could not be kept: {error}"
                )
            return False
        return True
