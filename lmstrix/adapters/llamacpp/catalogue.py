"""GGUF models in folders: finds them by name, checks their files and describes them.

All of it blocks: call it from a worker thread. A key is a file's path relative to its folder, with
forward slashes and without ``.gguf``. A name from a user is compared with the keys found and never
joined to a folder; only a name that ends in ``.gguf`` may also be the path of a file.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import platformdirs

from lmstrix.adapters.llamacpp.gguf import GgufHeader, read_header
from lmstrix.adapters.lmstudio_home import lmstudio_home
from lmstrix.errors import (
    EngineUnavailable,
    InvalidModel,
    ModelError,
    ModelNotFound,
    SettingsError,
    UnsupportedModel,
)
from lmstrix.models import ModelInfo
from lmstrix.names import find_key, suggestion

MAX_DEPTH = 8
"""Folders below a model folder; LM Studio uses two (publisher and repository)."""
MAX_FILES = 20_000
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
"""Bytes at each end of a file that its digest covers, besides its size."""
_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})$")


def default_folders() -> tuple[Path, ...]:
    """LM Studio's models folder, if its home is known, and our own in the user's cache."""
    own = platformdirs.user_cache_path("lmstrix") / "models"
    try:
        return (lmstudio_home() / "models", own)
    except SettingsError:
        return (own,)


def list_models(folders: Sequence[Path]) -> list[ModelInfo]:
    """Every model in `folders`, sorted by key; a broken file has the type ``invalid``.

    Raises `EngineUnavailable` if a folder exists and cannot be read.
    """
    return [described_model(key, path) for key, path in files_in(folders).items()]


def files_in(folders: Sequence[Path]) -> dict[str, Path]:
    """Every model's file by its key, without opening it. Raises like `list_models`."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in _model_files(folder):
            key = path.relative_to(folder).as_posix()[: -len(".gguf")]
            found.setdefault(key, path)  # the first folder wins
    return dict(sorted(found.items()))


def find_model(folders: Sequence[Path], name: str) -> ModelInfo:
    """The model that `name` means: a key, an unambiguous last part of one, or a file.

    Raises:
        ModelNotFound: no model has that name, or more than one.
        InvalidModel: the file is broken.
        UnsupportedModel: an embedding model, or another model that cannot answer questions.
    """
    path = _as_file(name)
    if path is not None:
        return sound_model(name, path)[0]
    found = files_in(folders)
    key = find_key(re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE), found)
    if key is None:
        raise _not_found(name, found)
    return sound_model(key, found[key])[0]


def _not_found(name: str, keys: Collection[str]) -> ModelNotFound:
    if name.lower().endswith(".gguf"):
        return ModelNotFound(f"file {name[:200]!r} not found", hint="Check the path.")
    if near := suggestion(name, keys):
        hint = near
    elif keys:
        hint = "`lmstrix --adapter llamacpp scan` lists the models."
    else:
        hint = "No model was found. Give the path of a .gguf file."
    return ModelNotFound(f"model {name[:200]!r} not found", hint=hint)


def _as_file(name: str) -> Path | None:
    """The file that `name` is the path of, or None."""
    if not name.lower().endswith(".gguf"):
        return None
    try:
        path = Path(name).expanduser()
        return path.absolute() if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL inside, no such user
        return None


def _model_files(folder: Path) -> Iterator[Path]:
    """Model files below `folder`; unreadable subfolders are skipped, loops are cut."""
    seen: set[tuple[int, int]] = set()
    count = 0
    for parent, folders, files in os.walk(folder, onerror=_complain_of(folder), followlinks=True):
        here = Path(parent)
        folders.sort()
        if len(here.relative_to(folder).parts) >= MAX_DEPTH or not _is_new(here, seen):
            folders.clear()
            continue
        for file in sorted(files):
            if _is_model_name(file):
                count += 1
                if count > MAX_FILES:
                    return
                yield here / file


def _complain_of(folder: Path) -> Callable[[OSError], None]:
    """An unreadable model folder is an error; a missing one holds no models."""

    def complain(error: OSError) -> None:
        if error.filename == str(folder) and not isinstance(error, FileNotFoundError):
            raise EngineUnavailable(
                f"the model folder {folder} cannot be read: {error.strerror}",
                hint="Check its permissions, or name another folder.",
            ) from error

    return complain


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = folder.stat()
    except OSError:
        return False
    identity = (status.st_dev, status.st_ino)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _is_model_name(file: str) -> bool:
    """Whether a file is a whole model or the first of its parts, by its name."""
    if not file.lower().endswith(".gguf") or file.lower().startswith("mmproj"):
        return False
    part = _PART.match(file[: -len(".gguf")])
    return part is None or int(part["number"]) == 1


# Files ------------------------------------------------------------------------------------------


def described_model(key: str, path: Path) -> ModelInfo:
    """The model in the file at `path`; a broken one has the type ``invalid``."""
    try:
        return _info(key, path, *_whole_model(path))
    except ModelError:  # broken, or gone since the folder was read
        return ModelInfo(key=key, path=str(path), format="gguf", type="invalid")


def sound_model(key: str, path: Path) -> tuple[ModelInfo, GgufHeader]:
    """The model in the file at `path`, under the name `key`, if it can answer questions.

    Raises `ModelNotFound`, `InvalidModel` or `UnsupportedModel`.
    """
    header, size = _whole_model(path)
    info = _info(key, path, header, size)
    if info.type != "llm":
        kind = "an embedding model" if info.type == "embedding" else f"of type {info.type!r}"
        raise UnsupportedModel(
            f"{key!r} is {kind} ({info.architecture}): it cannot answer questions"
        )
    return info, header


def _whole_model(path: Path) -> tuple[GgufHeader, int]:
    """Header of the (first) file, and the size of all files together. Checks each file.

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
        raise ModelNotFound(f"file {path} not found") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InvalidModel(f"{path.name} cannot be read: {reason}") from error


def _other_parts(path: Path, first: GgufHeader) -> Iterator[Path]:
    name = _PART.match(path.name[: -len(".gguf")])
    if name is None:
        if first.split_count > 1:
            raise InvalidModel(f"{path.name} is one of {first.split_count} parts, and was renamed")
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
    """SHA-256, cut to 16 bytes, of the size and both ends: cheap, and any new download or
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
