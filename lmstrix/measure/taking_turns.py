"""Waits until no other measurement uses the same machine or server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from lmstrix.events import Event, WaitingForTurn
from lmstrix.ports import Adapter, TakesTurns
from lmstrix.turns import Holder, hold_turn

__all__ = ["its_turn"]


@asynccontextmanager
async def its_turn(
    adapter: Adapter, model_key: str, emit: Callable[[Event], None], note: Callable[[str], None]
) -> AsyncGenerator[None, None]:
    """Hold the turn on what `adapter` contends for; at once where that is nothing.

    Where no lock can be made, as on a read-only disk, it goes on and says so: a measurement that
    runs alone, as most do, needs none.
    """

    def waiting(holder: Holder) -> None:
        emit(WaitingForTurn(model_key=model_key, pid=holder.pid, holder_key=holder.model_key))

    resource = adapter.turn if isinstance(adapter, TakesTurns) else None
    async with AsyncExitStack() as stack:
        if resource is not None:
            try:
                await stack.enter_async_context(hold_turn(resource, model_key, waiting))
            except OSError as error:
                note(f"other measurements could not be kept from this machine or server: {error}")
        yield
