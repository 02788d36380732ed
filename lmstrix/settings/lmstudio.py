"""LM Studio's per-model default load settings: plan a change, show it, write it, take it back."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import attrs

from lmstrix.settings import files
from lmstrix.settings.backups import ABSENT, Backup, backups_of, digest, new_backup
from lmstrix.settings.merging import CONTEXT_KEY, new_text, read_context, with_context
from lmstrix.settings.places import settings_path
from lmstrix.settings.problems import SettingsError

__all__ = ["CONTEXT_KEY", "Change", "Undo", "plan_change", "plan_undo"]

T = TypeVar("T")

_WIDEST = 200
"""A longer line that changes says nothing in a difference: the file is written without line
breaks. A longer one beside it is cut."""
_IN_LM_STUDIO = "Another context can be set in LM Studio: My Models, the gear beside the model."
_CHANGED_MEANWHILE = "Somebody else wrote it in the meantime. Try again."


@attrs.frozen(kw_only=True)
class Change:
    """A new context length for one model, not yet written.

    `before` and `after` are the whole file (`before` is None where there is none);
    `old_context` and `context` are in tokens.
    """

    path: Path
    before: bytes | None
    after: bytes
    old_context: int | float | None
    context: int

    @property
    def needed(self) -> bool:
        """Whether the file does not say so already."""
        return self.old_context != self.context

    @property
    def difference(self) -> str:
        """The change as a unified diff; empty where nothing changes, or the line is too long."""
        return _difference(self.path, self.before, self.after) if self.needed else ""

    def write(self) -> Path | None:
        """Write it, and read it back; gives the backup, None where nothing had to be written.

        At any moment the file is the old or the new one, whole. Raises `SettingsError`.
        """
        if not self.needed:
            return None
        return _guarded(self.path, self._write)

    def _write(self) -> Path:
        folders = files.make_folders(self.path.parent)
        backup = new_backup(self.path, self.before, self.after).path
        kept = str(folders).encode() if self.before is None else self.before
        try:
            _expect(self.path, self.before)
            files.put(backup, kept, like=self.path)
            _expect(self.path, self.before)
            files.put(self.path, self.after, like=self.path)
        except BaseException:
            self._tidy(backup, folders)
            raise
        self._verify(backup)
        return backup

    def _tidy(self, backup: Path, folders: int) -> None:
        """Leave no backup of a change that was not made; one that was made keeps its own."""
        with suppress(OSError, SettingsError):
            if files.read(self.path) != self.after:
                files.remove(backup)
                files.remove_empty_folders(self.path.parent, folders)

    def _verify(self, backup: Path) -> None:
        found = files.read(self.path)
        if found != self.after or read_context(_text(self.after)) != self.context:
            raise SettingsError(
                f"{self.path} does not hold what was written into it",
                hint=_by_hand(digest(self.before), backup),
            )


@attrs.frozen(kw_only=True)
class Undo:
    """The latest change taken back, not yet done. `after` None: there was no file before it."""

    path: Path
    before: bytes
    after: bytes | None
    backup: Path

    @property
    def difference(self) -> str:
        """What taking it back changes, as a unified diff."""
        return _difference(self.path, self.before, self.after)

    @property
    def contexts(self) -> tuple[int | float | None, int | float | None]:
        """The context length before and after taking it back, in tokens; None: not set."""
        after = None if self.after is None else read_context(_text(self.after))
        return read_context(_text(self.before)), after

    def write(self) -> None:
        """Put back what was there, to the byte, and use the backup up. Raises `SettingsError`."""
        _guarded(self.path, self._write)

    def _write(self) -> None:
        _expect(self.path, self.before)
        if self.after is not None:
            files.rename(self.backup, self.path)
        else:
            folders = _folders_made(self.backup)
            files.remove(self.path)
            files.remove(self.backup)
            files.remove_empty_folders(self.path.parent, folders)
        if files.read(self.path) != self.after:
            raise SettingsError(f"{self.path} is not what it was", hint=_CHANGED_MEANWHILE)


def plan_change(home: Path, identifier: str, context: int) -> Change:
    """What setting `context` (tokens) for the model `identifier` would write below `home`.

    Raises `SettingsError` for an unsafe identifier, and for a file that does not parse, is no
    plain file or is not what LM Studio writes.
    """
    path = settings_path(home, identifier)
    before = files.read(path)
    try:
        old = None if before is None else read_context(_text(before))
        after = new_text(context) if before is None else with_context(_text(before), context)
    except (SettingsError, RecursionError) as error:
        hint = error.hint if isinstance(error, SettingsError) else ""
        raise SettingsError(f"{path} cannot be changed: {error}", hint=hint) from error
    return Change(path=path, before=before, after=after.encode(), old_context=old, context=context)


def plan_undo(home: Path, identifier: str) -> Undo:
    """What taking back the latest change of the model `identifier` would write.

    Raises `SettingsError` where there is nothing to take back, where the file was changed
    since (by LM Studio or by hand), and where the backup is damaged.
    """
    path = settings_path(home, identifier)
    now = files.read(path)
    backups = _guarded(path, lambda: backups_of(path))
    backup = next((b for b in backups if b.after == digest(now)), None)
    if backup is None or now is None:
        raise _nothing_to_undo(path, now, backups[0] if backups else None)
    content = files.read(backup.path)
    if backup.before == ABSENT:
        return Undo(path=path, before=now, after=None, backup=backup.path)
    if content is None or digest(content) != backup.before:
        raise SettingsError(
            f"the backup {backup.path} is damaged", hint="Set the context in LM Studio itself."
        )
    return Undo(path=path, before=now, after=content, backup=backup.path)


def _nothing_to_undo(path: Path, now: bytes | None, newest: Backup | None) -> SettingsError:
    if newest is None:
        return SettingsError(
            f"there is nothing to take back: {path} has no backup", hint=_IN_LM_STUDIO
        )
    if newest.before == digest(now):
        return SettingsError(
            f"there is nothing to take back: {path} is as it was before", hint=_IN_LM_STUDIO
        )
    return SettingsError(
        f"{path} was changed since LMStrix wrote it, so it is left as it is",
        hint=_by_hand(newest.before, newest.path),
    )


def _by_hand(before: str, backup: Path) -> str:
    """How to put back what had the digest `before`, where that is not done for the user."""
    if before == ABSENT:
        return "There was no such file before: to be back there, remove it."
    return f"What was there before is in {backup}: copy that over it to have it back."


def _folders_made(backup: Path) -> int:
    """How many folders were made for the file; 0 where the backup does not say."""
    text = (files.read(backup) or b"").decode("ascii", "replace")
    return int(text) if len(text) == 1 and text.isdecimal() else 0


def _expect(path: Path, content: bytes | None) -> None:
    if files.read(path) != content:
        raise SettingsError(f"{path} is not as it was a moment ago", hint=_CHANGED_MEANWHILE)


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SettingsError(
            "it is not UTF-8 text",
            hint="The file was left as it is. Move it away, then try again.",
        ) from error


def _guarded(path: Path, act: Callable[[], T]) -> T:
    try:
        return act()
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror or error}",
            hint="Check the permissions, and the room on the disk.",
        ) from error


def _difference(path: Path, before: bytes | None, after: bytes | None) -> str:
    old, new = ((c or b"").decode("utf-8", "replace").splitlines() for c in (before, after))
    was, is_now = ("(no file)" if content is None else str(path) for content in (before, after))
    head, body = [f"--- {was}", f"+++ {is_now}"], list[str]()
    # Behind the head, whose length is that of the path.
    for line in list(difflib.unified_diff(old, new, n=2, lineterm=""))[len(head) :]:
        if len(line) <= _WIDEST:
            body.append(line)
        elif line.startswith(" "):
            body.append(f"{line[:_WIDEST]}…")
        else:
            return ""
    return "\n".join((*head, *body)) if body else ""
