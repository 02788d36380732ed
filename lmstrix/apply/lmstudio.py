"""LM Studio's settings of one model: plan a change, write it, undo it."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
import math
import re
import stat
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import attrs
from filelock import FileLock, Timeout

from lmstrix.adapters.lmstudio_home import (
    CONFIG_FOLDER,
    CONTEXT_KEY,
    IN_LM_STUDIO,
    SETTINGS_BYTES,
    settings_path,
)
from lmstrix.errors import SettingsError
from lmstrix.files import replace_file
from lmstrix.json_values import as_context, as_list, as_object, refuse_constant
from lmstrix.locks import turns_folder

_LOCK_S = 10.0
"""How long to wait for another `apply`; each takes milliseconds."""
_WIDEST = 200
"""Longer lines of a diff are cut, in characters."""

_ABSENT = "absent"
_BACKUP = re.compile(
    rf"\.lmstrix-([0-9]{{8}}T[0-9]{{12}})-([0-9a-f]{{16}}|{_ABSENT})-([0-9a-f]{{16}})\.bak"
)
"""``file.json.lmstrix-TIME-BEFORE-AFTER.bak``: the digests of the file before and after a change
show whether the backup can be restored. It does not end in ``.json``, so LM Studio ignores it."""

_NEW: dict[str, Any] = {"preset": "", "operation": {"fields": []}}
"""A file without settings, as LM Studio writes it."""
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
        raise SettingsError(f"the backup {backup} is damaged", hint=IN_LM_STUDIO)
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
        return SettingsError(f"there is nothing to undo: {reason}", hint=IN_LM_STUDIO)
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
        if status.st_size > SETTINGS_BYTES:
            raise SettingsError(
                f"{path} is too large for settings: {status.st_size} bytes", hint=IN_LM_STUDIO
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
