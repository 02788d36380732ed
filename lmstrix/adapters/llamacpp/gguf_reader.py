"""Bounded reading of a GGUF header's bytes: nothing here trusts a number that it reads.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from lmstrix.errors import InvalidModel

__all__ = ["ARRAY", "BOOL", "MAX_KEPT_ARRAY", "STRING", "Array", "Cursor", "Value"]

MAX_ELEMENTS = 2**24
"""Array elements in one header, all arrays together. Vocabularies and their merges stay
below a million; the bound keeps a hostile header from costing minutes."""
MAX_TEXT = 2**24
"""Bytes of all strings that are kept. The longest in real files are chat templates, some
100 kB; vocabularies are walked over and not kept."""
MAX_DEPTH = 4
"""Arrays within arrays. The engine itself reads none; the format allows them."""
MAX_KEPT_ARRAY = 4096
"""Elements up to which an array of numbers is kept: per-layer lists, not vocabularies."""

BOOL, STRING, ARRAY = 7, 8, 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    BOOL: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_CHUNK = 2**18


class Array:
    """An array: how many elements it has, and the elements where they were worth keeping."""

    __slots__ = ("items", "length")

    def __init__(self, length: int, items: tuple[int | float | bool, ...] | None) -> None:
        self.length = length
        self.items = items


Value = int | float | bool | str | Array


class Cursor:
    """Reads forward through an open file of known size, in chunks.

    Every method raises `InvalidModel` where the file ends too early or a bound is passed.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._buffer = b""
        self._start = 0
        """Offset in the file of the buffer's first byte."""
        self._at = 0
        """Position within the buffer; may lie beyond its end after a skip."""
        self._elements_left = MAX_ELEMENTS
        self._text_left = MAX_TEXT

    @property
    def position(self) -> int:
        """Offset in the file of the next byte."""
        return self._start + self._at

    def u32(self) -> int:
        """An unsigned number of 4 bytes."""
        return int.from_bytes(self._take(4), "little")

    def u64(self) -> int:
        """An unsigned number of 8 bytes."""
        return int.from_bytes(self._take(8), "little")

    def text(self, limit: int = MAX_TEXT) -> str:
        """A string; bytes that are not UTF-8 are replaced, for tokens need not be."""
        length = self.u64()
        if length > min(limit, self._text_left):
            raise InvalidModel(f"a string in the GGUF header claims {length} bytes")
        self._text_left -= length
        return self._take(length).decode("utf-8", errors="replace")

    def value(self, kind: int) -> Value:
        """A value of the GGUF type number `kind`."""
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self._array(depth=1)
        return self._scalar(kind)

    def _scalar(self, kind: int) -> int | float | bool:
        try:
            form = _SCALARS[kind]
        except KeyError:
            raise InvalidModel(f"the GGUF header holds a value of unknown type {kind}") from None
        return form.unpack(self._take(form.size))[0]

    def _array(self, depth: int) -> Array:
        if depth > MAX_DEPTH:
            raise InvalidModel(f"arrays in the GGUF header nest deeper than {MAX_DEPTH}")
        kind, length = self.u32(), self.u64()
        if length > self._elements_left:
            raise InvalidModel(f"an array in the GGUF header claims {length} elements")
        self._elements_left -= length
        if kind == STRING:
            self._skip_strings(length)
        elif kind == ARRAY:
            for _ in range(length):
                self._array(depth + 1)
        elif kind not in _SCALARS:
            raise InvalidModel(f"the GGUF header holds an array of unknown type {kind}")
        elif length <= MAX_KEPT_ARRAY:
            return Array(length, tuple(self._scalar(kind) for _ in range(length)))
        else:
            self._skip(length * _SCALARS[kind].size)
        return Array(length, None)

    def _skip_strings(self, count: int) -> None:
        """Walk over `count` strings: a vocabulary has no index, so each length is read."""
        read_length = struct.Struct("<Q").unpack_from
        while count:
            self._need(8)
            buffer, at, last = self._buffer, self._at, len(self._buffer) - 8
            while count and at <= last:
                at += 8 + read_length(buffer, at)[0]
                count -= 1
            self._at = at
            self._check(0)

    def _skip(self, length: int) -> None:
        self._check(length)
        self._at += length

    def _take(self, length: int) -> bytes:
        self._need(length)
        start = self._at
        self._at += length
        return self._buffer[start : self._at]

    def _check(self, length: int) -> None:
        if self.position + length > self._size:
            raise InvalidModel(
                "the file ends within its GGUF header",
                hint="It was probably not downloaded completely: get it again.",
            )

    def _need(self, length: int) -> None:
        """Have `length` bytes from here on in the buffer."""
        if self._at + length <= len(self._buffer):
            return
        self._check(length)
        self._start, self._at = self.position, 0
        self._file.seek(self._start)
        self._buffer = self._file.read(max(_CHUNK, length))
        if len(self._buffer) < length:  # the file shrank while it was read
            self._size = self._start + len(self._buffer)
            self._check(length)
