"""One command's event loop and its client; tests replace `open_client`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import attrs
import click
from anyio.abc import TaskStatus

from lmstrix import (
    DEFAULT_LEVELS,
    DEFAULT_STRATEGY,
    EMBEDDED_ADAPTER,
    Adapter,
    Archive,
    ConfigurationError,
    EngineUnavailable,
    InfrastructureError,
    LMStrix,
    LMStrixError,
    ModelInfo,
    Observer,
    PluginNotFound,
    plugin_names,
)
from lmstrix_cli import output
from lmstrix_cli.logs import EventLog
from lmstrix_cli.settings import Settings

T = TypeVar("T")
Body = Callable[[], Awaitable[T]]

# The client

OTHER_SERVERS = ("ollama", "llama-server")
"""Adapters whose servers have ports of their own on this machine, besides LM Studio: without
``--adapter`` and ``--host`` a model is looked for there too."""
_ADAPTERS = {
    "declared": "openai",
    "accept_cost": "openai",
    "binary": "llama-server",
    "server_args": "llama-server",
}
"""The shared options that are for one adapter only."""
_MEASURES = {"test", "map", "bench"}
"""Commands that may cost money on another machine."""
_READS = {"list", "ls", "report", "compare", "export"}
"""Commands that only read the store."""


def open_client(
    settings: Settings,
    *,
    strategy: str = DEFAULT_STRATEGY,
    validator: str = "recall",
    levels: Sequence[str] = DEFAULT_LEVELS,
) -> LMStrix:
    """A client as the options want it; raises `ConfigurationError` for an unknown name."""
    nowhere = settings.adapter is None and settings.host is None
    try:
        return LMStrix(
            adapter=settings.adapter,
            host=_host(settings),
            adapter_settings=_adapter_settings(settings, settings.adapter),
            # Whatever listens at their ports is not sent the key.
            others={
                name: _adapter_settings(settings, name) | {"send_key": False}
                for name in (OTHER_SERVERS if nowhere else ())
            },
            strategy=strategy,
            validator=validator,
            levels=levels,
            store=choose_store(settings.store),
            observers=observers(settings),
        )
    except PluginNotFound as error:
        unknown = settings.adapter not in plugin_names("lmstrix.adapters")
        if unknown and settings.adapter and settings.adapter == os.environ.get("LMSTRIX_ADAPTER"):
            error.hint = f"LMSTRIX_ADAPTER names it. {error.hint}"
        raise


@asynccontextmanager
async def client(settings: Settings, **parts: Any) -> AsyncGenerator[LMStrix]:  # noqa: ANN401 - those of `open_client`
    """`open_client` for a command; shows the warnings of store and adapter at the end."""
    opened = open_client(settings, **parts)
    try:
        async with opened:
            try:
                _check_cost(settings, opened)
                yield opened
            finally:
                for warning in opened.store.warnings:
                    output.warn(f"store: {warning}")
                named, ctx = choose_store(settings.store), click.get_current_context(silent=True)
                reads = ctx is not None and ctx.info_name in _READS
                if reads and isinstance(named, Path) and not named.expanduser().exists():
                    output.note(f"Note: the store {named} does not exist yet.")
    finally:
        for warning in opened.warnings:
            output.note(warning)


async def every_model(opened: LMStrix, settings: Settings) -> list[tuple[str, ModelInfo]]:
    """The models of the adapter, each with the adapter's name; if none was named, also those of
    the other servers of this machine and the files of the embedded engine.

    A file has its path as key, as ``lmstrix test`` takes it. What cannot be asked is
    named in a note; raises its `InfrastructureError` if nothing is found elsewhere.
    """
    if settings.adapter is not None or (settings.host is not None and settings.host_is_typed):
        return [(opened.adapter.name, model) for model in await opened.list_models()]
    away: list[InfrastructureError] = []

    async def ask(adapter: Adapter) -> Sequence[ModelInfo]:
        try:
            return await adapter.list_models()
        except InfrastructureError as error:
            away.append(error)
            return ()

    engine = opened.adapter_for("model.gguf")
    models = await ask(opened.adapter)
    found = [(opened.adapter.name, model) for model in models]
    for server in await opened.other_servers():
        found += [(server.name, model) for model in await ask(server)]
    files = () if engine is opened.adapter else await ask(engine)
    # LM Studio gives the paths below its folder, which the embedded engine reads too.
    served = tuple(f"/{model.path}" for model in models if model.path)
    others = [one for one in files if not Path(one.path).as_posix().endswith(served)]
    if away and not found and not others:
        folders = (await engine.status()).model_folders
        nowhere = f", and no GGUF file is in {' or '.join(folders)}" if folders else ""
        raise EngineUnavailable(
            f"no model was found. {away[0]}{nowhere}",
            hint=f"{away[0].hint} No model at hand: lmstrix demo.".strip(),
        ) from away[0]
    for error in away:
        # With models of others at hand, it is enough to say that this one is missing.
        output.note(f"Note: {error}.")
    return found + [(engine.name, attrs.evolve(one, key=one.path)) for one in others]


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


def _adapter_settings(settings: Settings, adapter: str | None) -> dict[str, object]:
    """What `adapter` takes besides the host; a usage error for an option of another one."""
    given: dict[str, object] = {
        name: value for name in _ADAPTERS if (value := getattr(settings, name))
    }
    for name in given:
        if _ADAPTERS[name] != adapter:
            option = "yes" if name == "accept_cost" else name.replace("_", "-")
            raise click.UsageError(f"--{option} is for --adapter {_ADAPTERS[name]}.")
    ctx = click.get_current_context(silent=True)
    if ctx and adapter == "ollama" and ctx.params.get("force"):
        given["force"] = True
    # One reply is what was asked for; so is a measurement with a limit.
    if (
        ctx
        and adapter == "openai"
        and (ctx.params.get("budget_tokens") or ctx.info_name == "infer")
    ):
        given["accept_cost"] = True
    return given


def _check_cost(settings: Settings, opened: LMStrix) -> None:
    """Let an adapter that knows of costs refuse a measurement before anything is sent."""
    ctx = click.get_current_context(silent=True)
    if settings.adapter and ctx and ctx.info_name in _MEASURES and not ctx.params.get("dry_run"):
        check = getattr(opened.adapter, "check_cost", None)
        if check is not None:
            check()


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


SLOW_S = 5.0
"""After so long without a word, a person is told that nothing has ended."""


def ask(body: Body[T]) -> T:
    """`run` for a question to servers, which may keep one waiting: says so after a while."""
    return run(body, says_slow=True)


async def _say_slow() -> None:
    await anyio.sleep(SLOW_S)
    output.note("Waiting for a server's answer; Ctrl-C ends it.")


def run(body: Body[T], on_signal: Body[None] | None = None, *, says_slow: bool = False) -> T:
    """Run `body` to its end. The first SIGINT, SIGTERM or SIGHUP cancels it; once it has
    released everything, `Interrupted` is raised. The second one ends this process at once.

    `on_signal` runs at the first one, while `body` still releases its resources, for a second
    at the most: what has to be said before a second signal comes.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        return anyio.run(supervise, body, on_signal, says_slow)
    except KeyboardInterrupt:
        # If the event loop takes no signal handlers (Windows), it cancels by itself.
        raise Interrupted from None
    finally:
        signal.signal(signal.SIGINT, before)  # asyncio leaves Python's own


async def supervise(
    body: Body[T],
    on_signal: Body[None] | None = None,
    says_slow: bool = False,  # noqa: FBT001, FBT002 - anyio passes no names
) -> T:
    """What `run` runs; raises `Interrupted` if a signal cancelled `body`."""
    # Exceptions leave the task group by hand, not as a group.
    values: list[T] = []
    errors: list[Exception] = []
    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        with scope:
            await group.start(_watch_signals, scope, on_signal)
            if says_slow:
                group.start_soon(_say_slow)
            try:
                values.append(await body())
            except Exception as error:  # noqa: BLE001 - raised again below, outside the group
                errors.append(error)
        group.cancel_scope.cancel()
    # A Ctrl-C reaches the engine's process too: its last messages are not errors of ours.
    broken_off = scope.cancel_called and errors and isinstance(errors[0], LMStrixError)
    if scope.cancelled_caught or broken_off:
        raise Interrupted
    if errors:
        raise errors[0]
    return values[0]


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
