"""What a person sees on stderr while a measurement runs."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from typing import Protocol

from lmstrix.events import Event
from lmstrix_cli.progress.live import LiveProgress
from lmstrix_cli.progress.plain import PlainProgress, Silence
from lmstrix_cli.settings import is_quiet

__all__ = ["Progress", "choose_progress"]


class Progress(AbstractContextManager[object], Protocol):
    """An observer that is shown between entering and leaving it."""

    def __call__(self, event: Event, /) -> None:
        """Hear one event."""
        ...


def choose_progress(*, quiet: bool) -> Progress:
    """A live line on a terminal, plain lines in a log, nothing at all when `quiet`.

    ``lmstrix --quiet`` says the same for every command. A terminal that calls itself dumb cannot
    draw a line again.
    """
    if quiet or is_quiet():
        return Silence()
    draws = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return LiveProgress() if draws else PlainProgress()
