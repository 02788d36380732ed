"""What the SDK cannot stand, kept away from it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from lmstrix.errors import EngineUnavailable

__all__ = ["guard"]

Enqueue = Callable[[object], Awaitable[bool]]


def guard(client: object) -> None:
    """End a connection of `client` that receives the JSON value ``null``.

    SDK 1.5.0 takes it for the end of the connection, and then asks for the next frame again and
    again without ever waiting: the event loop stands still, deadlines and Ctrl-C included. An SDK
    without the private parts that are looked for here is left as it is.
    """
    sessions = cast("Mapping[str, object]", getattr(client, "_sessions", {}))
    for session in sessions.values():
        handler: Any = getattr(getattr(session, "_lmsws", None), "_ws_handler", None)
        enqueue = getattr(handler, "_enqueue_message", None)
        if enqueue is not None:
            handler._enqueue_message = _guarded(enqueue)  # noqa: SLF001 - of this object alone


def _guarded(enqueue: Enqueue) -> Enqueue:
    async def guarded(message: object) -> bool:
        if message is None:
            # What is raised here ends the SDK's receiving task, which tells all that wait.
            raise EngineUnavailable("LM Studio sent a frame that says nothing")
        return await enqueue(message)

    return guarded
