"""Finds GGUF models in folders, and says what each one is."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import platformdirs

from lmstrix.adapters.llamacpp.model_file import described_model, is_first_part, sound_model
from lmstrix.adapters.lmstudio_home import lmstudio_home
from lmstrix.errors import EngineUnavailable, ModelNotFound, SettingsError
from lmstrix.models import ModelInfo
from lmstrix.names import find_key, suggestion

__all__ = ["Catalogue", "default_folders"]

MAX_DEPTH = 8
"""Folders below a model folder; LM Studio uses two (publisher and repository)."""
MAX_FILES = 20_000


def default_folders() -> tuple[Path, ...]:
    """LM Studio's models folder, if its home is known, and our own below the user's cache."""
    own = platformdirs.user_cache_path("lmstrix") / "models"
    try:
        return (lmstudio_home() / "models", own)
    except SettingsError:
        return (own,)


class Catalogue:
    """The models in some folders. Synchronous: call it from a worker thread.

    A key is a file's path relative to its folder, with forward slashes and without
    ``.gguf``. What a user types is compared with the keys that were found, and never joined
    to a folder; only a name ending in ``.gguf`` is also taken as the path of a file.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)

    def list_models(self) -> list[ModelInfo]:
        """Every model found, sorted by key; a broken file has the type ``invalid``.

        Raises `EngineUnavailable` where a folder is there and cannot be read.
        """
        return [described_model(key, path) for key, path in sorted(self._found().items())]

    def files(self) -> dict[str, Path]:
        """Every model's file by its key; none is opened. Raises like `list_models`."""
        return dict(sorted(self._found().items()))

    def find_model(self, name: str) -> ModelInfo:
        """The model that `name` means: a key, an unambiguous last part of one, or a file.

        Raises:
            ModelNotFound: nothing of that name, or more than one thing.
            InvalidModel: the file is broken.
            UnsupportedModel: an embedding model, or another thing that cannot answer.
        """
        key, path = self._resolve(name)
        return sound_model(key, path)[0]

    def _resolve(self, name: str) -> tuple[str, Path]:
        direct = _as_file(name)
        if direct is not None:
            return name, direct
        found = self._found()
        wanted = name.removesuffix(".gguf")
        key = find_key(wanted, found)
        if key is None:
            raise _not_found(name, found)
        return key, found[key]

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in self.folders:
            for path in _model_files(folder):
                key = path.relative_to(folder).as_posix()[: -len(".gguf")]
                found.setdefault(key, path)  # the first folder wins
        return found


def _not_found(name: str, keys: Collection[str]) -> ModelNotFound:
    if name.lower().endswith(".gguf"):
        hint = "There is no file of that name either: check the path."
    elif near := suggestion(name, keys):
        hint = near
    elif keys:
        hint = f"`lmstrix --adapter llamacpp scan` shows the keys of all {len(keys)} models."
    else:
        hint = "No model was found. Give the path of a .gguf file."
    return ModelNotFound(f"there is no model {name[:200]!r}", hint=hint)


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
    """Model files below `folder`; unreadable subfolders are passed over, loops are cut."""
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
    """An unreadable model folder is an error; one that is not there holds no models."""

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
    if not file.lower().endswith(".gguf") or file.lower().startswith("mmproj"):
        return False
    return is_first_part(file)
