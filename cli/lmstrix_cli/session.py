"""One command's event loop and its client; tests replace `open_client`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import anyio
import attrs
import click
from anyio.abc import TaskStatus

from lmstrix import (
    DEFAULT_LEVELS,
    DEFAULT_STRATEGY,
    EMBEDDED_ADAPTER,
    Archive,
    ConfigurationError,
    InfrastructureError,
    LMStrix,
    LMStrixError,
    ModelInfo,
    Observer,
    plugin_names,
)
from lmstrix_cli import output
from lmstrix_cli.logs import EventLog
from lmstrix_cli.servers import check_cost, other_servers, server_settings
from lmstrix_cli.settings import Settings

__all__ = [
    "Body",
    "Interrupted",
    "archive_of",
    "choose_store",
    "client",
    "every_model",
    "observers",
    "open_client",
    "run",
    "store_bytes",
    "supervise",
]

T = TypeVar("T")
Body = Callable[[], Awaitable[T]]

# The client


def open_client(
    settings: Settings,
    *,
    strategy: str = DEFAULT_STRATEGY,
    validator: str = "recall",
    levels: Sequence[str] = DEFAULT_LEVELS,
) -> LMStrix:
    """A client as the options want it; raises `ConfigurationError` for an unknown name."""
    nowhere = settings.adapter is None and settings.host is None
    return LMStrix(
        adapter=settings.adapter,
        host=_host(settings),
        adapter_settings=server_settings(settings.adapter),
        others=other_servers() if nowhere else {},
        strategy=strategy,
        validator=validator,
        levels=levels,
        store=choose_store(settings.store),
        observers=observers(settings),
    )


@asynccontextmanager
async def client(settings: Settings, **parts: Any) -> AsyncGenerator[LMStrix]:  # noqa: ANN401 - those of `open_client`
    """`open_client` for a command; shows the warnings of store and adapter at the end."""
    opened = open_client(settings, **parts)
    try:
        async with opened:
            try:
                if settings.adapter is not None:
                    check_cost(opened.adapter)
                yield opened
            finally:
                for warning in opened.store.warnings:
                    output.note(f"store: {warning}")
    finally:
        for warning in opened.warnings:
            output.note(warning)


async def every_model(opened: LMStrix, settings: Settings) -> list[ModelInfo]:
    """The models of the adapter; if none was named, also the files of the embedded engine.

    A file has its path as key, as ``lmstrix test`` takes it. What cannot be asked is
    named in a note; raises its `InfrastructureError` if nothing is found elsewhere.
    """
    if settings.adapter is not None or (settings.host is not None and settings.host_is_typed):
        return list(await opened.list_models())
    engine = opened.adapter_for("model.gguf")
    away: list[InfrastructureError] = []
    found: list[ModelInfo] = []
    files: list[ModelInfo] = []
    try:
        found += await opened.list_models()
    except InfrastructureError as error:
        away.append(error)
    try:
        files += [] if engine is opened.adapter else await engine.list_models()
    except InfrastructureError as error:
        away.append(error)
    # LM Studio gives the paths below its folder, which the embedded engine reads too.
    served = tuple(f"/{model.path}" for model in found if model.path)
    others = [one for one in files if not Path(one.path).as_posix().endswith(served)]
    if away and not found and not others:
        raise away[0]
    for error in away:
        output.note(f"{error}. {error.hint}".rstrip())
    return found + [attrs.evolve(one, key=one.path) for one in others]


def archive_of(opened: LMStrix) -> Archive:
    """The store, if it can be exported and merged."""
    if not isinstance(opened.store, Archive):
        raise ConfigurationError(
            "this store can be neither exported nor imported into",
            hint="LMStrix's own stores can: name one with --store.",
        )
    return opened.store


def observers(settings: Settings) -> tuple[Observer, ...]:
    """Who hears the events of every command: the log file, if there is one."""
    return (EventLog(),) if settings.log_file else ()


def _host(settings: Settings) -> str | None:
    if settings.host is not None and settings.adapter == EMBEDDED_ADAPTER:
        if not settings.host_is_typed:
            return None  # LMSTRIX_HOST is for other commands
        raise click.UsageError(
            f"--host is for adapters that speak to a server; {EMBEDDED_ADAPTER} runs the model"
            " itself. Leave --host out, or name an adapter that has a server."
        )
    return settings.host


def choose_store(value: str | None) -> str | Path | None:
    """A registered store by its name (``memory`` keeps nothing); anything else is a file."""
    if not value:
        return None
    return value if value in {"memory", *plugin_names("lmstrix.stores")} else Path(value)


def store_bytes(location: str) -> int:
    """Size of a store's file with SQLite's log beside it; 0 if there is none."""
    total = 0
    for suffix in ("", "-wal"):
        with suppress(OSError, ValueError):
            total += Path(f"{location}{suffix}").stat().st_size if location else 0
    return total


# The event loop, and what Ctrl-C does to it

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


def run(body: Body[T], on_signal: Body[None] | None = None) -> T:
    """Run `body` to its end. The first SIGINT, SIGTERM or SIGHUP cancels it; once it has
    released everything, `Interrupted` is raised. The second one ends this process at once.

    `on_signal` runs at the first one, while `body` still releases its resources, for a second
    at the most: what has to be said before a second signal comes.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        return anyio.run(supervise, body, on_signal)
    except KeyboardInterrupt:
        # If the event loop takes no signal handlers (Windows), it cancels by itself.
        raise Interrupted from None
    finally:
        signal.signal(signal.SIGINT, before)  # asyncio leaves Python's own


async def supervise(body: Body[T], on_signal: Body[None] | None = None) -> T:
    """What `run` runs; raises `Interrupted` if a signal cancelled `body`."""
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
