"""Replaces a file in one step."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes, *, like: Path | None = None) -> None:
    """Make `path` hold `content`: after a crash it has its old content or all of the new.

    The file gets the permissions of `like`, if that exists. A crash may leave a file
    ``.lmstrix-*.tmp`` next to it. Raises OSError; then nothing has changed.
    """
    temporary = path.with_name(f".lmstrix-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            if like is not None:
                # Before the content: a private file is never readable by others.
                with suppress(FileNotFoundError):
                    temporary.chmod(stat.S_IMODE(like.stat().st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; some file systems and Windows cannot."""
    if os.name != "posix":
        return
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
