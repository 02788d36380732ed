"""The one place where commands get their client; tests replace `open_client`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from lmstrix import LMStrix
from lmstrix.client import DEFAULT_ADAPTER, DEFAULT_LEVELS, EMBEDDED_ADAPTER
from lmstrix.plugins import STORES, plugin_names
from lmstrix.ports import Observer
from lmstrix_cli.logs import EventLog
from lmstrix_cli.settings import Settings

__all__ = ["EMBEDDED", "choose_store", "observers", "open_client"]

EMBEDDED = EMBEDDED_ADAPTER
"""The adapter that runs models itself, so that there is no host to speak to."""


def open_client(
    settings: Settings,
    *,
    strategy: str = "auto",
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


def observers(settings: Settings) -> tuple[Observer, ...]:
    """Who hears the events of every command: the log file, if there is one."""
    return (EventLog(),) if settings.log_file else ()


def _adapter_settings(settings: Settings) -> dict[str, object]:
    if settings.host is None:
        return {}
    if (settings.adapter or DEFAULT_ADAPTER) == EMBEDDED:
        raise click.UsageError(
            f"--host is for adapters that speak to a server; {EMBEDDED} runs the model itself."
            " Leave --host (or LMSTRIX_HOST) out, or name an adapter that has a server."
        )
    return {"host": settings.host}


def choose_store(value: str | None) -> str | Path | None:
    """A registered store by its name (``memory`` keeps nothing); anything else is a file."""
    if not value:
        return None
    return value if value in {"memory", *plugin_names(STORES)} else Path(value)
