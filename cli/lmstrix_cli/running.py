"""One event loop for one command, and what Ctrl-C does to it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

import anyio
import attrs
from anyio.abc import TaskStatus

from lmstrix.errors import LMStrixError

__all__ = ["Body", "Interrupted", "run_async", "supervise"]

T = TypeVar("T")
Body = Callable[[], Awaitable[T]]

LAST_WORDS_S = 1.0
_SHOW_CURSOR = "\x1b[?25h"
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(Exception):
    """A signal ended the work; everything was released in an orderly way."""


@attrs.define
class _Outcome(Generic[T]):
    """What the body left: exceptions leave the task group by hand, not as a group."""

    value: T | None = None
    error: Exception | None = None


def run_async(body: Body[T], on_signal: Body[None] | None = None) -> T:
    """Run `body` to its end. The first SIGINT, SIGTERM or SIGHUP cancels it; once it has
    released everything, `Interrupted` is raised. The second one ends this process at once.

    `on_signal` runs at the first one, while `body` still releases its resources, for a second
    at the most: what has to be said before a second signal comes.
    """
    try:
        return anyio.run(supervise, body, on_signal)
    except KeyboardInterrupt:
        # Where the event loop takes no signal handlers (Windows), it cancels by itself.
        raise Interrupted from None


async def supervise(body: Body[T], on_signal: Body[None] | None = None) -> T:
    """What `run_async` runs; raises `Interrupted` if a signal cancelled `body`."""
    outcome = _Outcome[T]()
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        with scope:
            await group.start(_watch_signals, scope, on_signal)
            try:
                outcome.value = await body()
            except Exception as error:  # noqa: BLE001 - raised again below, outside the group
                outcome.error = error
        group.cancel_scope.cancel()
    # A Ctrl-C reaches the engine's process too: its last messages are not errors of ours.
    broken_off = scope.cancel_called and isinstance(outcome.error, LMStrixError)
    if scope.cancelled_caught or broken_off:
        raise Interrupted
    if outcome.error is not None:
        raise outcome.error
    return outcome.value  # type: ignore[return-value] - the body returned: it is a T


def _signals() -> list[signal.Signals]:
    """The signals that end the work. ``nohup`` makes a process ignore SIGHUP: that stays."""
    known = [signal.Signals[name] for name in _NAMES if hasattr(signal, name)]
    ignored = getattr(signal, "SIGHUP", None)
    if ignored is not None and signal.getsignal(ignored) is signal.SIG_IGN:
        known.remove(ignored)
    return known


async def _watch_signals(
    scope: anyio.CancelScope, on_signal: Body[None] | None, *, task_status: TaskStatus[None]
) -> None:
    """Cancel `scope` at the first signal, leave the process at the second."""
    try:
        with anyio.open_signal_receiver(*_signals()) as signals:
            task_status.started()
            async for _ in signals:
                if scope.cancel_called:
                    _leave_now()
                scope.cancel()
                if on_signal is not None:
                    with anyio.move_on_after(LAST_WORDS_S), suppress(LMStrixError):
                        await on_signal()
    except NotImplementedError:
        task_status.started()


def _leave_now() -> None:
    """End the process without waiting for anything; the engine's process ends with us."""
    if sys.stderr.isatty():
        sys.stderr.write(_SHOW_CURSOR)
        sys.stderr.flush()
    os._exit(128 + signal.SIGINT)
