"""Run as a process: writes trials into a store and says which ones were acknowledged.

    python writers.py STORE_CLASS PATH

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
from lmstrix.stores.jsonl import JsonlStore
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_trial

STORES = {"sqlite": SqliteStore, "jsonl": JsonlStore}


def say(what: object) -> None:
    """One line to whoever started this process."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def write(store: Store, seed: int, count: int) -> None:
    """Append `count` trials to the measurement ``key``, whoever began it."""
    found = await store.unfinished("key") or await store.begin("key", sample_model())
    for index in range(count):
        # A mark is part of what a measurement writes; the last one stays.
        await store.mark_load(found.id, index + 1)
        await store.append_trial(found.id, sample_trial(seed=seed, index=index))
        say(index)
    await store.aclose()


def main(kind: str, path: str) -> None:
    """Fork a writer for each line of the input, one after the other."""
    for line in sys.stdin:
        seed, count = map(int, line.split())
        child = os.fork()
        if child == 0:
            say(os.getpid())
            anyio.run(write, STORES[kind](Path(path)), seed, count)
            os._exit(0)
        os.waitpid(child, 0)
        say("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
