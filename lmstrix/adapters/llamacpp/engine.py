"""Starts the child process that runs llama.cpp, waits for its load, and ends it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.abc
import attrs

from lmstrix.adapters.llamacpp import child, failures
from lmstrix.errors import EngineCrashed, EngineTimeout, EngineUnavailable
from lmstrix.json_values import Json, parse_object

__all__ = ["Engine", "EngineSettings", "load_deadline_s", "running_engine"]

LOAD_BASE_S = 60.0
SLOWEST_LOAD = 16 * 2**20
"""Bytes a second below which a load is given up: a slow disk reads ten times as much."""
START_S = 30.0
"""Deadline for starting a process and telling it what to do."""
RELEASE_S = 10.0
"""Deadline for a killed process to be gone; freeing many gigabytes takes a second or two."""
LOG_LINES = 200
LOG_WIDTH = 500
ANSWER_BYTES = 2**16


@attrs.frozen(kw_only=True)
class EngineSettings:
    """What the child process is told."""

    model: str
    n_ctx: int
    batch_tokens: int
    threads: int | None = None
    memory_limit_bytes: int | None = None


def load_deadline_s(total_bytes: int) -> float:
    """Seconds after which a load of `total_bytes`, weights and context, is given up."""
    return LOAD_BASE_S + total_bytes / SLOWEST_LOAD


class _Log:
    """The last lines of the child's log. A thread drains the pipe, so that the child never
    blocks on it, whatever the event loop does; it ends with the pipe.
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
        """How the child died, waiting `within_s` for it; None if it lives."""
        with anyio.move_on_after(within_s):
            await self._process.wait()
        returncode = self._process.returncode
        return None if returncode is None else failures.crash(returncode, await self._last_words())

    async def start(self, settings: EngineSettings, *, deadline_s: float, stall_s: float) -> None:
        """Tell the child what to load, and wait until it has.

        Raises `LoadFailed`, `OutOfMemory`, `InvalidModel`, `UnsupportedModel`,
        `EngineUnavailable` or `EngineTimeout`.
        """
        line = json.dumps({**attrs.asdict(settings), "api_key": self.api_key}).encode() + b"\n"
        stdin = self._process.stdin
        with suppress(anyio.BrokenResourceError):  # it died already: the answer says how
            with anyio.move_on_after(START_S):
                if stdin is not None:
                    await stdin.send(line)
        answer = await self._answer(deadline_s, stall_s)
        address = (answer or {}).get("address")
        if isinstance(address, str) and address.startswith("http://127.0.0.1:"):
            self.address = address
            self._log.lines.clear()
            return
        with anyio.move_on_after(START_S):
            await self._process.wait()
        words = await self._last_words()
        raise failures.load_failure(answer, self._process.returncode, words)

    async def _answer(self, deadline_s: float, stall_s: float) -> Json | None:
        """The child's one line; None where it died without one."""
        received = b""
        give_up = anyio.current_time() + deadline_s
        watch = _Watch(self._process.pid, self._log)
        while b"\n" not in received and len(received) < ANSWER_BYTES:
            now = anyio.current_time()
            if now >= give_up:
                raise EngineTimeout(f"the load took longer than {deadline_s:.0f} s")
            if watch.idle_s(now) >= stall_s:
                raise EngineTimeout(f"the load made no progress for {stall_s:.0f} s")
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
        """Kill and reap the child. There is nothing that it would have to save."""
        with anyio.move_on_after(RELEASE_S, shield=True):
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            await self._process.aclose()  # never waits: the process is gone


class _Watch:
    """Notices whether a loading process does anything: time on the processor, memory, log."""

    def __init__(self, pid: int, log: _Log) -> None:
        self._stat = Path("/proc") / str(pid) / "stat"
        self._log = log
        self._seen: tuple[object, ...] = ()
        self._since = anyio.current_time()

    def idle_s(self, now: float) -> float:
        """Seconds without any sign of work; zero where the system shows none."""
        try:
            # Fields 14, 15 and 24 of proc(5): user time, system time, resident pages. The
            # second field may hold spaces, and ends with the last bracket.
            fields = self._stat.read_text().rpartition(")")[2].split()
            seen = (self._log.count, fields[11], fields[12], fields[21])
        except (OSError, IndexError):
            return 0.0
        if seen != self._seen:
            self._seen, self._since = seen, now
        return now - self._since


@asynccontextmanager
async def running_engine(
    settings: EngineSettings, *, deadline_s: float, stall_s: float
) -> AsyncGenerator[Engine, None]:
    """A child process that has loaded what `settings` say; it is gone afterwards.

    Raises what `Engine.start` raises.
    """
    engine = await _spawn()
    try:
        await engine.start(settings, deadline_s=deadline_s, stall_s=stall_s)
        yield engine
    finally:
        await engine.end()


async def _spawn() -> Engine:
    reading, writing = os.pipe()
    log = _Log(os.fdopen(reading, "rb"))
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP
    # By path, and without the current folder on its path (-P): the child imports nothing of
    # ours, and nothing that happens to lie where the user stands.
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
