"""Reads the header of a GGUF file, and checks that the file is whole.

Reading takes milliseconds (22 ms with a vocabulary of 98,000 pieces and merges; the `gguf` package
needs 4 s for the same file): only the keys that `GgufHeader` needs are kept, everything else is
skipped. Versions 2 and 3, little-endian, are supported. No number in the file is trusted: the
bounds below keep a hostile header under two seconds and 100 MB.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import os
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import attrs

from lmstrix.errors import InvalidModel

MAX_HEADER = 2**27
"""Bytes of a header. The largest real ones, with a vocabulary of 262,000 pieces, have 20 MB."""
MAX_KEYS = 2**16
MAX_TENSORS = 2**16
"""Bounds on a header's counts. Real files have below 100 keys and some thousand tensors."""
MAX_NAME = 2**16 - 1
"""Bytes of a key or of a tensor's name; the format's own bound for keys."""
MAX_DIMENSIONS = 8
MAX_NUMBER = 2**31
"""Largest plausible number in a model's shape; the engine stores them in 32 bits."""
MAX_STRINGS = 2**22
"""Strings in all arrays of one header. Vocabularies and their merges have fewer than a million."""
MAX_TEXT = 2**22
"""Bytes of all strings that are kept. The longest in real files are chat templates of about
100 kB."""
MAX_KEPT = 4096
"""Numbers of all arrays that are kept: one for each layer."""
_KEPT = frozenset(
    {
        "general.alignment",
        "general.architecture",
        "general.file_type",
        "general.size_label",
        "general.type",
        "split.count",
        "tokenizer.chat_template",
        "tokenizer.ggml.tokens",
    }
)
_KEPT_OF_ARCHITECTURE = frozenset(
    {
        "attention.causal",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.key_length_mla",
        "attention.value_length",
        "block_count",
        "context_length",
        "embedding_length",
        "full_attention_interval",
        "nextn_predict_layers",
        "pooling_type",
    }
)
"""Keys that are kept, and those that follow the architecture's name; all others are skipped."""


@attrs.frozen(kw_only=True)
class GgufHeader:
    """A valid header. A value that is missing or nonsense in the file is None or empty."""

    architecture: str
    file_bytes: int
    tensor_count: int
    parameters: int
    """Number of weights in all tensors of this file."""
    vocabulary_size: int = 0
    kind: str = "model"
    """``general.type``: model, adapter, mmproj, imatrix…"""
    size_label: str = ""
    quantization: str = ""
    context_length: int | None = None
    block_count: int | None = None
    embedding_length: int | None = None
    head_count: int | tuple[int, ...] | None = None
    head_count_kv: int | tuple[int, ...] | None = None
    """One number for all layers, or one for each; zero in layers without attention."""
    attention_interval: int | None = None
    """Every so many layers one has a KV cache; the others are recurrent."""
    predicting_layers: int = 0
    """The last layers, which predict several tokens and have no KV cache."""
    key_length: int | None = None
    value_length: int | None = None
    keys_only: bool = False
    """Multi-head latent attention: the cache holds keys and no values."""
    pooling_type: int | None = None
    causal: bool = True
    has_chat_template: bool = False
    split_count: int = 1


class _Metadata:
    """Typed look-ups in the header's keys; a value of the wrong type counts as missing."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = values
        self.architecture = self.text("general.architecture")

    def text(self, key: str) -> str:
        value = self._values.get(key)
        return value if isinstance(value, str) else ""

    def has(self, key: str) -> bool:
        return f"{self.architecture}.{key}" in self._values

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._values.get(f"{self.architecture}.{key}")
        return value if isinstance(value, bool) else default

    def number(self, key: str, least: int = 1) -> int | None:
        """A whole number from `least` to `MAX_NUMBER` under the architecture's own key."""
        return _whole(self._values.get(f"{self.architecture}.{key}"), least)

    def general(self, key: str, least: int = 1) -> int | None:
        """The same for a key without the architecture."""
        return _whole(self._values.get(key), least)

    def per_layer(self, key: str) -> int | tuple[int, ...] | None:
        value = self._values.get(f"{self.architecture}.{key}")
        if not isinstance(value, Array):
            return _whole(value, 0)
        numbers = [_whole(item, 0) for item in value.items or ()]
        whole = tuple(number for number in numbers if number is not None)
        return whole if whole and len(whole) == value.length else None

    def length(self, key: str) -> int:
        value = self._values.get(key)
        return value.length if isinstance(value, Array) else 0


def _whole(value: object, least: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if least <= value <= MAX_NUMBER else None


def read_header(path: Path) -> GgufHeader:
    """Read the header of the file at `path`, and check that all its tensors are there.

    Raises:
        InvalidModel: not a regular file, not GGUF, truncated, or with absurd numbers.
        OSError: the file cannot be opened or read.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise InvalidModel("not a regular file")
        return _read(file, status.st_size)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open without blocking on a named pipe; Windows has no such flag."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read(file: BinaryIO, size: int) -> GgufHeader:
    cursor = Cursor(file, size)
    tensor_count, key_count = _start(cursor, size)
    values: dict[str, Value] = {}
    for _ in range(key_count):
        key = cursor.text(MAX_NAME)
        if key in _KEPT or key.partition(".")[2] in _KEPT_OF_ARCHITECTURE:
            values[key] = cursor.value(cursor.u32())
        else:
            cursor.skip_value(cursor.u32())
    parameters, tensor_bytes = _tensors(cursor, tensor_count)
    alignment = values.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_NUMBER:
        raise InvalidModel("the GGUF header has no usable alignment")
    needed = -(-cursor.position // alignment) * alignment + tensor_bytes if tensor_count else 0
    if needed > size:
        raise InvalidModel(
            f"the file is truncated: its tensors need {needed:,} bytes and it has {size:,}",
            hint="It was probably not downloaded completely: get it again.",
        )
    return _header(_Metadata(values), size, tensor_count, parameters)


def _start(cursor: Cursor, size: int) -> tuple[int, int]:
    """Magic number, version and counts: (tensors, keys)."""
    if size < 4 or cursor.u32() != int.from_bytes(b"GGUF", "little"):
        raise InvalidModel("not a GGUF file")
    version = cursor.u32()
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
        what = "is big-endian" if swapped else f"has version {version}"
        raise InvalidModel(
            f"the GGUF file {what}; only versions 2 and 3, little-endian, are supported"
        )
    tensors, keys = cursor.u64(), cursor.u64()
    if tensors > MAX_TENSORS or keys > MAX_KEYS:
        raise InvalidModel(f"the GGUF header claims {tensors} tensors and {keys} keys")
    return tensors, keys


def _tensors(cursor: Cursor, count: int) -> tuple[int, int]:
    """Number of weights, and bytes from the start of the data to the end of the last tensor."""
    weights = end = 0
    for _ in range(count):
        cursor.skip_text(MAX_NAME)
        dimensions = cursor.u32()
        if dimensions > MAX_DIMENSIONS:
            raise InvalidModel(f"a tensor claims {dimensions} dimensions")
        elements = math.prod(cursor.u64() for _ in range(dimensions))
        # A type that is not in our table counts as empty: only its start is checked.
        block, block_bytes = _BLOCKS.get(cursor.u32(), (1, 0))
        weights += elements
        end = max(end, cursor.u64() + -(-elements // block) * block_bytes)
    return weights, end


def _header(data: _Metadata, size: int, tensors: int, parameters: int) -> GgufHeader:
    if not data.architecture:
        raise InvalidModel("the GGUF header does not name an architecture")
    file_type = data.general("general.file_type", 0)
    return GgufHeader(
        architecture=data.architecture,
        file_bytes=size,
        tensor_count=tensors,
        parameters=parameters,
        vocabulary_size=data.length("tokenizer.ggml.tokens"),
        kind=data.text("general.type") or "model",
        size_label=data.text("general.size_label"),
        quantization="" if file_type is None else _FILE_TYPES.get(file_type, ""),
        context_length=data.number("context_length"),
        block_count=data.number("block_count"),
        embedding_length=data.number("embedding_length"),
        head_count=data.per_layer("attention.head_count"),
        head_count_kv=data.per_layer("attention.head_count_kv"),
        key_length=data.number("attention.key_length"),
        value_length=data.number("attention.value_length"),
        keys_only=data.has("attention.key_length_mla"),
        attention_interval=data.number("full_attention_interval"),
        predicting_layers=data.number("nextn_predict_layers", 0) or 0,
        pooling_type=data.number("pooling_type", 0),
        causal=data.flag("attention.causal", default=True),
        has_chat_template=bool(data.text("tokenizer.chat_template")),
        split_count=data.general("split.count") or 1,
    )


# Bytes ------------------------------------------------------------------------------------------

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


def _form(kind: int) -> struct.Struct:
    """The form of a number or a flag; raises `InvalidModel`."""
    try:
        return _SCALARS[kind]
    except KeyError:
        raise InvalidModel(f"the GGUF header holds a value of unknown type {kind}") from None


class Array:
    """An array: its length, and its elements if they are few numbers."""

    __slots__ = ("items", "length")

    def __init__(self, length: int, items: tuple[int | float | bool, ...] | None) -> None:
        self.length = length
        self.items = items


Value = int | float | bool | str | Array


class Cursor:
    """Reads forward through an open file of known size, in chunks.

    Every method raises `InvalidModel` if the file ends too early or a bound is exceeded.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._buffer = b""
        self._start = 0
        """Offset in the file of the buffer's first byte."""
        self._at = 0
        """Position within the buffer; may lie beyond its end after a skip."""
        self._strings_left = MAX_STRINGS
        self._text_left = MAX_TEXT
        self._kept_left = MAX_KEPT

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
        """A string; bytes that are not UTF-8 are replaced, because tokens need not be."""
        length = self._length(min(limit, self._text_left))
        self._text_left -= length
        return self._take(length).decode("utf-8", errors="replace")

    def skip_text(self, limit: int = MAX_HEADER) -> None:
        """Skip a string."""
        self._skip(self._length(limit))

    def value(self, kind: int) -> Value:
        """A value of the GGUF type number `kind`."""
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            form = _form(kind)
            return form.unpack(self._take(form.size))[0]
        kind, length = self.u32(), self.u64()
        if kind in (STRING, ARRAY) or length > self._kept_left:
            self._skip_elements(kind, length)
            return Array(length, None)
        self._kept_left -= length
        form = _form(kind)
        data = self._take(length * form.size)
        return Array(length, tuple(number for (number,) in form.iter_unpack(data)))

    def skip_value(self, kind: int) -> None:
        """Skip a value of the GGUF type number `kind`."""
        if kind == STRING:
            self.skip_text()
        elif kind == ARRAY:
            self._skip_elements(self.u32(), self.u64())
        else:
            self._skip(_form(kind).size)

    def _length(self, limit: int) -> int:
        length = self.u64()
        if length > limit:
            raise InvalidModel(f"a string in the GGUF header claims {length} bytes")
        return length

    def _skip_elements(self, kind: int, length: int) -> None:
        if kind == ARRAY:  # the format allows it, and the engine reads none
            raise InvalidModel("the GGUF header holds an array of arrays")
        if kind != STRING:
            self._skip(length * _form(kind).size)
            return
        if length > self._strings_left:
            raise InvalidModel(f"an array in the GGUF header claims {length} strings")
        self._strings_left -= length
        self._skip_strings(length)

    def _skip_strings(self, count: int) -> None:
        """Skip `count` strings: a vocabulary has no index, so each length is read."""
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
        if self.position + length > MAX_HEADER:
            raise InvalidModel(f"the GGUF header has more than {MAX_HEADER:,} bytes")

    def _need(self, length: int) -> None:
        """Make sure that the next `length` bytes are in the buffer."""
        if self._at + length <= len(self._buffer):
            return
        self._check(length)
        self._start, self._at = self.position, 0
        self._file.seek(self._start)
        self._buffer = self._file.read(max(_CHUNK, length))
        if len(self._buffer) < length:  # the file shrank while it was read
            self._size = self._start + len(self._buffer)
            self._check(length)


# Type numbers: `ggml_type` in ggml.h and `llama_ftype` in llama.h of llama.cpp -------------------

_BLOCKS: Mapping[int, tuple[int, int]] = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    9: (32, 36),  # Q8_1
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    15: (256, 292),  # Q8_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
    40: (64, 36),  # NVFP4
}
"""Tensor type: (weights in a block, bytes of a block)."""

_NAMES = (
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M "
    "Q6_K IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M "
    "BF16 - - - TQ1_0 TQ2_0 MXFP4 NVFP4"
)
_FILE_TYPES: Mapping[int, str] = {
    number: name for number, name in enumerate(_NAMES.split()) if name != "-"
}
"""File type: the quantization that the file is named after."""
