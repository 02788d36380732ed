"""Memory and terminal."""

from __future__ import annotations

import os
import shutil
import sys

import anyio

from lmstrix.adapters.llamacpp.memory import available_memory
from lmstrix.reports.words import say_bytes
from lmstrix_cli import colour
from lmstrix_cli.doctor.findings import Outcome, ok, warning
from lmstrix_cli.settings import Settings

__all__ = ["memory", "terminal"]

SMALL_BYTES = 1_000_000_000
"""What a model of a billion weights in four bits needs, without any context."""
NARROWEST = 60
"""Columns that the tables of reports need."""


async def memory(settings: Settings) -> Outcome:
    """What a load could use now."""
    del settings
    free = await anyio.to_thread.run_sync(available_memory, abandon_on_cancel=True)
    if free is None:
        return ok("this system does not say how much memory is free.")
    found = f"{say_bytes(free) or '0 B'} are free for a model."
    if free < SMALL_BYTES:
        return warning(found, "Close other programs, or measure a small model.")
    return ok(found)


async def terminal(settings: Settings) -> Outcome:
    """Encoding, width, colours."""
    del settings
    encoding = (getattr(sys.stdout, "encoding", None) or "unknown").lower()
    width = shutil.get_terminal_size().columns
    found = f"encoding {encoding}, {width} columns, {_colours()}."
    if encoding.replace("-", "") != "utf8":
        return warning(found, "Set PYTHONUTF8=1 to see every letter of a model's name.")
    if sys.stdout.isatty() and width < NARROWEST:
        return warning(found, f"Tables want {NARROWEST} columns; make the window wider.")
    return ok(found)


def _colours() -> str:
    """Whether there are colours, and what decides that."""
    if os.environ.get("NO_COLOR"):
        return "no colours because of NO_COLOR"
    said = colour.wanted("auto")
    if said is None:
        return "colours" if sys.stdout.isatty() else "no colours, as this is no terminal"
    return "colours because of FORCE_COLOR" if said else "no colours in a dumb terminal"
