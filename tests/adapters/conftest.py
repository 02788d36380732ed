"""Model files for the adapter tests: the demo model, changed copies of it, and tiny ones."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from lmstrix.adapters.llamacpp import LlamaCppAdapter


@pytest.fixture
def llamacpp(demo_model: Path) -> LlamaCppAdapter:
    """One thread: where other work shares the cores, two wait for each other at every step."""
    return LlamaCppAdapter([demo_model.parent], threads=1)


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: object) -> bytes:
    """Type number and bytes: bool, str, float, an int as u32 (u64 if large), a list."""
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, int):
        if value < 0:
            return struct.pack("<Ii", 5, value)
        return struct.pack("<II", 4, value) if value < 2**32 else struct.pack("<IQ", 10, value)
    assert isinstance(value, (list, tuple))
    items = [_value(item) for item in value]  # type: ignore[reportUnknownVariableType]
    kind = items[0][:4] if items else struct.pack("<I", 4)
    count = struct.pack("<Q", len(items))
    return struct.pack("<I", 9) + kind + count + b"".join(item[4:] for item in items)


def _make_gguf(
    values: Mapping[str, object],
    tensors: Sequence[tuple[int, ...]] = ((32, 4),),
    *,
    version: int = 3,
    data: bool = True,
) -> bytes:
    """A GGUF file with f32 tensors of the given shapes, all zeros."""
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values))
    header += b"".join(_text(key) + _value(value) for key, value in values.items())
    offset = 0
    for number, shape in enumerate(tensors):
        header += _text(f"t{number}") + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", size) for size in shape)
        header += struct.pack("<IQ", 0, offset)
        elements = 1
        for size in shape:
            elements *= size
        offset += -(-elements * 4 // 32) * 32
    header += b"\0" * (-len(header) % 32)
    return header + (b"\0" * offset if data else b"")


@pytest.fixture(scope="session")
def make_gguf() -> Callable[..., bytes]:
    return _make_gguf


def _changed(name: str, change: Callable[[bytearray], None]) -> object:
    """A fixture: a copy of the demo model that was changed."""

    @pytest.fixture(scope="session", name=f"{name}_model")
    def copy(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        data = bytearray(demo_model.read_bytes())
        change(data)
        path = tmp_path_factory.mktemp(name) / f"{name}.gguf"
        path.write_bytes(data)
        yield path
        path.unlink()

    return copy


def _declare(data: bytearray) -> None:
    """A context of 131072."""
    key = b"llama.context_length"
    at = data.index(key) + len(key) + 4
    data[at : at + 4] = struct.pack("<I", 131072)


def _think(data: bytearray) -> None:
    """A chat template that opens a thought."""
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    key = b"tokenizer.chat_template"
    at = data.index(key) + len(key) + 4
    (length,) = struct.unpack_from("<Q", data, at)
    padded = template + "{#" + "#" * (length - len(template) - 4) + "#}"
    assert len(padded) == length
    data[at + 8 : at + 8 + length] = padded.encode()


def _forget(data: bytearray) -> None:
    """No chat template."""
    at = data.index(b"tokenizer.chat_template")
    data[at : at + 23] = b"tokenizer.chat_xxxxxxxx"


long_model = _changed("long", _declare)
thinking_model = _changed("thinking", _think)
plain_model = _changed("plain", _forget)
