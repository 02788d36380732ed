"""The processes that the soak starts and kills: the server, and what forks measurements."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import attrs
from anyio.streams.buffered import BufferedByteReceiveStream
from measuring import Job

ANSWER_S = 30.0
"""A process that says nothing for this long, on a busy machine too, hangs."""
LONGEST_LINE = 2**20
HERE = Path(__file__).parent

Json = dict[str, Any]


class _Process:
    """A Python process that is spoken to in lines."""

    def __init__(self, process: anyio.abc.Process) -> None:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("both are pipes")
        self._process = process
        self._in = process.stdin
        self._out = BufferedByteReceiveStream(process.stdout)

    @classmethod
    async def start(cls, script: str, *arguments: object) -> _Process:
        command = [sys.executable, str(HERE / script), *map(str, arguments)]
        # One thread each: many of them run at once. Warnings of forks are of no interest.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        return cls(await anyio.open_process(command, stderr=None, env=environment))

    async def say(self, what: object) -> None:
        with anyio.fail_after(ANSWER_S):
            await self._in.send((json.dumps(what) + "\n").encode())

    async def hear(self, within_s: float = ANSWER_S) -> str:
        with anyio.fail_after(within_s):
            return (await self._out.receive_until(b"\n", LONGEST_LINE)).decode()

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        with anyio.CancelScope(shield=True):
            if self._process.returncode is None:
                self._process.kill()
            await self._process.aclose()


@attrs.frozen(kw_only=True)
class State:
    """What the server knows."""

    left: Sequence[str]
    untouched: bool
    malformed: int


class Engine:
    """The server of some measurements, on one port for as long as it is here."""

    def __init__(self, seed: int, numbers: Sequence[int]) -> None:
        self._seed = seed
        self._numbers = numbers
        self._process: _Process | None = None
        self._script: Json | None = None
        self._turn = anyio.Lock()
        self._dead = State(left=(), untouched=True, malformed=0)
        self._frozen: State | None = None
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def running(cls, seed: int, numbers: Sequence[int]) -> AsyncGenerator[Engine, None]:
        """A server for the measurements of these numbers."""
        engine = cls(seed, numbers)
        try:
            await engine._start()
            yield engine
        finally:
            if engine._process is not None:
                await engine._process.kill()

    @property
    def host(self) -> str:
        """What an SDK calls the API host."""
        return f"127.0.0.1:{self.port}"

    async def state(self) -> State:
        """What it knows, killed servers included."""
        told, dead = await self._ask({"do": "state"}), self._dead
        return State(
            left=tuple(told["left"]),
            untouched=dead.untouched and told["untouched"],
            malformed=dead.malformed + told["malformed"],
        )

    async def malform(self, share: float, seed: int) -> None:
        """Send malformed frames from now on, also after restarts."""
        self._script = {"do": "malform", "share": share, "seed": seed}
        await self._ask(self._script)

    async def drop(self) -> int:
        """Tear every socket down; how many there were."""
        return int((await self._ask({"do": "drop"}))["dropped"])

    async def restart(self, away_s: float) -> None:
        """End it in good order, and start it again."""
        self.port = int((await self._ask({"do": "restart", "away_s": away_s}))["port"])

    async def kill(self) -> None:
        """SIGKILL it, and start it again on the same port."""
        if self._process is not None:
            self._dead = self._frozen or await self.state()
            self._frozen = None
            await self._process.kill()
        await self._start()

    async def freeze(self) -> bool:
        """Stop it, in the middle of the next prediction if one begins soon; whether one did.
        Only `thaw` and `kill` may follow.
        """
        self._frozen = await self.state()
        return bool((await self._ask({"do": "freeze"}))["predicts"])

    def thaw(self) -> None:
        """Let it go on."""
        self._frozen = None
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    async def flood(self, *, on: bool) -> None:
        """Let replies never end, or end again; a restarted server does not flood."""
        await self._ask({"do": "flood", "on": on})

    async def _start(self) -> None:
        self._process = await _Process.start("engine.py", self._seed, self.port, *self._numbers)
        self.port = int(json.loads(await self._process.hear())["port"])
        if self._script is not None:
            await self._ask(self._script)

    async def _ask(self, what: Json) -> Json:
        if self._process is None:
            raise RuntimeError("it is not running")
        async with self._turn:
            await self._process.say(what)
            return json.loads(await self._process.hear())


class Measurer:
    """Runs jobs, one after the other, each in a process that can be killed."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._running: int | None = None

    @classmethod
    @asynccontextmanager
    async def running(cls) -> AsyncGenerator[Measurer, None]:
        """One that has imported everything."""
        measurer = cls(await _Process.start("measuring.py"))
        try:
            yield measurer
        finally:
            measurer.kill()
            await measurer._process.kill()

    async def start(self, job: Job) -> None:
        """Begin a run."""
        await self._process.say(attrs.asdict(job))
        self._running = int(await self._process.hear())

    def kill(self, with_signal: signal.Signals = signal.SIGKILL) -> bool:
        """End the run with a signal; whether there was one."""
        if self._running is None:
            return False
        try:
            os.kill(self._running, with_signal)
        except ProcessLookupError:  # it has just ended by itself
            return False
        return True

    async def ended(self, within_s: float) -> int:
        """Wait for the end of the run; its exit status, or minus the signal that ended it.

        Raises `TimeoutError`; the run goes on.
        """
        status = int(await self._process.hear(within_s))
        self._running = None
        return status
