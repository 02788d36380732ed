"""Processes of their own, for tests of what is killed, frozen or interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio

from lmstrix import errors

ROOT = Path(errors.__file__).parents[1]
SOURCES = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}"}
"""Where a process of its own finds the packages."""


@contextmanager
def started(*words: str, **more: Any) -> Generator[subprocess.Popen[str]]:
    """Python with these words as its arguments; it is killed at the end."""
    command = [sys.executable, *words]
    with subprocess.Popen(command, text=True, env=os.environ | SOURCES, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie, as which it may wait for its new parent."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


async def until(there: Callable[[], object]) -> None:
    """Wait for what another process does."""
    with anyio.fail_after(30):
        while not there():  # noqa: ASYNC110 - another process sets no event
            await anyio.sleep(0.02)
