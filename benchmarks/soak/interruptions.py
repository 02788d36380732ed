"""Interruptions of `lmstrix test` at random moments, and what they leave behind.

    python benchmarks/soak/interruptions.py [--seed 1] [--count 20] [--engine 30]

SIGINT or SIGTERM comes while the stand-in server works, is frozen in the middle of a prediction, or
floods the client with a reply that never ends: `--count` times each; and `--engine` times while the
embedded engine measures the demo model, if `lmstrix demo` has fetched it. Every process must end
within three seconds, without a traceback, and leave neither a process nor a loaded instance. What a
frozen server could not unload, the next run must.

The exit code is 1 where anything of that is not so. The same seed draws the same moments. It needs
Linux.
"""

from __future__ import annotations

import argparse
import enum
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

import anyio
import attrs
import platformdirs
from drawing import USERS_CONTEXT
from processes import Engine
from soaking import CRASHED

from lmstrix.demo import DEMO
from lmstrix.locks import FOLDER_VARIABLE
from lmstrix_cli.errors import ExitCode

LONGEST_S = 3.0
"""How long an interrupted process may take to end."""
HANGS_S = 30.0
NEXT_RUN_S = 120.0
HEARS_S = 5.0
"""How long a server that works may take to hear of the end of a client."""
EARLIEST_S, LATEST_S = 0.3, 4.0
"""After the start of the process: from the imports to the end of a measurement without trouble."""
LATEST_S_ENGINE = 8.0
MOST_TRIES = 10
SMALL = ("--context", str(USERS_CONTEXT), "--max-tokens", "8")
"""Every model loads that."""
MODEL = platformdirs.user_cache_path("lmstrix") / "models" / DEMO.file_name


class Kind(enum.StrEnum):
    """What the interrupted process is busy with."""

    NORMAL = "normal server"
    FROZEN = "frozen server"
    FLOODING = "flooding server"
    ENGINE = "embedded engine"


@attrs.define(kw_only=True)
class Interruption:
    """What became of one."""

    kind: Kind
    number: int
    name: str
    """Of the signal."""
    ended_before: int = 0
    """Runs that were over before the signal."""
    took_s: float = 0.0
    status: int | None = None
    processes_left: int = 0
    unloaded_later: int = 0
    """Instances that the next run unloaded."""
    instances_left: int = 0
    crashed: bool = False

    @property
    def wrong(self) -> list[str]:
        """What is not as it must be."""
        texts = {
            f"took {self.took_s:.1f} s": self.took_s >= LONGEST_S,
            f"{self.processes_left} processes left": self.processes_left > 0,
            f"{self.instances_left} instances left": self.instances_left > 0,
            "traceback": self.crashed,
            f"exit code {self.status}": self.status not in self._allowed(),
        }
        return [text for text, holds in texts.items() if holds]

    def _allowed(self) -> set[int]:
        # All may be measured just before. Until Python runs our code, a signal just ends it.
        return {ExitCode.PARTIAL, ExitCode.MEASURED, -signal.SIGTERM, -signal.SIGINT}


@attrs.define(kw_only=True)
class Interrupter:
    """Interrupts runs of one kind; `server` is None for the embedded engine."""

    kind: Kind
    seed: int
    folder: Path
    server: Engine | None = None

    async def interrupt(self, number: int) -> Interruption:
        """Start runs until one is interrupted."""
        random = Random(f"{self.seed} {self.kind} {number}")
        name = random.choice(("SIGINT", "SIGTERM"))
        done = Interruption(kind=self.kind, number=number, name=name)
        while done.ended_before < MOST_TRIES:
            store = self.folder / f"{self.kind.name}-{number}-{done.ended_before}"
            if await self._interrupt(done, random, store):
                break
            done.ended_before += 1
        return done

    async def _interrupt(self, done: Interruption, random: Random, store: Path) -> bool:
        """Interrupt one run; False if it was over before."""
        errors = store.with_suffix(".errors")
        with errors.open("wb") as stderr:
            process = await anyio.open_process(
                [*self._command(store), *self._test(done.number)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=self._environment(),
                start_new_session=True,
            )
        async with process:
            latest = LATEST_S_ENGINE if self.server is None else LATEST_S
            await anyio.sleep(random.uniform(EARLIEST_S, latest))
            await self._begin_trouble(random)
            started = family(process.pid)
            is_there = process.returncode is None
            if is_there:
                process.send_signal(signal.Signals[done.name])
                sent = time.monotonic()
                with anyio.move_on_after(HANGS_S):
                    await process.wait()
                done.took_s = time.monotonic() - sent
                done.status = process.returncode
            done.processes_left += sum(map(runs, started))
            if process.returncode is None:
                process.kill()
        await self._end_trouble(done, store)
        text = errors.read_text(errors="replace")
        crashed = any(word in text for word in CRASHED) and done.status != -signal.SIGINT
        done.crashed = done.crashed or crashed
        return is_there

    async def _begin_trouble(self, random: Random) -> None:
        if self.server is None or self.kind is Kind.NORMAL:
            return
        if self.kind is Kind.FROZEN:
            await self.server.freeze()
        else:
            await self.server.flood(on=True)
        await anyio.sleep(random.uniform(0.0, 1.0))

    async def _end_trouble(self, done: Interruption, store: Path) -> None:
        if self.server is None:
            return
        if self.kind is Kind.FROZEN:
            self.server.thaw()
            left = len((await self.server.state()).left)
            await self._run_again(done.number, store)
            done.unloaded_later += left
        elif self.kind is Kind.FLOODING:
            await self.server.flood(on=False)
        left = (await self.server.state()).left
        with anyio.move_on_after(HEARS_S):
            while left:
                await anyio.sleep(0.1)
                left = (await self.server.state()).left
        done.instances_left += len(left)

    async def _run_again(self, number: int, store: Path) -> None:
        """A short run: one load."""
        with anyio.fail_after(NEXT_RUN_S):
            await anyio.run_process(
                [*self._command(store), "infer", f"m{number}", "Hello", *SMALL],
                env=self._environment(),
            )

    def _command(self, store: Path) -> list[str]:
        adapter = "llamacpp" if self.server is None else "lmstudio"
        host = [] if self.server is None else ["--host", self.server.host]
        shared = ["--adapter", adapter, *host, "--store", str(store)]
        return [sys.executable, "-m", "lmstrix", *shared]

    def _test(self, number: int) -> list[str]:
        if self.server is None:
            return ["test", str(MODEL), "--max-context", "1k", "--json"]
        return ["test", f"m{number}", "--json"]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, FOLDER_VARIABLE: str(self.folder), "PYTHONUNBUFFERED": "1"}


def family(pid: int) -> set[tuple[int, str]]:
    """A process and all that come of it, each with the moment of its start."""
    found = {(pid, start_of(pid))}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in children.read_text().split():
            found |= family(int(child))
    return found


def start_of(pid: int) -> str:
    """Empty if there is no such process, or nothing but its exit status of it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def runs(process: tuple[int, str]) -> bool:
    """Whether a process still runs, and its number is not another one's."""
    pid, start = process
    return bool(start) and start_of(pid) == start


async def interrupt_all(options: argparse.Namespace, folder: Path) -> list[Interruption]:
    """All interruptions, one after the other: their time counts."""
    done: list[Interruption] = []
    numbers = range(options.count)
    for kind in (Kind.NORMAL, Kind.FROZEN, Kind.FLOODING):
        async with Engine.running(options.seed, numbers) as server:
            one = Interrupter(kind=kind, seed=options.seed, folder=folder, server=server)
            for number in numbers:
                done.append(await one.interrupt(number))
                tell(done[-1])
    one = Interrupter(kind=Kind.ENGINE, seed=options.seed, folder=folder)
    for number in range(options.engine if MODEL.exists() else 0):
        done.append(await one.interrupt(number))
        tell(done[-1])
    return done


def tell(done: Interruption) -> None:
    """One line on an interruption."""
    print(
        f"{done.kind:16} {done.number:3} {done.name:8} {done.took_s:.2f} s exit {done.status} "
        f"{', '.join(done.wrong)}".rstrip(),
        flush=True,
    )


def table(done: Sequence[Interruption]) -> str:
    """The sums of everything, for each kind."""
    lines: list[str] = []
    for kind in Kind:
        of_it = [one for one in done if one.kind is kind]
        rows = {
            "interruptions": len(of_it),
            "runs that ended before": sum(one.ended_before for one in of_it),
            "exits after 3 s or more": sum(one.took_s >= LONGEST_S for one in of_it),
            "other exit codes than 5": sum(one.status != ExitCode.PARTIAL for one in of_it),
            "processes left": sum(one.processes_left for one in of_it),
            "instances unloaded by the next run": sum(one.unloaded_later for one in of_it),
            "instances left": sum(one.instances_left for one in of_it),
            "tracebacks": sum(one.crashed for one in of_it),
        }
        lines.append(str(kind))
        lines += [f"  {name:40} {value:4}" for name, value in rows.items()]
    longest = max((one.took_s for one in done), default=0.0)
    return "\n".join([*lines, f"longest exit {longest:.2f} s"])


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=20, help="with each kind of server")
    parser.add_argument("--engine", type=int, default=30, help="with the embedded engine")
    options = parser.parse_args()
    # A shell ignores it for what runs in the background, and so would all that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="interruptions-") as folder:
        done = anyio.run(partial(interrupt_all, options, Path(folder)))
    print(table(done))
    return int(any(one.wrong for one in done))


if __name__ == "__main__":
    sys.exit(main())
