"""What one model file is, its further parts included, and whether it can answer questions."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from lmstrix.adapters.llamacpp.gguf import GgufHeader, read_header
from lmstrix.errors import InvalidModel, ModelError, ModelNotFound, UnsupportedModel
from lmstrix.models import ModelInfo

__all__ = ["described_model", "is_first_part", "sound_model"]

EMBEDDING_ARCHITECTURES = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "llama-embed",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
        "t5encoder",
    }
)
"""Encoders among the architectures that llama.cpp knows."""

EDGE_BYTES = 2**20
"""Bytes at either end of a file that its digest covers, beside its size."""
_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")


def is_first_part(file_name: str) -> bool:
    """Whether a file is a whole model or the first of its parts, by its name."""
    part = _PART.match(file_name[: -len(".gguf")])
    return part is None or int(part["number"]) == 1


def described_model(key: str, path: Path) -> ModelInfo:
    """The model in the file at `path`; one that is broken has the type ``invalid``."""
    try:
        return _info(key, path, *_whole_model(path))
    except ModelError:  # broken, or gone since the folder was read
        return ModelInfo(key=key, path=str(path), format="gguf", type="invalid")


def sound_model(key: str, path: Path) -> tuple[ModelInfo, GgufHeader]:
    """The model in the file at `path`, which can answer questions, under the name `key`.

    Raises `ModelNotFound`, `InvalidModel` or `UnsupportedModel`.
    """
    header, size = _whole_model(path)
    info = _info(key, path, header, size)
    if info.type != "llm":
        kind = "an embedding model" if info.type == "embedding" else f"of type {info.type!r}"
        raise UnsupportedModel(f"{key!r} is {kind} ({info.architecture}): it cannot answer")
    return info, header


def _whole_model(path: Path) -> tuple[GgufHeader, int]:
    """Header of the (first) file, and the size of all files together, each one checked.

    Raises:
        ModelNotFound: there is no such file.
        InvalidModel: a file is broken, a part is missing, or one cannot be read.
    """
    first = _checked(path)
    total, tensors = first.file_bytes, first.tensor_count
    for part in _other_parts(path, first):
        header = _checked(part)
        total += header.file_bytes
        tensors += header.tensor_count
    if tensors == 0 and _type(first) == "llm":
        raise InvalidModel(f"{path.name} holds no tensors")
    return first, total


def _checked(path: Path) -> GgufHeader:
    try:
        return read_header(path)
    except InvalidModel as error:
        raise InvalidModel(f"{path.name}: {error}", hint=error.hint) from error
    except FileNotFoundError as error:
        raise ModelNotFound(f"there is no file {path}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidModel(f"{path.name} cannot be read: {reason}") from error


def _other_parts(path: Path, first: GgufHeader) -> Iterator[Path]:
    name = _PART.match(path.name[: -len(".gguf")])
    if name is None:
        if first.split_count > 1:
            raise InvalidModel(f"{path.name} is one of {first.split_count} parts, and renamed")
        return
    if int(name["number"]) != 1:
        raise InvalidModel(f"{path.name} is not the first part", hint="Name the first part.")
    for number in range(2, int(name["count"]) + 1):
        part = path.with_name(f"{name['stem']}-{number:05}-of-{name['count']}{path.suffix}")
        if not part.exists():
            raise InvalidModel(f"part {number} of {int(name['count'])} is missing: {part.name}")
        yield part


def _type(header: GgufHeader) -> str:
    if header.kind != "model" or header.architecture == "clip":
        return header.kind if header.kind != "model" else "mmproj"
    pooled = header.pooling_type is not None and header.pooling_type > 0
    if header.architecture in EMBEDDING_ARCHITECTURES or pooled or not header.causal:
        return "embedding"
    return "llm"


def _info(key: str, path: Path, header: GgufHeader, size: int) -> ModelInfo:
    return ModelInfo(
        key=key,
        path=str(path),
        format="gguf",
        architecture=header.architecture,
        size_bytes=size,
        declared_context=header.context_length,
        parameters=header.size_label or _short_count(header.parameters),
        quantization=header.quantization,
        type=_type(header),
        digest=_digest(path),
    )


def _short_count(weights: int) -> str:
    """1.2B, 135M, or an empty string for less than a million."""
    if weights >= 10**9:
        return f"{weights / 10**9:.1f}B"
    return f"{weights / 10**6:.0f}M" if weights >= 10**6 else ""


def _digest(path: Path) -> str:
    """SHA-256, cut to 16 bytes, over the size and both ends: cheap, and any new download or
    conversion differs in its header or its last tensor.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = hashlib.sha256(str(size).encode() + b"\0" + file.read(EDGE_BYTES))
            file.seek(max(0, size - EDGE_BYTES))
            content.update(file.read(EDGE_BYTES))
    except OSError:
        return ""
    return content.hexdigest()[:32]
