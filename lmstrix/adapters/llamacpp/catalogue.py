"""Finds GGUF models in folders, and says what each one is."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import platformdirs

from lmstrix.adapters.llamacpp.model_file import described_model, is_first_part, sound_model
from lmstrix.errors import EngineUnavailable, ModelNotFound
from lmstrix.models import ModelInfo

__all__ = ["Catalogue", "default_folders"]

MAX_DEPTH = 8
"""Folders below a model folder; LM Studio uses two (publisher and repository)."""
MAX_FILES = 20_000


def default_folders() -> tuple[Path, ...]:
    """LM Studio's models folder, and our own below the user's cache."""
    home = Path.home()
    try:
        pointed = (home / ".lmstudio-home-pointer").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        pointed = ""
    legacy = home / ".cache" / "lm-studio"
    if pointed and "\0" not in pointed and Path(pointed).is_absolute():
        studio = Path(pointed)
    else:
        studio = legacy if legacy.is_dir() else home / ".lmstudio"
    return (studio / "models", platformdirs.user_cache_path("lmstrix") / "models")


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
        if wanted in found:
            return wanted, found[wanted]
        same = sorted(key for key in found if key.rpartition("/")[2] == wanted)
        if len(same) == 1:
            return same[0], found[same[0]]
        if same:
            raise ModelNotFound(
                f"{name!r} could be any of {len(same)} models: {', '.join(same[:5])}",
                hint="Give the whole key.",
            )
        raise self._not_found(name, wanted, found)

    def _not_found(self, name: str, wanted: str, found: Mapping[str, Path]) -> ModelNotFound:
        lower = {key.lower(): key for key in found}
        lower |= {key.rpartition("/")[2].lower(): key for key in found}
        near = difflib.get_close_matches(wanted[:200].lower(), lower, n=3, cutoff=0.5)
        if name.lower().endswith(".gguf"):
            hint = "There is no file of that name either: check the path."
        elif near:
            names = ", ".join(dict.fromkeys(lower[match] for match in near))
            hint = f"Did you mean {names}?"
        elif found:
            scan = "`lmstrix --adapter llamacpp scan`"
            hint = f"{scan} shows the keys of all that there are ({len(found)})."
        else:
            hint = "No model was found. Give the path of a .gguf file."
        return ModelNotFound(f"there is no model {name!r}", hint=hint)

    def _found(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for folder in self.folders:
            for path in _model_files(folder):
                key = path.relative_to(folder).as_posix()[: -len(".gguf")]
                found.setdefault(key, path)  # the first folder wins
        return found


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
