"""Several processes on one store, and processes that are killed while they write."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import anyio
import pytest
from processes import started

from lmstrix.models import StoredMeasurement
from lmstrix.stores.sqlite import SqliteStore

KILLS = int(os.environ.get("LMSTRIX_TEST_KILLS", "12"))
"""How many writers are killed; 200 for the full form."""

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL and no fork"),
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # the work is done in threads
]


class Writers:
    """A process that forks writers, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in: IO[str] = process.stdin
        self._out: IO[str] = process.stdout

    def start(self, seed: int, count: int) -> int:
        """Fork a writer; its process id."""
        self._in.write(f"{seed} {count}\n")
        self._in.flush()
        return int(self._out.readline())

    def acknowledged(self, count: int) -> int:
        """Wait for so many acknowledged trials."""
        return sum(bool(self._out.readline()) for _ in range(count))

    def rest(self) -> int:
        """How many more there were before the writer ended."""
        count = 0
        # The kill may cut the last line short; what follows on it is our own "end".
        while (line := self._out.readline()) and not line.endswith("end\n"):
            count += 1
        return count


@contextmanager
def writers(path: Path) -> Generator[Writers]:
    script = str(Path(__file__).with_name("writers.py"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with started(script, str(path), **pipes) as process:
        yield Writers(process)


async def stored(path: Path) -> StoredMeasurement:
    store = SqliteStore(path)
    found = await store.unfinished("key")
    await store.aclose()
    assert found is not None
    assert store.warnings == ()
    return found


async def test_every_acknowledged_trial_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "store"
    chance = random.Random(20260102)
    acknowledged: list[int] = []
    with writers(path) as source:
        for seed in range(KILLS):
            writer = source.start(seed, 100_000)
            seen = source.acknowledged(chance.randrange(0, 8))
            # Somewhere inside the next writes; the very first one included.
            await anyio.sleep(chance.random() * 0.02)
            os.kill(writer, signal.SIGKILL)
            acknowledged.append(seen + source.rest())
            found = await stored(path) if seed % 10 == 9 else None
            assert found is None or len(found.trials) >= sum(acknowledged)
        # One more begins, where no kill left a measurement at all.
        source.start(KILLS, 1)
        assert source.rest() == 1
    found = await stored(path)
    for seed, count in enumerate(acknowledged):
        indices = [trial.index for trial in found.trials if trial.seed == seed]
        assert indices == list(range(len(indices)))
        # One more at most: stored, and killed before it was acknowledged.
        assert len(indices) - count in {0, 1}
    # At most one mark for each writer that was killed within a load, and the last writer's.
    assert found.deaths
    assert len(found.deaths) <= KILLS + 1


async def test_four_processes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "data" / "store"
    # All begin on an empty folder; whoever begins last has the measurement that is offered.
    with ExitStack() as stack:
        sources = [stack.enter_context(writers(path)) for _ in range(4)]
        for seed, source in enumerate(sources):
            source.start(seed, 25)
        assert [source.rest() for source in sources] == [25] * 4
    store = SqliteStore(path)
    kept = (await store.contents()).measurements
    await store.aclose()
    assert store.warnings == ()
    trials = [trial for measurement in kept for trial in measurement.trials]
    assert len(trials) == 100
    for seed in range(4):
        assert [trial.index for trial in trials if trial.seed == seed] == list(range(25))
