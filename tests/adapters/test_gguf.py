from __future__ import annotations

import os
import struct
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from lmstrix.adapters.llamacpp.gguf import GgufHeader, read_header
from lmstrix.errors import InvalidModel

Make = Callable[..., bytes]

SMALL = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.size_label": "1K",
    "general.file_type": 15,
    "llama.context_length": 4096,
    "llama.block_count": 2,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": [2, 0],
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.tokens": ["a", "b", "ç", ""],
    "tokenizer.ggml.scores": [0.5, 1.5],
    "tokenizer.ggml.add_bos_token": True,
    "tokenizer.chat_template": "{{ x }}",
}


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], GgufHeader]:
    def read_bytes(data: bytes) -> GgufHeader:
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return read_header(path)

    return read_bytes


Read = Callable[[bytes], GgufHeader]


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_is_read(make_gguf: Make, read: Read, version: int) -> None:
    data = make_gguf(SMALL, version=version)
    assert read(data) == GgufHeader(
        architecture="llama",
        file_bytes=len(data),
        tensor_count=1,
        parameters=128,
        vocabulary_size=4,
        size_label="1K",
        quantization="Q4_K_M",
        context_length=4096,
        block_count=2,
        embedding_length=64,
        head_count=4,
        head_count_kv=(2, 0),
        has_chat_template=True,
    )


@pytest.mark.parametrize(
    "value", [0, -1, 2**31 + 1, 2**40, "8192", 8192.0, True, [8192], []], ids=str
)
def test_a_nonsensical_context_is_none(make_gguf: Make, read: Read, value: object) -> None:
    assert read(make_gguf({**SMALL, "llama.context_length": value})).context_length is None


@pytest.mark.parametrize("value", [[2, -1], ["a"], [1.5], [], "x", [True]], ids=str)
def test_nonsensical_heads_are_none(make_gguf: Make, read: Read, value: object) -> None:
    header = read(make_gguf({**SMALL, "llama.attention.head_count_kv": value}))
    assert header.head_count_kv is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a GGUF"),
        (b"GGU", "not a GGUF"),
        (b"PK\x03\x04" + bytes(100), "not a GGUF"),
        (b"GGUF", "ends within"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(100), "version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(100), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "claims"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "not name an architecture"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "claims"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99), "unknown type 99"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 2**60), "strings"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 77, 1), "unknown type 77"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQQ", 3, 0, 1, 1, b"k", 9, 8, 1, 2**63), "ends within"),
    ],
)
def test_broken_headers_say_what_is_wrong(read: Read, data: bytes, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        read(data)


def hostile(*values: tuple[str, int, bytes]) -> bytes:
    """A header of keys, each with its type number and its bytes."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, len(values))
    return head + b"".join(
        struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", kind) + data
        for key, kind, data in values
    )


NUMBERS = struct.pack("<IQ", 6, 4096) + b"\1\2\3\4" * 4096
HOSTILE = {
    "empty arrays": [("k", 9, struct.pack("<IQ", 9, 2**18) + struct.pack("<IQ", 4, 0) * 2**18)],
    "deep arrays": [("k", 9, struct.pack("<IQ", 9, 1) * 1000)],
    "numbers": [(f"k{n}", 9, NUMBERS) for n in range(1024)],
    "numbers of layers": [(f"k{n}.attention.head_count", 9, NUMBERS) for n in range(1024)],
    "text": [("general.name", 8, struct.pack("<Q", 2**20) + b"\xff" * 2**20)] * 16,
    "names": [("n" * 65_000 + str(n), 0, b"x") for n in range(256)],
}


@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_costs_little(
    tmp_path: Path, values: list[tuple[str, int, bytes]]
) -> None:
    """Function calls stand for the time, which no test should measure."""
    path = tmp_path / "hostile.gguf"
    path.write_bytes(hostile(*values))
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event.endswith("call")

    tracemalloc.start()
    sys.setprofile(count)
    try:
        with pytest.raises(InvalidModel):
            read_header(path)
    finally:
        sys.setprofile(None)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert calls < 100_000
    assert peak_bytes < 8 * 2**20


def test_every_truncation_is_noticed(make_gguf: Make, read: Read) -> None:
    data = make_gguf(SMALL)
    for length in range(len(data)):
        with pytest.raises(InvalidModel):
            read(data[:length])


def test_truncated_tensors_are_told_apart_from_headers(make_gguf: Make, read: Read) -> None:
    with pytest.raises(InvalidModel, match=r"truncated: its tensors need [\d,]+ bytes"):
        read(make_gguf(SMALL, data=False))


def test_strings_longer_than_a_chunk_are_walked_over(make_gguf: Make, read: Read) -> None:
    pieces = ["x" * 700_000, "", "y" * 300_000, *["z" * 9] * 70_000]
    header = read(make_gguf({**SMALL, "tokenizer.ggml.tokens": pieces, "last": "here"}))
    assert header.vocabulary_size == 70_003


@pytest.mark.parametrize("alignment", [0, "x", 2**40])
def test_an_absurd_alignment_is_refused(make_gguf: Make, read: Read, alignment: object) -> None:
    with pytest.raises(InvalidModel, match="alignment"):
        read(make_gguf({**SMALL, "general.alignment": alignment}))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    with pytest.raises(InvalidModel, match="regular file"):
        read_header(pipe)
