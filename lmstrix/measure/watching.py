"""A measurement as a stream of its events."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from lmstrix.errors import LMStrixError
from lmstrix.events import Event
from lmstrix.measure.run import Measurement
from lmstrix.ports import Observer

__all__ = ["watch_measurement"]


async def watch_measurement(
    make: Callable[[Observer], Awaitable[Measurement]],
) -> AsyncGenerator[Event, None]:
    """The events of the measurement that `make` makes for an observer, which is run meanwhile.

    Closing the generator cancels the measurement. What it raises is raised at the end.
    """
    send, receive = anyio.create_memory_object_stream[Event](math.inf)
    measurement = await make(send.send_nowait)
    failure: list[LMStrixError] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_run_and_close, measurement, send, failure)
        try:
            async with receive:
                async for event in receive:
                    yield event
        finally:
            group.cancel_scope.cancel()
    if failure:
        raise failure[0]


async def _run_and_close(
    measurement: Measurement, send: MemoryObjectSendStream[Event], failure: list[LMStrixError]
) -> None:
    with send:
        try:
            await measurement.run()
        except LMStrixError as error:
            failure.append(error)
