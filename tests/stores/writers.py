"""Run as a process: writes trials into a store and says which ones were acknowledged.

    python writers.py PATH

For each line ``SEED COUNT`` that it reads it forks a writer, which prints its process id, then a
line for each acknowledged trial, and ends with ``end``. Everything is imported before the fork,
so a writer is there in milliseconds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import anyio

from lmstrix.ports import Store
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_trial


def say(what: object) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def write(store: Store, seed: int, count: int) -> None:
    """Append `count` trials to the measurement ``key``, whoever began it."""
    found = await store.unfinished("key") or await store.begin("key", sample_model())
    for index in range(count):
        await store.mark_load(found.id, index + 1)
        await store.append_trials(found.id, [sample_trial(seed=seed, index=index)])
        say(index)
        if index < count - 1:  # the last mark stays, as of a load that kills
            await store.clear_load(found.id)
    await store.aclose()


def main(path: str) -> None:
    """Fork a writer for each line of the input, one after the other."""
    for line in sys.stdin:
        seed, count = map(int, line.split())
        child = os.fork()
        if child == 0:
            say(os.getpid())
            anyio.run(write, SqliteStore(Path(path)), seed, count)
            os._exit(0)
        os.waitpid(child, 0)
        say("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
