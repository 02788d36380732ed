"""The file of a `JsonlStore`: lines that are only ever added. Every call holds the lock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lmstrix.converter import FormatError
from lmstrix.errors import StoreError
from lmstrix.stores._files import refuse_other_kind, set_aside
from lmstrix.stores._jsonl_lines import HEADER, VERSION, TornLine, check_header, decode, to_bytes

__all__ = ["LineFile", "Span"]

Span = tuple[int, int]
"""Where a line is: offset and length, in bytes."""

MAX_LINE = 64 << 20
"""A longer line is none of ours: our longest, a report, has some hundred kilobytes."""
_HEAD = 100
"""Bytes of a line that tell it from any other: its kind and its measurement."""
_TORN = to_bytes(TornLine())


class LineFile:
    """Reads what is new, adds lines for good, and keeps a wrong file apart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: tuple[int, int] | None = None
        self._end = 0
        self._last = (0, b"")
        self.notes: list[str] = []
        """Sentences that the user should read."""

    def prepare(self) -> bool:
        """Make sure that the file is a store; whether what was read before still holds.

        Raises `StoreError` and `OSError`.
        """
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            state = os.fstat(file.fileno())
            identity = (state.st_dev, state.st_ino)
            if identity == self._identity and self._goes_on(file):
                return True
            if self._is_store(file):
                self._identity, self._end = identity, len(file.readline(MAX_LINE))
                return False
            if state.st_size > 0 and not self._is_torn_header(file):
                refuse_other_kind(self._path, "jsonl")
                aside = set_aside(self._path)
                self.notes.append(
                    f"{self._path} is not a store of LMStrix, or its beginning is damaged;"
                    f" it was kept as {aside.name} and a new store was begun."
                )
        self._create()
        return False

    def new_lines(self) -> Iterator[tuple[Span, bytes]]:
        """What was added since the last call; a line that was torn off is mended first."""
        self._mend()
        with self._path.open("rb") as file:
            file.seek(self._end)
            before: tuple[Span, bytes] | None = None
            for span, line in self._whole_lines(file):
                if before is not None and line != _TORN:
                    yield before
                before = None if line == _TORN else (span, line)
            if before is not None:
                yield before

    def read(self, spans: list[Span]) -> Iterator[tuple[Span, bytes]]:
        """The lines at these places."""
        with self._path.open("rb") as file:
            for offset, length in spans:
                file.seek(offset)
                yield (offset, length), file.read(length)

    def append(self, data: bytes) -> None:
        """Add whole lines; on return they are on the disk. All of them or none."""
        with self._path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except BaseException:
                # A full disk: what did go in is taken back, so that the next line starts anew.
                with contextlib.suppress(OSError):
                    file.truncate(before)
                raise

    def _goes_on(self, file: BinaryIO) -> bool:
        """Whether what was read last is still there; the file stands at its beginning after.

        A file's number is soon given to another one, and an editor may write in place.
        """
        start, head = self._last
        file.seek(start)
        same = file.read(len(head)) == head and file.seek(0, os.SEEK_END) >= self._end
        file.seek(0)
        return same

    def _create(self) -> None:
        with self._path.open("wb") as file:
            file.write(HEADER)
            file.flush()
            os.fsync(file.fileno())
            state = os.fstat(file.fileno())
        _sync_folder(self._path.parent)
        self._identity, self._end = (state.st_dev, state.st_ino), len(HEADER)

    def _is_store(self, file: BinaryIO) -> bool:
        """Whether the first line says so; the file stands at its beginning afterwards."""
        line = file.readline(4096)
        file.seek(0)
        try:
            version = check_header(line) if line.endswith(b"\n") else 0
        except FormatError:
            return False
        if version > VERSION:
            raise StoreError(
                f"The store {self._path} was written by a newer LMStrix (version {version}).",
                hint="Update LMStrix, or name another file as the store.",
            )
        return version == VERSION

    def _is_torn_header(self, file: BinaryIO) -> bool:
        """Whether whoever made the file died over its first line."""
        content = file.read(len(HEADER) + 1)
        return HEADER.startswith(content)

    def _whole_lines(self, file: BinaryIO) -> Iterator[tuple[Span, bytes]]:
        while line := file.readline(MAX_LINE):
            start, length = self._end, len(line)
            is_long = False
            while not line.endswith(b"\n"):
                line = file.readline(MAX_LINE)
                if not line:
                    return  # Being written by nobody: `_mend` ends every line.
                is_long, length = True, length + len(line)
            self._end, self._last = start + length, (start, b"" if is_long else line[:_HEAD])
            yield (start, length), b"" if is_long else line

    def _mend(self) -> None:
        """End the last line where its writer died over it; nobody else is writing now."""
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= self._end:
                return
            file.seek(size - 1)
            if file.read(1) == b"\n":
                return
            file.seek(_last_start(file, size))
            tail = file.read(MAX_LINE)
        if _is_whole(tail):
            self.append(b"\n")
            return
        self.append(b"\n" + _TORN)
        self.notes.append(
            f"The last line of {self._path} was cut off, as by a crash; it was left out."
        )


def _is_whole(tail: bytes) -> bool:
    try:
        decode(tail)
    except FormatError:
        return False
    return True


def _last_start(file: BinaryIO, size: int) -> int:
    """Where the last line begins."""
    end, step = size, 1 << 16
    while end > 0:
        start = max(0, end - step)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _sync_folder(folder: Path) -> None:
    """The file's name on the disk, too; not every system can say so of a folder."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
