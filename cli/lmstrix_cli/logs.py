"""``--log-file``: what happened, with the time, for somebody who looks later.

Everything goes through `logging`; `EventLog` is the observer that puts events there. A line is
one line whatever it is about: control characters are escaped. Prompts, replies and what other
packages say while they debug (their messages hold prompts) are left out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from lmstrix.events import Event, MeasurementFinished
from lmstrix_cli.safe_text import label

__all__ = ["EventLog", "LogFile", "event_words", "log"]

OURS = ("lmstrix", "lmstrix_cli")
LONGEST = 1000
"""Characters of one message: no prompt is that short, no sentence of ours that long."""
PREFILL_S = 1.0
"""Of the news about reading, which come many times a second, one in this time is kept."""

_commands = logging.getLogger("lmstrix_cli.commands")
_events = logging.getLogger("lmstrix_cli.events")


class LogFile:
    """Appends log lines to a file from `open` to `close`. Raises `OSError` if it cannot."""

    def __init__(self, path: str) -> None:
        self._handler = logging.FileHandler(
            Path(path).expanduser(), mode="a", encoding="utf-8", errors="backslashreplace"
        )
        self._handler.setFormatter(_Lines())
        self._handler.addFilter(_is_for_the_log)
        self._levels: dict[str, int] = {}

    def open(self) -> None:
        """Listen from now on."""
        logging.getLogger().addHandler(self._handler)
        for name in OURS:
            logger = logging.getLogger(name)
            self._levels[name] = logger.level
            logger.setLevel(logging.DEBUG)

    def close(self) -> None:
        """Listen no more, and leave loggers as they were. Idempotent."""
        logging.getLogger().removeHandler(self._handler)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)
        self._levels.clear()
        self._handler.close()


@contextmanager
def log(path: str, command: str) -> Generator[None]:
    """Log to the file `path` while `command` runs. Raises `OSError`."""
    file = LogFile(path)
    file.open()
    started = time.monotonic()
    try:
        # Not its arguments: one of them may be a prompt.
        _commands.info("%s started", command)
        yield
    finally:
        _commands.info("%s ended after %.1f s", command, time.monotonic() - started)
        file.close()


def _is_for_the_log(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OURS or record.levelno >= logging.WARNING


class _Lines(logging.Formatter):
    """Time, level, where from, message; the lines of a traceback each have the same beginning."""

    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and one more for each of its traceback."""
        stamp = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        head = f"{stamp}.{int(record.msecs):03d}Z {record.levelname} {record.name}:"
        said = [label(record.getMessage(), LONGEST)]
        if record.exc_info:
            said += [f"| {label(line, LONGEST)}" for line in self._traceback(record)]
        return "\n".join(f"{head} {words}" for words in said)

    def _traceback(self, record: logging.LogRecord) -> list[str]:
        if not record.exc_info:
            return []
        return self.formatException(record.exc_info).splitlines()


class EventLog:
    """An observer that logs what it hears."""

    def __init__(self) -> None:
        self._last_prefill_s = 0.0

    def __call__(self, event: Event, /) -> None:
        """Log one event. Most prefill progress is skipped."""
        name = type(event).__name__
        if name in {"PrefillProgressed", "LoadProgressed"}:
            now = time.monotonic()
            if now - self._last_prefill_s < PREFILL_S:
                return
            self._last_prefill_s = now
        _events.info("%s", event_words(event))


def event_words(event: Event) -> str:
    """The name of the event and what it says in numbers and short words, without texts."""
    words = [type(event).__name__, *_words(event, "")]
    if isinstance(event, MeasurementFinished):
        words += [f"true_context={event.report.true_context}", f"cause={event.report.cause}"]
    return " ".join(words)


_TEXTS = frozenset({"expected", "reply", "model", "report"})
"""Of a trial the texts; the store keeps reports anyway."""


def _words(fact: attrs.AttrsInstance, prefix: str) -> Iterator[str]:
    """``name=value`` for the fields of a fact, and of the facts in it."""
    for field in attrs.fields(type(fact)):
        name = f"{prefix}{field.name}"
        value: object = getattr(fact, field.name)
        if field.name in _TEXTS or value is None:
            continue
        if hasattr(type(value), "__attrs_attrs__"):
            yield from _words(value, f"{name}.")
        else:
            shown = value if isinstance(value, int | float) else repr(str(value))
            yield f"{name}={shown}"
