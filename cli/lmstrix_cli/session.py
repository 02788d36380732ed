"""The one place where commands get their client; tests replace `open_client`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import click

from lmstrix import LMStrix
from lmstrix.client import (
    DEFAULT_ADAPTER,
    DEFAULT_LEVELS,
    DEFAULT_STRATEGY,
    EMBEDDED_ADAPTER,
)
from lmstrix.errors import ConfigurationError
from lmstrix.plugins import STORES, plugin_names
from lmstrix.ports import Observer
from lmstrix.stores.export import Archive
from lmstrix_cli import safe_text
from lmstrix_cli.logs import EventLog
from lmstrix_cli.servers import server_settings
from lmstrix_cli.settings import Settings

__all__ = [
    "EMBEDDED",
    "archive_of",
    "choose_store",
    "client",
    "observers",
    "open_client",
    "store_bytes",
]

EMBEDDED = EMBEDDED_ADAPTER
"""The adapter that runs models itself, so that there is no host to speak to."""


def open_client(
    settings: Settings,
    *,
    strategy: str = DEFAULT_STRATEGY,
    validator: str = "recall",
    levels: Sequence[str] = DEFAULT_LEVELS,
) -> LMStrix:
    """A client as the options want it; raises `ConfigurationError` for an unknown name."""
    return LMStrix(
        adapter=settings.adapter,
        strategy=strategy,
        validator=validator,
        levels=levels,
        store=choose_store(settings.store),
        adapter_settings=_adapter_settings(settings),
        observers=observers(settings),
    )


@asynccontextmanager
async def client(settings: Settings, **parts: Any) -> AsyncGenerator[LMStrix]:  # noqa: ANN401 - those of `open_client`
    """`open_client` for the time of a command; at the end the store's warnings are told."""
    async with open_client(settings, **parts) as opened:
        try:
            yield opened
        finally:
            for warning in opened.store.warnings:
                safe_text.note(f"store: {safe_text.label(warning)}")


def archive_of(opened: LMStrix) -> Archive:
    """The store, as far as it can be exported and merged."""
    if not isinstance(opened.store, Archive):
        raise ConfigurationError(
            "this store can be neither exported nor imported into",
            hint="Stores of LMStrix can: name one with --store.",
        )
    return opened.store


def observers(settings: Settings) -> tuple[Observer, ...]:
    """Who hears the events of every command: the log file, if there is one."""
    return (EventLog(),) if settings.log_file else ()


def _adapter_settings(settings: Settings) -> dict[str, object]:
    own = server_settings(settings.adapter)
    if settings.host is None:
        return own
    if (settings.adapter or DEFAULT_ADAPTER) == EMBEDDED:
        raise click.UsageError(
            f"--host is for adapters that speak to a server; {EMBEDDED} runs the model itself."
            " Leave --host (or LMSTRIX_HOST) out, or name an adapter that has a server."
        )
    return {"host": settings.host, **own}


def choose_store(value: str | None) -> str | Path | None:
    """A registered store by its name (``memory`` keeps nothing); anything else is a file."""
    if not value:
        return None
    return value if value in {"memory", *plugin_names(STORES)} else Path(value)


def store_bytes(location: str) -> int:
    """Size of a store's file with SQLite's log beside it; 0 if there is none."""
    total = 0
    for suffix in ("", "-wal"):
        with suppress(OSError, ValueError):
            total += Path(f"{location}{suffix}").stat().st_size if location else 0
    return total
