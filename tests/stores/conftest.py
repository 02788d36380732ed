"""Places where a store has no room, or no right to write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest


def run(*command: str) -> bool:
    """Whether a command ended well."""
    return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of its own with 256 KiB; skipped where none can be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ("-t", "tmpfs", "-o", "size=256k", "lmstrix-test")
    if not (sys.platform == "linux" and os.geteuid() == 0 and run("mount", *options, str(place))):
        pytest.skip("mounting needs root and the right to mount")
    try:
        yield place
    finally:
        run("umount", "-l", str(place))


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Generator[Path]:
    """A folder that nobody may write to. Root may write to any: only a mount stops it."""
    place = tmp_path / "read-only"
    place.mkdir()
    if sys.platform == "win32":
        pytest.skip("a folder's mode means nothing")
    if os.geteuid() != 0:
        place.chmod(0o500)
        yield place
        place.chmod(0o700)
        return
    if not run("mount", "-t", "tmpfs", "-o", "ro", "lmstrix-test", str(place)):
        pytest.skip("root may write to a read-only folder")
    try:
        yield place
    finally:
        run("umount", "-l", str(place))
