"""Waits until no other measurement uses the same machine or server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from lmstrix.events import WaitingForTurn
from lmstrix.measure.state import Announcer
from lmstrix.ports import Adapter, TakesTurns
from lmstrix.turns import Holder, hold_turn

__all__ = ["its_turn"]


@asynccontextmanager
async def its_turn(adapter: Adapter, announcer: Announcer) -> AsyncGenerator[None, None]:
    """Hold the turn on what `adapter` contends for; at once where that is nothing.

    Where no lock can be made, as on a read-only disk, it goes on and says so: a measurement that
    runs alone, as most do, needs none.
    """

    def waiting(holder: Holder) -> None:
        announcer.emit(
            WaitingForTurn(
                model_key=announcer.model_key, pid=holder.pid, holder_key=holder.model_key
            )
        )

    resource = adapter.turn if isinstance(adapter, TakesTurns) else None
    async with AsyncExitStack() as stack:
        if resource is not None:
            try:
                turn = hold_turn(resource, announcer.model_key, waiting)
                await stack.enter_async_context(turn)
            except OSError as error:
                announcer.note(
                    f"other measurements could not be kept from this machine or server: {error}"
                )
        yield
