"""Puts an input through a parser: counts it, and watches what the parser does meanwhile."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

import attrs

from lmstrix.errors import LMStrixError

T = TypeVar("T")

LONGEST_S = 30
"""Seconds after which an input counts as a hang. Inputs take milliseconds; the rest is for a
machine that is busy with something else."""

_MOVES = frozenset(
    f"os.{name}"
    for name in "chmod chown link mkdir remove rename rmdir symlink truncate utime system".split()
) | {"subprocess.Popen", "socket.connect"}
"""What Python tells of beside opening, and no parser has any business with elsewhere."""


@attrs.define
class Count:
    inputs: int = 0
    rejected: int = 0
    accepted: int = 0


COUNTS: dict[str, Count] = {}


class NotTaken(Exception):
    """Raised by a test whose parser refuses in a quieter way: a file set aside, a row left out."""


class Hang(BaseException):
    """An input took too long. No parser can take it for an error of its own."""


def put_through(
    parser: str, parse: Callable[[], T], *refusals: type[Exception], writes: bool = False
) -> T | None:
    """What `parse` gives, or None where it refused the input with one of `refusals`.

    Without `refusals` any `LMStrixError` is one; every other exception is a defect, and so is
    writing: anywhere, or with `writes` outside the folder for temporary files.
    """
    count = COUNTS.setdefault(parser, Count())
    count.inputs += 1
    wanted = refusals or (LMStrixError,)
    try:
        with _alarm(), _watched(Path(tempfile.gettempdir()) if writes else None):
            value = parse()
    except wanted:
        count.rejected += 1
        return None
    count.accepted += 1
    return value


@contextmanager
def _alarm() -> Generator[None]:
    """Raises `Hang` in the parser, where the system can do that."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(_: int, frame: FrameType | None) -> None:
        raise Hang(f"no answer after {LONGEST_S} s, at {frame}")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class _Watch:
    """Python's own audit hook: it cannot be taken off again, so it is switched."""

    def __init__(self) -> None:
        self.installed = False
        self.on = False
        self.folder: Path | None = None
        self.seen: list[str] = []

    def hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.on or not (event in _MOVES or _is_writing(event, arguments)):
            return
        where = str(arguments[0])
        ours = self.folder is not None and where.startswith(f"{self.folder}{os.sep}")
        # Python keeps what it compiled, wherever it imports something for the first time.
        if not ours and "__pycache__" not in where:
            self.seen.append(f"{event} {where[:300]}")


def _is_writing(event: str, arguments: tuple[object, ...]) -> bool:
    if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return False
    flags = arguments[2]
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


_WATCH = _Watch()


@contextmanager
def _watched(folder: Path | None) -> Generator[None]:
    if not _WATCH.installed:
        sys.addaudithook(_WATCH.hear)
        _WATCH.installed = True
    _WATCH.on, _WATCH.folder = True, folder
    _WATCH.seen.clear()
    try:
        yield
    finally:
        _WATCH.on = False
    assert not _WATCH.seen, f"touched: {_WATCH.seen}"


def table() -> list[str]:
    rows = [*sorted(COUNTS.items()), ("all", _sum())]
    widest = max(len(name) for name, _ in rows)
    return [
        f"{'parser'.ljust(widest)}    inputs  rejected  accepted",
        *(
            f"{name.ljust(widest)}  {count.inputs:>8}  {count.rejected:>8}  {count.accepted:>8}"
            for name, count in rows
        ),
    ]


def _sum() -> Count:
    every = COUNTS.values()
    return Count(
        sum(c.inputs for c in every), sum(c.rejected for c in every), sum(c.accepted for c in every)
    )
