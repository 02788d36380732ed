"""Reading a settings file whole, and replacing it so that a crash leaves the old or the new one."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from lmstrix.settings.problems import SettingsError

__all__ = ["make_folders", "put", "read", "remove", "remove_empty_folders", "rename"]

MOST_BYTES = 8 * 1024**2
"""Settings of a model take a few kilobytes; a prompt template in them some more."""


def read(path: Path) -> bytes | None:
    """What is in the file, None where there is none; raises `SettingsError`."""
    try:
        kind = path.lstat()
        if not stat.S_ISREG(kind.st_mode):
            raise SettingsError(f"{path} is no plain file", hint="Move it away, then try again.")
        if kind.st_size > MOST_BYTES:
            raise SettingsError(
                f"{path} is too large for settings: {kind.st_size} bytes",
                hint="Set the context in LM Studio itself.",
            )
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror or error}", hint="Check its permissions."
        ) from error


def put(path: Path, content: bytes, *, like: Path | None = None) -> None:
    """Make `path` hold `content` in one step: a crash leaves what was there, or all of it.

    Takes the permissions of `like`. What a crash may leave is a file ``.lmstrix-*.tmp``, which
    nobody reads. Raises OSError, with nothing changed.
    """
    temporary = path.with_name(f".lmstrix-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            # First: what only its owner may read is not shown to others on the way.
            _take_mode(temporary, like)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def rename(source: Path, target: Path) -> None:
    """Put `source` in the place of `target` in one step; raises OSError."""
    source.replace(target)
    _sync_folder(target.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there; raises OSError."""
    path.unlink(missing_ok=True)
    _sync_folder(path.parent)


def make_folders(folder: Path) -> int:
    """Make `folder` and what is missing above it; gives how many that were. Raises OSError."""
    missing = [folder, *folder.parents]
    missing = missing[: next(i for i, above in enumerate(missing) if above.is_dir())]
    for above in reversed(missing):
        above.mkdir(exist_ok=True)
        _sync_folder(above.parent)
    return len(missing)


def remove_empty_folders(folder: Path, count: int) -> None:
    """Remove `folder` and those above it, `count` in all, as far as they are empty."""
    with suppress(OSError):  # not empty: somebody else uses it by now
        for above in [folder, *folder.parents][:count]:
            above.rmdir()


def _take_mode(path: Path, like: Path | None) -> None:
    """The permissions of `like`; where it is not there, those of any new file."""
    if like is not None:
        with suppress(FileNotFoundError):
            path.chmod(stat.S_IMODE(like.stat().st_mode))


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the system lets folders be synced."""
    if os.name != "posix":
        return
    with suppress(OSError):  # some file systems refuse; the rename itself is done
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
