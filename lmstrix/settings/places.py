"""Which file holds a model's settings: names of models are untrusted, paths are checked.

LM Studio names the file after the model's *indexed identifier*, below
``<home>/.internal/user-concrete-model-default-config``:

===============================  ============================================================
a GGUF file                      ``publisher/repository/file.gguf.json``
a folder of MLX weights          ``publisher/repository.json``
a virtual model (`model.yaml`)   ``publisher/name.json``
one variant of a virtual model   ``publisher/name@publisher/repository/file.gguf.json``
===============================  ============================================================

The listing's `path` is that identifier. Variants come without a path, as does a model of which
only the key is known; LM Studio's own index (``.internal/model-index-cache.json``) knows theirs.
All of this is undocumented by LM Studio.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from lmstrix.models import ModelInfo
from lmstrix.settings.home import INTERNAL
from lmstrix.settings.problems import SettingsError

__all__ = ["CONFIG_FOLDER", "checked_parts", "lmstudio_identifier", "settings_path"]

CONFIG_FOLDER = "user-concrete-model-default-config"
_INDEX = "model-index-cache.json"
_INDEX_BYTES = 64 * 1024**2
_MOST_PARTS = 8
_LONGEST_PART = 180
"""Bytes; leaves room for ``.json`` and a backup's ending within the usual 255."""
_FORBIDDEN = frozenset('\\:*?"<>|')
"""Separators, drives and wildcards of Windows; no model of LM Studio has them in its path."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Devices of Windows, whatever follows the first dot."""
_ELSEWHERE = re.compile(r" \(on .+\)\Z", re.DOTALL)
"""What LMStrix writes behind the key of a model that is on another device."""


def lmstudio_identifier(model: ModelInfo, home: Path) -> str:
    """LM Studio's indexed identifier of `model`, not yet checked: see `settings_path`.

    A GGUF file that another engine measured is LM Studio's if it lies in its models folder.
    Raises `SettingsError` where LM Studio keeps no settings for the model here.
    """
    if _ELSEWHERE.search(model.key):
        raise SettingsError(
            f"{model.key!r} is on another device; its settings are there",
            hint="Run this command there.",
        )
    if model.path and Path(model.path).is_absolute():
        return _below_models(Path(model.path), home)
    if model.path:
        return model.path
    return _indexed(model.key, home)


def settings_path(home: Path, identifier: str) -> Path:
    """The settings file of the model `identifier`, with links followed, inside `home`.

    Raises `SettingsError` for an identifier that is no plain relative path, and where a link
    leads out of the folder of settings.
    """
    parts = checked_parts(identifier)
    folder = home / INTERNAL / CONFIG_FOLDER
    try:
        inside = folder.resolve()
        path = folder.joinpath(*parts[:-1], f"{parts[-1]}.json").resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"the path of the settings of {identifier!r} cannot be followed: {error}",
            hint="Look for links in a circle below LM Studio's home.",
        ) from error
    if not (inside.is_relative_to(home.resolve()) and path.is_relative_to(inside)):
        raise SettingsError(
            f"a link leads the settings of {identifier!r} out of LM Studio's home, to {path}",
            hint="Replace the link with the file itself, or set the context in LM Studio.",
        )
    return path


def checked_parts(identifier: str) -> tuple[str, ...]:
    """The folders and the name in `identifier`; raises `SettingsError` unless all are plain."""
    parts = tuple(identifier.split("/"))
    problem = None
    if len(parts) > _MOST_PARTS:
        problem = "it has too many parts"
    for part in parts:
        problem = problem or _problem_of(part)
    if problem is not None:
        raise SettingsError(
            f"{identifier[:200]!r} is no safe name for a settings file: {problem}",
            hint="Set the context in LM Studio itself: My Models, the gear beside the model.",
        )
    return parts


def _problem_of(part: str) -> str | None:
    if not part or part.startswith(".") or part != part.strip() or part.endswith("."):
        return "a part of it is empty, or begins or ends with a dot or a space"
    if any(unicodedata.category(char).startswith("C") for char in part):
        return "it holds control characters"
    if _FORBIDDEN & set(part):
        return "it holds a character that is not allowed in file names everywhere"
    if _RESERVED.fullmatch(part):
        return "a part of it is the name of a device"
    return "a part of it is too long" if len(part.encode()) > _LONGEST_PART else None


def _below_models(file: Path, home: Path) -> str:
    for folder in _models_folders(home):
        for above in file.parents:
            if _is_same(above, folder):
                return file.relative_to(above).as_posix()
    raise SettingsError(
        f"{str(file)!r} is not in LM Studio's models folder, so LM Studio has no settings for it",
        hint="Use --for llama-server or --for ollama, or measure it with --adapter lmstudio.",
    )


def _models_folders(home: Path) -> Iterator[Path]:
    chosen = _read_object(home / "settings.json").get("downloadsFolder")
    if isinstance(chosen, str) and "\0" not in chosen and Path(chosen).is_absolute():
        yield Path(chosen)
    yield home / "models"


def _is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one folder, however they are reached."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _indexed(key: str, home: Path) -> str:
    """The identifier of the model `key`, as LM Studio's index has it.

    A virtual model is its own: its key is ``publisher/name``.
    """
    entries = _read_object(home / INTERNAL / _INDEX).get("models")
    listed = cast("list[object]", entries) if isinstance(entries, list) else []
    found = {
        str(entry.get("indexedModelIdentifier") or "")
        for entry in map(_as_object, listed)
        if entry.get("defaultIdentifier") == key
    }
    if len(found) == 1:
        return found.pop()
    if "@" in key:
        raise SettingsError(
            f"{key!r} is a variant, and LM Studio's index does not tell where its settings are",
            hint="Select the variant in LM Studio, and measure the model without the @ part.",
        )
    if "/" not in key:
        raise SettingsError(
            f"LM Studio's index does not tell where the settings of {key[:200]!r} are",
            hint="Measure it with --adapter lmstudio. --undo also takes the whole name, such as"
            " publisher/repository/file.gguf.",
        )
    return key


def _read_object(path: Path) -> Mapping[str, object]:
    """A JSON object that is only looked at: anything else reads as an empty one."""
    try:
        with path.open("rb") as file:
            return _as_object(json.loads(file.read(_INDEX_BYTES)))
    except (OSError, ValueError, RecursionError):
        return {}


def _as_object(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else {}
