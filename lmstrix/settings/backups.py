"""Backups beside a settings file: what was there, and what was written in its place.

Their names say it all, so that no list of them can get lost or be wrong::

    file.json.lmstrix-20260102T030405678901-BEFORE-AFTER.bak

``BEFORE`` and ``AFTER`` are digests of the file before and after the change; ``BEFORE`` is
``absent`` where there was no file, and the backup then holds how many folders were made for
it. They do not end in ``.json``, so that LM Studio takes none of them for settings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import attrs

__all__ = ["ABSENT", "Backup", "backups_of", "digest", "new_backup"]

ABSENT = "absent"
_DIGITS = 16
"""Hexadecimal digits of SHA-256: enough to tell the versions of one file apart."""
_NAME = re.compile(
    rf"\.lmstrix-([0-9]{{8}}T[0-9]{{12}})-([0-9a-f]{{{_DIGITS}}}|{ABSENT})-([0-9a-f]{{{_DIGITS}}})\.bak"
)


@attrs.frozen(kw_only=True)
class Backup:
    """One backup, as its name tells it; `before` and `after` are digests or `ABSENT`."""

    path: Path
    stamp: str
    before: str
    after: str


def digest(content: bytes | None) -> str:
    """What names a version of a file; `ABSENT` for no file."""
    return ABSENT if content is None else hashlib.sha256(content).hexdigest()[:_DIGITS]


def new_backup(target: Path, before: bytes | None, after: bytes) -> Backup:
    """Where to keep `before`; nothing is written yet."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    ending = f".lmstrix-{stamp}-{digest(before)}-{digest(after)}.bak"
    return Backup(
        path=target.with_name(target.name + ending),
        stamp=stamp,
        before=digest(before),
        after=digest(after),
    )


def backups_of(target: Path) -> Sequence[Backup]:
    """The backups beside `target`, newest first."""
    found: list[Backup] = []
    for path in target.parent.iterdir() if target.parent.is_dir() else ():
        match = _NAME.fullmatch(path.name.removeprefix(target.name))
        if match and path.name.startswith(target.name) and _is_plain(path):
            stamp, before, after = match.groups()
            found.append(Backup(path=path, stamp=stamp, before=before, after=after))
    return sorted(found, key=lambda backup: backup.stamp, reverse=True)


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()
