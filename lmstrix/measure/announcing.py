"""Tells observers. By contract none of them can hurt what is being measured."""

from __future__ import annotations

from collections.abc import Iterable

from lmstrix.events import Event
from lmstrix.ports import Observer

__all__ = ["announce"]


def announce(observers: Iterable[Observer], event: Event) -> None:
    """Let every observer hear `event`; what one raises is dropped."""
    for observer in observers:
        try:
            observer(event)
        except Exception:  # noqa: BLE001, S112 - by contract an observer cannot hurt
            continue
