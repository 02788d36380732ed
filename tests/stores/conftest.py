"""A store in a folder that is not there yet, and places without room or the right to write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path

import pytest

from lmstrix.stores.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "lmstrix.sqlite3"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    await store.aclose()


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
def protect() -> Generator[Callable[[Path], None]]:
    """Makes a folder and its files read-only for the rest of the test. Root may write to any file:
    only a mount stops it.
    """
    done: list[Path] = []

    def make_read_only(folder: Path) -> None:
        if sys.platform == "win32":
            pytest.skip("a folder's mode means nothing")
        if os.geteuid() == 0:
            here = str(folder)
            bound = run("mount", "--bind", here, here)
            if not (bound and run("mount", "-o", "remount,ro,bind", here)):
                pytest.skip("root may write to a read-only folder")
        else:
            for file in folder.iterdir():
                file.chmod(0o400)
            folder.chmod(0o500)
        done.append(folder)

    yield make_read_only
    for folder in done:
        if os.geteuid() == 0:
            run("umount", "-l", str(folder))
        else:
            folder.chmod(0o700)
