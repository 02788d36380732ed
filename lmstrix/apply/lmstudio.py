"""LM Studio's settings of one model: find the file, plan a change, write it, undo it.

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

import difflib
import hashlib
import itertools
import json
import math
import re
import stat
import unicodedata
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import attrs
from filelock import FileLock, Timeout

from lmstrix.adapters.lmstudio_home import INTERNAL
from lmstrix.errors import SettingsError
from lmstrix.files import replace_file
from lmstrix.json_values import as_context, as_list, as_object, read_object, refuse_constant
from lmstrix.locks import turns_folder
from lmstrix.models import ModelInfo

CONTEXT_KEY = "llm.load.contextLength"
CONFIG_FOLDER = "user-concrete-model-default-config"

_INDEX = "model-index-cache.json"
_INDEX_BYTES = 64 * 1024**2
_SETTINGS_BYTES = 8 * 1024**2
"""A settings file has a few kilobytes, or a little more with a prompt template."""
_LOCK_S = 10.0
"""How long to wait for another `apply`; each takes milliseconds."""
_WIDEST = 200
"""Longer lines of a diff are cut, in characters."""

_MOST_PARTS = 8
_LONGEST_PART = 180
"""Bytes; leaves room for ``.json`` and a backup's ending within the usual 255."""
_FORBIDDEN = frozenset('\\:*?"<>|')
"""Separators, drives and wildcards of Windows; no model of LM Studio has them in its path."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
"""Names of Windows devices, whatever follows the first dot."""
_ELSEWHERE = re.compile(r" \(on .+\)\Z", re.DOTALL)
"""The ending that LMStrix adds to the key of a model on another device."""

_ABSENT = "absent"
_BACKUP = re.compile(
    rf"\.lmstrix-([0-9]{{8}}T[0-9]{{12}})-([0-9a-f]{{16}}|{_ABSENT})-([0-9a-f]{{16}})\.bak"
)
"""``file.json.lmstrix-TIME-BEFORE-AFTER.bak``: the digests of the file before and after a change
show whether the backup can be restored. It does not end in ``.json``, so LM Studio ignores it."""

_NEW: dict[str, Any] = {"preset": "", "operation": {"fields": []}}
"""A file without settings, as LM Studio writes it."""
_IN_LM_STUDIO = "Set the context in LM Studio itself: My Models, the gear next to the model."
_AGAIN = "Another program wrote it in the meantime. Try again."
_LEFT = (
    "The file was left as it is. Open the model's settings in LM Studio and save them, or move"
    " the file away, then try again."
)


@attrs.frozen(kw_only=True)
class Change:
    """A change of one model's settings file, not yet written.

    `before` and `after` are the content of the file, None without a file. `old_context` and
    `new_context` are in tokens, None if not set. `restores` is the backup that this change
    restores, None for a new setting.
    """

    path: Path
    before: bytes | None
    after: bytes | None
    old_context: float | None
    new_context: float | None
    restores: Path | None = None

    @property
    def needed(self) -> bool:
        """Whether the change does anything."""
        return self.restores is not None or self.old_context != self.new_context

    @property
    def difference(self) -> str:
        """The change as a unified diff of both contents in the same layout; empty if none."""
        contents = (self.before, self.after) if self.needed else (None, None)
        old, new = (
            [] if content is None else _dump(_parse(content)).decode().splitlines()
            for content in contents
        )
        names = ("(no file)" if content is None else str(self.path) for content in contents)
        lines = difflib.unified_diff(old, new, *names, n=2, lineterm="")
        head = [*itertools.islice(lines, 2)]  # the path, never cut
        cut = (line if len(line) <= _WIDEST else f"{line[:_WIDEST]}…" for line in lines)
        return "\n".join([*head, *cut])

    def write(self) -> Path | None:
        """Write the change; returns the new backup, or None if there is none.

        The file has its old or its new content at any moment, even after a kill. Raises
        `SettingsError`, also if the file has changed since the change was planned.
        """
        if not self.needed:
            return None
        with _only_writer(self.path):
            backup = self._restore() if self.after is None or self.restores else self._replace()
            if _read(self.path) != self.after:
                raise SettingsError(f"{self.path} does not have the new content", hint=_AGAIN)
        return backup

    def _replace(self) -> Path:
        after = cast("bytes", self.after)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        ending = f".lmstrix-{stamp}-{_digest(self.before)}-{_digest(after)}.bak"
        backup = self.path.with_name(self.path.name + ending)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(backup, self.before or b"", like=self.path)
            self._check_unchanged()
            replace_file(self.path, after, like=self.path)
        except BaseException:
            with suppress(OSError, SettingsError):
                if _read(self.path) != after:  # otherwise the change was made, and needs its backup
                    backup.unlink(missing_ok=True)
                    self._remove_empty_folders()
            raise
        return backup

    def _restore(self) -> None:
        backup = cast("Path", self.restores)
        self._check_unchanged()
        if self.after is None:
            self.path.unlink()
            backup.unlink()
            self._remove_empty_folders()
        else:
            backup.replace(self.path)

    def _check_unchanged(self) -> None:
        if _read(self.path) != self.before:
            raise SettingsError(f"{self.path} has changed", hint=_AGAIN)

    def _remove_empty_folders(self) -> None:
        with suppress(OSError):  # it is not empty
            for folder in self.path.parents:
                if folder.name == CONFIG_FOLDER:
                    return
                folder.rmdir()


def plan_change(home: Path, identifier: str, context: int) -> Change:
    """The change that sets `context` (tokens) for the model `identifier` below `home`.

    Raises `SettingsError` for an unsafe identifier, for a number that is no context length, and for
    a file that does not parse, is not a regular file or is not in LM Studio's format.
    """
    if as_context(context) is None:
        raise SettingsError(f"{context!r} is not a context length", hint="Give a number of tokens.")
    path = settings_path(home, identifier)
    before = _read(path)
    try:
        document = dict(_NEW) if before is None else _parse(before)
        old = _context_of(document)
        _set_context(document, context)
        after = _dump(document)
    except SettingsError as error:
        raise SettingsError(f"{path} cannot be changed: {error}", hint=error.hint) from error
    return Change(path=path, before=before, after=after, old_context=old, new_context=context)


def plan_undo(home: Path, identifier: str) -> Change:
    """The change that undoes the latest one of the model `identifier`.

    Raises `SettingsError` if there is nothing to undo, if LM Studio or the user has changed the
    file since, or if the backup is damaged.
    """
    path = settings_path(home, identifier)
    now = _read(path)
    backups = _backups(path)
    found = next((backup for backup in backups if backup[2] == _digest(now)), None)
    if now is None or found is None:
        raise _nothing_to_undo(path, now, backups)
    backup, digest, _ = found
    after = None if digest == _ABSENT else _read(backup)
    if _digest(after) != digest:
        raise SettingsError(f"the backup {backup} is damaged", hint=_IN_LM_STUDIO)
    return Change(
        path=path,
        before=now,
        after=after,
        old_context=_context_of(_parse(now)),
        new_context=None if after is None else _context_of(_parse(after)),
        restores=backup,
    )


def _backups(path: Path) -> Sequence[tuple[Path, str, str]]:
    """Each backup next to `path` with the digests before and after its change, newest first."""
    try:
        beside = list(path.parent.iterdir()) if path.parent.is_dir() else []
    except OSError as error:
        raise SettingsError(f"{path.parent} cannot be read: {error.strerror}") from error
    found: list[tuple[str, Path, str, str]] = []
    for file in beside:
        match = _BACKUP.fullmatch(file.name.removeprefix(path.name))
        if match and file.name.startswith(path.name) and not file.is_symlink():
            stamp, before, after = match.groups()
            found.append((stamp, file, before, after))
    return [(file, before, after) for _, file, before, after in sorted(found, reverse=True)]


def _nothing_to_undo(
    path: Path, now: bytes | None, backups: Sequence[tuple[Path, str, str]]
) -> SettingsError:
    if not backups or backups[0][1] == _digest(now):
        reason = f"{path} is as it was before" if backups else f"{path} has no backup"
        return SettingsError(f"there is nothing to undo: {reason}", hint=_IN_LM_STUDIO)
    backup, before, _ = backups[0]
    if before == _ABSENT:
        hint = "There was no such file before: remove it to go back."
    else:
        hint = f"The earlier content is in {backup}: copy it over the file to go back."
    return SettingsError(
        f"{path} has changed since LMStrix wrote it, so it is left as it is", hint=hint
    )


def _digest(content: bytes | None) -> str:
    return _ABSENT if content is None else hashlib.sha256(content).hexdigest()[:16]


@contextmanager
def _only_writer(path: Path) -> Generator[None]:
    """Only one process at a time writes settings. Raises `SettingsError` for an OSError."""
    try:
        folder = turns_folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(folder / "apply.lock", timeout=_LOCK_S):
            yield
    except Timeout as error:
        raise SettingsError(
            f"another process is writing settings, so {path} was left as it is", hint="Try again."
        ) from error
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="Check the permissions and the free space on the disk.",
        ) from error


def _read(path: Path) -> bytes | None:
    """The content of the file, None without a file; raises `SettingsError`."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(
                f"{path} is not a regular file", hint="Move it away, then try again."
            )
        if status.st_size > _SETTINGS_BYTES:
            raise SettingsError(
                f"{path} is too large for settings: {status.st_size} bytes", hint=_IN_LM_STUDIO
            )
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror or error}", hint="Check its permissions."
        ) from error


def _parse(content: bytes) -> dict[str, Any]:
    """The document; raises `SettingsError` if writing it again would lose something."""
    try:
        document: object = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_without_twins,
            parse_constant=refuse_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise SettingsError("it is not UTF-8 text", hint=_LEFT) from error
    except RecursionError as error:
        raise _odd("it is nested too deeply") from error
    except ValueError as error:
        raise SettingsError(f"it does not parse as JSON: {error}", hint=_LEFT) from error
    if not isinstance(document, dict):
        raise _odd("its top level is not an object")
    return cast("dict[str, Any]", document)


def _dump(document: dict[str, Any]) -> bytes:
    try:
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise _odd("it is nested too deeply") from error
    except ValueError as error:  # half a surrogate pair
        raise _odd(f"it cannot be written again: {error}") from error


def _context_of(document: dict[str, Any]) -> float | None:
    """The context length in the settings, in tokens. Checks everything a change relies on."""
    load = document.get("load", {})
    fields: object = load.get("fields", []) if isinstance(load, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType] - any JSON
    if not isinstance(fields, list):
        raise _odd("`load.fields` is not a list in an object")
    entries = [as_object(field) for field in as_list(cast("object", fields))]
    if not all(isinstance(entry.get("key"), str) for entry in entries):
        raise _odd("an entry of `load.fields` has no key")
    values = [entry.get("value") for entry in entries if entry["key"] == CONTEXT_KEY]
    if len(values) > 1:
        raise _odd(f"it sets {CONTEXT_KEY} more than once")
    if not values:
        return None
    if isinstance(values[0], bool) or not isinstance(values[0], int | float):
        raise _odd(f"its value of {CONTEXT_KEY} is not a number")
    return values[0]


def _set_context(document: dict[str, Any], context: int) -> None:
    fields = document.setdefault("load", {}).setdefault("fields", [])
    entry = next((field for field in fields if field["key"] == CONTEXT_KEY), None)
    if entry is None:
        fields.append({"key": CONTEXT_KEY, "value": context})
    else:
        entry["value"] = context


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object has the same key twice")
    return made


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large")
    return number


def _odd(reason: str) -> SettingsError:
    return SettingsError(f"it is not in LM Studio's format: {reason}", hint=_LEFT)


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
    chosen = read_object(home / "settings.json", _SETTINGS_BYTES).get("downloadsFolder")
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
            hint=_IN_LM_STUDIO,
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
