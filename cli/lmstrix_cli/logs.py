"""``--log-file``: what happened, with the time, for somebody who looks later.

Everything goes through `logging`; `EventLog` is the observer that puts events there. A line is
one line whatever it is about: control characters are escaped. Prompts, replies and what other
packages say while they debug (their messages hold prompts) are left out.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import attrs
import click

from lmstrix import Event, MeasurementFinished
from lmstrix_cli import output
from lmstrix_cli.output import label

OURS = ("lmstrix", "lmstrix_cli")
LONGEST = 1000
"""Characters of one message: no prompt is that short, no sentence of ours that long."""
PREFILL_S = 1.0
"""Of the news about reading, which come many times a second, one in this time is kept."""

_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ ")
"""How every line of a log begins."""
_HEAD_BYTES = 64

_commands = logging.getLogger("lmstrix_cli.commands")
_events = logging.getLogger("lmstrix_cli.events")


class _LogFile(logging.FileHandler):
    """A file that takes log lines until one cannot be written: then it says so, once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="a", encoding="utf-8", errors="backslashreplace")
        self._broken = False
        self.setFormatter(_Lines())
        self.addFilter(lambda record: _is_ours(record) or record.levelno >= logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, unless an earlier one could not be written."""
        if not self._broken:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say on stderr why there are no more lines."""
        del record
        error = sys.exc_info()[1]
        reason = error.strerror if isinstance(error, OSError) else error
        self._broken = True
        path = repr(self.baseFilename)
        output.error(f"the log file {path} cannot be written: {reason}. It ends here.")

    def close(self) -> None:
        """Close the file. Idempotent."""
        with suppress(OSError):  # what could not be written cannot be flushed either
            super().close()


@contextmanager
def others(*, shown: bool) -> Generator[None]:
    """Keep the log lines of other packages from stderr, where Python prints warnings that nobody
    handles: some quote prompts and replies. With `shown` they are printed.
    """
    handler = logging.StreamHandler() if shown else logging.NullHandler()
    handler.addFilter(lambda record: not _is_ours(record))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def log(path: str, command: str) -> Generator[None]:
    """Log to the file `path` while `command` runs.

    Raises `click.BadParameter` if the file cannot be written, or holds something else.
    """
    handler = _open(Path(path).expanduser())
    levels = {name: logging.getLogger(name).level for name in OURS}
    logging.getLogger().addHandler(handler)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    started = time.monotonic()
    try:
        # Not its arguments: one of them may be a prompt.
        _commands.info("%s started", command)
        yield
    finally:
        _commands.info("%s ended after %.1f s", command, time.monotonic() - started)
        logging.getLogger().removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        handler.close()


def _open(path: Path) -> _LogFile:
    """The log file, new or continued."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(_HEAD_BYTES)
            if head and not _STAMP.match(head):
                raise click.BadParameter(
                    f"{str(path)!r} exists and is not an LMStrix log. Name another file.",
                    param_hint="--log-file",
                )
        return _LogFile(path)
    except OSError as error:
        raise click.BadParameter(
            f"{str(path)!r} cannot be written: {error.strerror}.", param_hint="--log-file"
        ) from error


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in OURS


class _Lines(logging.Formatter):
    """Time, level, where from, message; the lines of a traceback each have the same beginning."""

    converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and one more for each of its traceback."""
        stamp = self.formatTime(record, "%Y-%m-%dT%H:%M:%S")
        head = f"{stamp}.{int(record.msecs):03d}Z {record.levelname} {record.name}:"
        said = [label(record.getMessage(), LONGEST)]
        if record.exc_info:
            said += [f"| {label(line, LONGEST)}" for line in _traceback(record.exc_info[1])]
        return "\n".join(f"{head} {words}" for words in said)


def _traceback(error: BaseException | None) -> Iterator[str]:
    """The traceback of `error`, of those it groups and of its causes, without what they say: a
    server's message may quote the prompt.
    """
    left: list[BaseException | None] = [error]
    seen = set[int]()
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield f"{type(error).__name__}, raised at"
        for line in traceback.format_tb(error.__traceback__):
            yield from line.splitlines()
        inner = cast("Sequence[BaseException]", getattr(error, "exceptions", ()))
        left += [error.__cause__ or error.__context__, *reversed(inner)]


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


_TEXTS = frozenset(
    {"expected", "reply", "model", "report", "reason", "text", "error", "store_error"}
)
"""Of a trial the texts; the store keeps reports anyway. The words of errors may quote a prompt."""


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
