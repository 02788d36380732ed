"""One wheel from the package index that the user's pip is set up for, by pip itself.

pip alone knows the user's mirrors, proxies and certificates. It runs as a process of its own,
because it has no API. Its messages stay here: they may hold an index address with a password.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.abc

_DEADLINE_S = 1800.0
"""For all of it: 100 MB at half a megabit per second. pip itself gives up on a silent server."""
_STOP_S = 5.0
"""For a killed process to be gone."""
_KEPT_BYTES = 65_536
"""The end of what pip wrote to stderr: enough to tell why it failed."""


class PipFailed(Exception):
    """pip is not there or did not get the wheel; the text is one sentence for the user."""


async def download(requirement: str, folder: Path) -> None:
    """Put the wheel for `requirement`, without its dependencies, into `folder`.

    `folder` also holds pip's temporary files. Cancelling kills pip. Raises `PipFailed`.
    """
    command = [
        *_pip(),
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-cache-dir",  # the file is kept once, by us
        "--retries=2",  # so that without a network it fails within seconds
        "--no-deps",
        "--only-binary=:all:",
        f"--dest={folder}",
        requirement,
    ]
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    # Nothing is installed, so a rule against installing outside an environment does not apply.
    environment = {**os.environ, **temporary, "PIP_REQUIRE_VIRTUALENV": "0"}
    try:
        with anyio.fail_after(_DEADLINE_S):
            code, complaint = await _run(command, environment)
    except TimeoutError as error:
        minutes = round(_DEADLINE_S / 60)
        raise PipFailed(f"pip did not get {requirement} within {minutes} minutes.") from error
    if code:
        raise PipFailed(_reason(requirement, complaint))


def _pip() -> list[str]:
    """How to call pip. ``-P`` keeps a ``pip.py`` in the current folder from being run."""
    if sys.executable and importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]
    uv = shutil.which("uv")
    if uv is None:
        raise PipFailed("Neither pip nor uv is installed; one is needed to fetch the demo model.")
    same_python = ["--python", sys.executable] if sys.executable else []
    isolated = [uv, "run", "--quiet", "--no-project", "--isolated", *same_python, "--with", "pip"]
    return [*isolated, "python", "-P", "-m", "pip"]


def _reason(requirement: str, complaint: str) -> str:
    if "No space left" in complaint:
        return f"There was no space left when pip fetched {requirement}."
    if "connection broken" in complaint or "Temporary failure" in complaint:
        return f"The package index cannot be reached, so pip did not get {requirement}."
    if "No matching distribution" in complaint:
        return f"The package index configured in pip does not have {requirement}."
    return f"pip could not get {requirement}."


async def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Exit code, and the end of what the process wrote to stderr."""
    process = await anyio.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        # A group of its own, so that what uv has started can be ended with it.
        start_new_session=True,
    )
    kept = b""
    try:
        if process.stderr is not None:
            async for piece in process.stderr:
                kept = (kept + piece)[-_KEPT_BYTES:]
        return await process.wait(), kept.decode(errors="replace")
    finally:
        with anyio.move_on_after(_STOP_S, shield=True):
            await _end(process)


async def _end(process: anyio.abc.Process) -> None:
    if process.returncode is None:
        _kill(process)
    await process.wait()
    await process.aclose()


def _kill(process: anyio.abc.Process) -> None:
    if sys.platform == "win32":
        process.kill()
        return
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
