"""Whom a measurement waits for, in words."""

from __future__ import annotations

from lmstrix.events import WaitingForTurn
from lmstrix_cli.safe_text import label

__all__ = ["say_waiting"]


def say_waiting(event: WaitingForTurn) -> str:
    """``waiting for process 1234 that measures MODEL``, with as much of it as is known."""
    who = "another process" if event.pid is None else f"process {event.pid}"
    what = f" that measures {label(event.holder_key)}" if event.holder_key else ""
    return f"waiting for {who}{what}"
