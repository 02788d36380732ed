"""LM Studio's home folder, and in it the settings of each model. Outside of `lmstudio/`, so that
reading it imports no SDK.

LM Studio names the file after the model's *indexed identifier*, below
``<home>/.internal/user-concrete-model-default-config``:

===============================  ============================================================
a GGUF file                      ``publisher/repository/file.gguf.json``
a folder of MLX weights          ``publisher/repository.json``
a virtual model (`model.yaml`)   ``publisher/name.json``
one variant of a virtual model   ``publisher/name@publisher/repository/file.gguf.json``
===============================  ============================================================

The listing's `path` is that identifier. A variant has no path, nor has a model that is known only
by its key; LM Studio's index (``.internal/model-index-cache.json``) has their identifiers.
LM Studio does not document any of this.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from lmstrix.errors import SettingsError
from lmstrix.json_values import Json, as_list, as_object, as_text, read_object
from lmstrix.models import ModelInfo

INTERNAL = ".internal"
"""LM Studio's own folder in its home; LM Studio creates it at its first start."""
_POINTER = ".lmstudio-home-pointer"
_HINT = "Start LM Studio once, or name its folder with --home."

CONTEXT_KEY = "llm.load.contextLength"
CONFIG_FOLDER = "user-concrete-model-default-config"

_INDEX = "model-index-cache.json"
_INDEX_BYTES = 64 * 1024**2
SETTINGS_BYTES = 8 * 1024**2
"""A settings file has a few kilobytes, or a little more with a prompt template."""
_MOST_PARTS = 8
_LONGEST_PART = 180
"""Bytes; leaves room for ``.json`` and a backup's ending within the usual 255."""
_FORBIDDEN = frozenset('\\:*?"<>|')
"""Separators, drives and wildcards of Windows; no model of LM Studio has them in its path."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Names of Windows devices, whatever follows the first dot."""
_ELSEWHERE = re.compile(r" \(on .+\)\Z", re.DOTALL)
"""The ending that LMStrix adds to the key of a model on another device."""

IN_LM_STUDIO = "Set the context in LM Studio itself: My Models, the gear next to the model."
_LONGEST_SETTING = 200
"""Characters."""


def lmstudio_home() -> Path:
    """LM Studio's home, where its own tools look for it; the folder need not exist.

    They use the path in ``~/.lmstudio-home-pointer``, else ``~/.cache/lm-studio`` if it exists,
    else ``~/.lmstudio``. Raises `SettingsError` if the user has no home directory or the
    pointer does not name a path.
    """
    try:
        user_home = Path.home()
    except RuntimeError as error:
        raise SettingsError("your home directory is not known", hint=_HINT) from error
    pointer = user_home / _POINTER
    try:
        pointed = pointer.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        pointed = ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{pointer} cannot be read: {error}", hint=_HINT) from error
    if not pointed:
        legacy = user_home / ".cache" / "lm-studio"
        return legacy if legacy.is_dir() else user_home / ".lmstudio"
    if "\0" in pointed or not Path(pointed).is_absolute():
        raise SettingsError(
            f"{pointer} does not name an absolute path: {pointed[:200]!r}", hint=_HINT
        )
    return Path(pointed)


def existing_home(chosen: Path | None = None) -> Path:
    """`chosen`, or else `lmstudio_home`, with links resolved.

    Raises `SettingsError` if LM Studio never ran there.
    """
    home = lmstudio_home() if chosen is None else chosen
    try:
        found = home.expanduser().resolve(strict=True)
        ran = (found / INTERNAL).is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # missing, a NUL, a loop of links
        raise SettingsError(f"there is no LM Studio home at {home}", hint=_HINT) from error
    if not ran:
        raise SettingsError(f"{found} is not an LM Studio home: it has no {INTERNAL}", hint=_HINT)
    return found


def settings_identifier(model: ModelInfo, home: Path) -> str:
    """LM Studio's indexed identifier of `model`; `settings_path` checks it.

    A GGUF file that another engine measured is LM Studio's if it is in its models folder.
    Raises `SettingsError` if LM Studio keeps no settings for the model here.
    """
    if _ELSEWHERE.search(model.key):
        raise SettingsError(
            f"{model.key!r} is on another device; its settings are there",
            hint="Run this command there.",
        )
    if model.path and Path(model.path).is_absolute():
        return _below_models(Path(model.path), home)
    return model.path or _indexed(model.key, home)


def _below_models(file: Path, home: Path) -> str:
    for folder in _models_folders(home):
        for above in file.parents:
            with suppress(OSError, ValueError):
                if above.samefile(folder):
                    return file.relative_to(above).as_posix()
    raise SettingsError(
        f"{str(file)!r} is not in LM Studio's models folder, so LM Studio has no settings for it",
        hint="Use --for llama-server or --for ollama, or measure it with --adapter lmstudio.",
    )


def _models_folders(home: Path) -> Iterator[Path]:
    chosen = read_object(home / "settings.json", SETTINGS_BYTES).get("downloadsFolder")
    if isinstance(chosen, str) and "\0" not in chosen and Path(chosen).is_absolute():
        yield Path(chosen)
    yield home / "models"


def _indexed(key: str, home: Path) -> str:
    """The identifier of the model `key` in LM Studio's index.

    A virtual model needs no entry: its key, ``publisher/name``, is its identifier.
    """
    index = read_object(home / INTERNAL / _INDEX, _INDEX_BYTES)
    entries = map(as_object, as_list(index.get("models")))
    found = {
        str(entry.get("indexedModelIdentifier") or "")
        for entry in entries
        if entry.get("defaultIdentifier") == key
    }
    if len(found) == 1:
        return found.pop()
    if "@" in key:
        raise SettingsError(
            f"{key!r} is a variant, and LM Studio's index does not say where its settings are",
            hint="Select the variant in LM Studio, and measure the model without the @ part.",
        )
    if "/" not in key:
        raise SettingsError(
            f"LM Studio's index does not say where the settings of {key[:200]!r} are",
            hint="Measure it with --adapter lmstudio. --undo also takes the whole name, such as"
            " publisher/repository/file.gguf.",
        )
    return key


def settings_path(home: Path, identifier: str) -> Path:
    """The settings file of the model `identifier`, links resolved, inside `home`.

    Raises `SettingsError` for an identifier that is not a plain relative path, and for a link
    that leads out of the settings folder.
    """
    *folders, name = _checked_parts(identifier)
    folder = home / INTERNAL / CONFIG_FOLDER
    try:
        inside = folder.resolve()
        path = folder.joinpath(*folders, f"{name}.json").resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise SettingsError(
            f"the path of the settings of {identifier!r} cannot be resolved: {error}",
            hint="Look for a loop of links below LM Studio's home.",
        ) from error
    if not (inside.is_relative_to(home.resolve()) and path.is_relative_to(inside)):
        raise SettingsError(
            f"a link leads the settings of {identifier!r} out of LM Studio's home, to {path}",
            hint="Replace the link with the file itself, or set the context in LM Studio.",
        )
    return path


def _checked_parts(identifier: str) -> Sequence[str]:
    """The folders and the name in `identifier`, a model's untrusted name."""
    parts = identifier.split("/")
    problems = [problem for part in parts if (problem := _problem_of(part))]
    if len(parts) > _MOST_PARTS:
        problems.append("it has too many parts")
    if problems:
        raise SettingsError(
            f"{identifier[:200]!r} is not a safe name for a settings file: {problems[0]}",
            hint=IN_LM_STUDIO,
        )
    return parts


def _problem_of(part: str) -> str | None:
    if not part or part.startswith(".") or part != part.strip() or part.endswith("."):
        return "a part of it is empty, or begins or ends with a dot or a space"
    if any(unicodedata.category(char).startswith("C") for char in part):
        return "it contains control characters"
    if _FORBIDDEN & set(part):
        return "it contains a character that some systems do not allow in file names"
    if _RESERVED.fullmatch(part):
        return "a part of it is the name of a device"
    return "a part of it is too long" if len(part.encode()) > _LONGEST_PART else None


def load_settings(model: ModelInfo, home: Path, given: Container[str]) -> Mapping[str, str]:
    """The settings with which LM Studio loads `model`, such as the type of its K/V cache, without
    those that a load is `given`; empty if the model has none, or they cannot be read.
    """
    try:
        path = settings_path(home, settings_identifier(model, home))
    except SettingsError:
        return {}
    load = as_object(read_object(path, SETTINGS_BYTES).get("load"))
    fields = map(as_object, as_list(load.get("fields")))
    found = {as_text(field.get("key")): field.get("value") for field in fields}
    return {
        key.removeprefix("llm.load."): _said(value)
        for key, value in sorted(found.items())
        if key and key not in given
    }


def _said(value: object) -> str:
    """A setting in a word. LM Studio writes one that can be off as its state and its value."""
    checkbox: Json = as_object(value)
    if set(checkbox) == {"checked", "value"}:
        value = checkbox["value"] if checkbox["checked"] else "off"
    return (value if isinstance(value, str) else json.dumps(value))[:_LONGEST_SETTING]
