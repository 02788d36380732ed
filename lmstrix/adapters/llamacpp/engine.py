"""The child process that runs llama.cpp: started, watched while it loads, ended, and its failures
translated into the error tree.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO

import anyio
import anyio.abc
import attrs

from lmstrix.adapters.http import CRASH_HINT, MEMORY_WORDS
from lmstrix.adapters.llamacpp import child
from lmstrix.adapters.streaming import spoken_s
from lmstrix.errors import (
    EngineCrashed,
    EngineTimeout,
    EngineUnavailable,
    InvalidModel,
    LMStrixError,
    LoadFailed,
    LoadHung,
    OutOfMemory,
    UnsupportedModel,
)
from lmstrix.json_values import Json, parse_object

ENGINE_PACKAGE = "xllamacpp"
INSTALL_HINT = f"Install the embedded engine: pip install {ENGINE_PACKAGE}."
"""Not ``lmstrix[llamacpp]``: until a release, the package index has another program of our name."""

LOAD_BASE_S = 60.0
SLOWEST_LOAD = 16 * 2**20
"""Bytes per second: a slow disk reads ten times as many."""
START_S = 30.0
"""Deadline for starting a process and sending its settings."""
RELEASE_S = 10.0
"""Deadline for a killed process to be gone; freeing many gigabytes takes a second or two."""
INTERRUPTED_S = 2.0
"""The same after an interruption; the system then reaps it when this process ends."""
LAST_LINES = 20
LOG_LINES = 200
LOG_WIDTH = 500
ANSWER_BYTES = 2**16


@attrs.frozen(kw_only=True)
class EngineSettings:
    """Settings of the child process."""

    model: str
    n_ctx: int
    batch_tokens: int
    threads: int | None = None
    memory_limit_bytes: int | None = None
    binary: str = ""
    """A llama-server of the user's to run instead of the embedded engine."""
    arguments: tuple[str, ...] = ()
    """What it gets besides the model, the context and the address."""


def load_deadline_s(total_bytes: int) -> float:
    """Seconds that a load of `total_bytes`, weights and context, takes at most. They count only
    if the system does not show what a process does.
    """
    return LOAD_BASE_S + total_bytes / SLOWEST_LOAD


class _Log:
    """The last lines of the child's log. A thread reads the pipe, so that the child never blocks on
    it, whatever the event loop does; the thread ends with the pipe.
    """

    def __init__(self, pipe: BinaryIO) -> None:
        self.lines: deque[str] = deque(maxlen=LOG_LINES)
        self.count = 0
        self._pipe = pipe
        self._thread = threading.Thread(target=self._drain, name="llamacpp log", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        with self._pipe:
            while line := self._pipe.readline(4096):
                self.lines.append(line.decode("utf-8", "replace").rstrip()[:LOG_WIDTH])
                self.count += 1

    def all(self, timeout_s: float) -> list[str]:
        """The lines, once the child has closed its end; blocks up to `timeout_s`."""
        self._thread.join(timeout_s)
        return list(self.lines)


class Engine:
    """A running child process with a loaded model and an HTTP server on loopback."""

    def __init__(self, process: anyio.abc.Process, log: _Log, api_key: str) -> None:
        self._process = process
        self._log = log
        self.api_key = api_key
        self.address = ""

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    async def death(self, within_s: float) -> EngineCrashed | None:
        """The child's death, waiting up to `within_s` for it; None if it is alive."""
        with anyio.move_on_after(within_s):
            await self._process.wait()
        returncode = self._process.returncode
        return None if returncode is None else crash(returncode, await self._last_words())

    async def start(
        self,
        settings: EngineSettings,
        *,
        stall_s: float,
        unseen_s: float,
        on_work: Callable[[], None],
    ) -> None:
        """Tell the child to load a model, and wait until it is loaded; see `running_engine`."""
        line = json.dumps({**attrs.asdict(settings), "api_key": self.api_key}).encode() + b"\n"
        stdin = self._process.stdin
        with suppress(anyio.BrokenResourceError):  # it died already: the answer says why
            with anyio.move_on_after(START_S):
                if stdin is not None:
                    await stdin.send(line)
        watch = _Watch(self._process.pid, self._log, unseen_s, shown=not settings.binary)
        answer = await self._answer(stall_s, watch, on_work)
        address = (answer or {}).get("address")
        if isinstance(address, str) and address.startswith("http://127.0.0.1:"):
            self.address = address
            self._log.lines.clear()
            return
        with anyio.move_on_after(START_S):
            await self._process.wait()
        words = await self._last_words()
        raise load_failure(answer, self._process.returncode, words)

    async def _answer(
        self, stall_s: float, watch: _Watch, on_work: Callable[[], None]
    ) -> Json | None:
        """The child's one line; None if it died without one."""
        received = b""
        while b"\n" not in received and len(received) < ANSWER_BYTES:
            idle_s = watch.idle_s(anyio.current_time())
            if idle_s >= stall_s:
                raise LoadHung(f"the load made no progress for {spoken_s(stall_s)}")
            if not idle_s:
                on_work()
            with anyio.move_on_after(1):
                try:
                    received += await _stdout(self._process).receive()
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    break
        return parse_object(received.partition(b"\n")[0])

    async def _last_words(self) -> list[str]:
        with anyio.move_on_after(3):
            return await anyio.to_thread.run_sync(self._log.all, 1, abandon_on_cancel=True)
        return list(self._log.lines)

    async def end(self) -> None:
        """Kill and reap the child. It has nothing to save."""
        interrupted = anyio.current_effective_deadline() == -math.inf
        with anyio.move_on_after(INTERRUPTED_S if interrupted else RELEASE_S, shield=True):
            with suppress(ProcessLookupError):
                # With a server that it started: where there are no process groups, the child ends
                # it when its input ends.
                if hasattr(os, "killpg"):
                    os.killpg(self._process.pid, signal.SIGKILL)
                else:
                    with anyio.move_on_after(INTERRUPTED_S / 2):
                        if self._process.stdin is not None:
                            await self._process.stdin.aclose()
                        await self._process.wait()
                    self._process.kill()
            await self._process.wait()
            await self._process.aclose()  # never waits: the process is gone


class _Watch:
    """Watches whether a loading process works: processor time, memory, log.

    Not `shown` is what a server of the user's does: that it is asked whether it is ready makes it,
    and the child that asks, look busy.
    """

    def __init__(self, pid: int, log: _Log, unseen_s: float, *, shown: bool) -> None:
        self._pid = pid
        self._shown = shown
        self._log = log
        self._seen: tuple[object, ...] = ()
        self._since = anyio.current_time()
        self._unseen_until = self._since + unseen_s

    def idle_s(self, now: float) -> float:
        """Seconds without any sign of work. If the system shows none, the first `unseen_s` count
        as work.
        """
        work = child.work_of(self._pid) if self._shown else ""
        if not work:
            return max(0.0, now - self._unseen_until)
        seen = (self._log.count, work)
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since


@asynccontextmanager
async def running_engine(
    settings: EngineSettings,
    *,
    stall_s: float,
    unseen_s: float = LOAD_BASE_S,
    on_work: Callable[[], None] = lambda: None,
) -> AsyncGenerator[Engine, None]:
    """A child process that has loaded a model as `settings` say; it is killed afterwards.

    `on_work` is called about once a second while the load shows signs of work. A load that shows
    none for `stall_s` is given up; `unseen_s` more if the system does not show what a process
    does.

    Raises `LoadFailed`, `OutOfMemory`, `LoadHung`, `InvalidModel`, `UnsupportedModel`,
    `EngineUnavailable` or `EngineTimeout`.
    """
    engine = await _spawn()
    try:
        await engine.start(settings, stall_s=stall_s, unseen_s=unseen_s, on_work=on_work)
        yield engine
    finally:
        await engine.end()


async def _spawn() -> Engine:
    reading, writing = os.pipe()
    log = _Log(os.fdopen(reading, "rb"))
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    # By path, and with -P: the child imports nothing of ours, and nothing from the current
    # folder.
    command = [sys.executable, "-P", child.__file__]
    try:
        with anyio.fail_after(START_S):
            process = await anyio.open_process(
                command, stderr=writing, start_new_session=True, creationflags=flags
            )
    except TimeoutError as error:
        raise EngineTimeout("the engine's process did not start") from error
    except OSError as error:
        raise EngineUnavailable(f"the engine's process cannot be started: {error}") from error
    finally:
        os.close(writing)
    return Engine(process, log, secrets.token_urlsafe(32))


def _stdout(process: anyio.abc.Process) -> anyio.abc.ByteReceiveStream:
    if process.stdout is None:
        raise EngineUnavailable("the engine's process has no output")
    return process.stdout


# Failures ---------------------------------------------------------------------------------------

_STAMP = re.compile(r"^[\d.]+ (?P<level>[DIWE]) ")
_TROUBLE = re.compile(r"GGML_ASSERT|GGML_ABORT|terminate called|fatal|out of memory", re.IGNORECASE)
_BROKEN = re.compile(
    r"not within the file bounds|is corrupted or incomplete|failed to read (magic|key-value|tensor)"
    r"|invalid magic|missing tensor|wrong shape",
    re.IGNORECASE,
)
_ARGUMENT = re.compile(r"error: (?:invalid|unknown) argument|error while handling argument")
"""How llama-server's refusal of an argument begins; it loads nothing then."""
_UNKNOWN = re.compile(r"unknown (model )?architecture|unsupported model|unknown pre-tokenizer type")


def exit_status(returncode: int | None) -> str:
    """How a process ended: ``killed by SIGKILL`` or ``exit status 3``."""
    if returncode is None:
        return "no exit status"
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def load_failure(answer: Json | None, returncode: int | None, log: Sequence[str]) -> LMStrixError:
    """Why a load failed. `answer` is the child process's line, or None."""
    said = str((answer or {}).get("error", ""))
    kind = (answer or {}).get("kind", "")
    if kind == "load" and (wrong := [line for line in log if _ARGUMENT.match(line)]):
        kind, said = "program", wrong[0].strip()
    if kind in {"engine", "program"}:
        what, hint = {
            "engine": ("llama.cpp cannot be used", INSTALL_HINT),
            "program": ("the server's program cannot be run", "Start it by itself to see why."),
        }[str(kind)]
        return EngineUnavailable(f"{what}: {said}", hint=hint)
    trouble = _troubles(log)
    words = trouble[0] if trouble else " ".join([said or exit_status(returncode), *log[-1:]])
    # Without a level on any line the last ones may tell.
    everything = "\n".join([*(trouble or log[-LAST_LINES:]), said])
    if kind == "memory" or MEMORY_WORDS.search(everything):
        return OutOfMemory(f"the engine ran out of memory while loading: {words}")
    if _UNKNOWN.search(everything):
        return UnsupportedModel(
            f"this version of the engine does not support the model: {words}",
            hint=f"Try a newer engine: pip install --upgrade {ENGINE_PACKAGE}.",
        )
    if _BROKEN.search(everything):
        return InvalidModel(f"the engine cannot read the model: {words}")
    if returncode == -getattr(signal, "SIGKILL", 9):
        return OutOfMemory(
            "the engine was killed by SIGKILL while loading; the system does so if memory runs out"
        )
    return LoadFailed(f"the engine could not load the model ({exit_status(returncode)}): {words}")


def crash(returncode: int, log: Sequence[str]) -> EngineCrashed:
    """The engine died after the load."""
    trouble = _troubles(log)
    words = f": {trouble[-1]}" if trouble else ""
    return EngineCrashed(
        f"the engine died while it worked ({exit_status(returncode)}){words}", hint=CRASH_HINT
    )


def _troubles(log: Sequence[str]) -> list[str]:
    """The log lines about errors, without their time stamps."""
    found: list[str] = []
    for line in log:
        stamp = _STAMP.match(line)
        if (stamp is not None and stamp["level"] == "E") or _TROUBLE.search(line):
            found.append(" ".join(_STAMP.sub("", line).split()))
    return found
