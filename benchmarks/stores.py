"""Stores that grow: what a list, an append and an export cost with 1,000 times as much in them.

    python benchmarks/stores.py [--models 500] [--trials 10000] [--appends 100]

Fills one store with `--models` finished measurements and `--trials` trials, leaves another
empty, and prints for each what the same call costs. `--models 5000 --trials 100000` is the
large form. Every time is the median of a few. The line to look at is the last one: `lmstrix
list` as a process, on the full store and on the empty one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import attrs

from lmstrix.models import Trial
from lmstrix.stores.export import KeptMeasurement, StoreContents
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

POINTS = 6
"""Times that the sample's two points of the curve are repeated: a report of 4 kB, as they are."""
REPEATS = 5


def contents(models: int, trials: int) -> StoreContents:
    """Finished measurements of as many models, the trials spread over them."""
    return StoreContents(measurements=tuple(measurements(models, trials)))


def measurements(models: int, trials: int) -> Iterator[KeptMeasurement]:
    """One for each model; the last one takes the trials that are left over."""
    report = sample_report()
    report = attrs.evolve(report, curve=report.curve * POINTS)
    for number in range(models):
        model = sample_model(key=f"publisher/model-{number}")
        share = trials // models + (trials % models if number == models - 1 else 0)
        yield KeptMeasurement(
            id=uuid.uuid4().hex,
            key=f"key of {model.key}",
            model=model,
            started_at=report.started_at,
            trials=tuple(trial(index) for index in range(share)),
            report=attrs.evolve(report, model=model),
        )


def trial(index: int) -> Trial:
    """A trial with a reply of the usual length."""
    return sample_trial(index=index, reply=" 4711. " * 5)


async def seconds(call: Callable[[], Awaitable[object]], repeats: int = REPEATS) -> float:
    """Median time of a call."""
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        await call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def measure(path: Path, appends: int) -> dict[str, float]:
    """What each call costs on the store at `path`, in seconds; the file is opened for it."""
    costs: dict[str, float] = {}

    async def opened(name: str) -> None:
        store = SqliteStore(path)
        try:
            await getattr(store, name)()
        finally:
            await store.aclose()

    for name in ("summaries", "unfinished_models", "interrupted"):
        costs[f"open, {name}, close"] = await seconds(lambda name=name: opened(name))
    costs["open, reports, close"] = await seconds(lambda: opened("reports"), 1)
    store = SqliteStore(path)
    numbers = count()
    try:
        begun = await store.begin("a new one", sample_model())
        costs["append_trials"] = await seconds(
            lambda: store.append_trials(begun.id, [trial(next(numbers))]), appends
        )
        costs["mark_load"] = await seconds(lambda: store.mark_load(begun.id, 8192), appends)
        costs["clear_load"] = await seconds(lambda: store.clear_load(begun.id), appends)
        costs["unfinished"] = await seconds(lambda: store.unfinished("a new one"))
        costs["finish"] = await seconds(lambda: store.finish(begun.id, sample_report()))
    finally:
        await store.aclose()
    return costs


def list_seconds(path: Path) -> float:
    """`lmstrix --store PATH list` as a process: the median of a few."""
    times: list[float] = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run(  # noqa: S603 - this interpreter, and a path of our own
            [sys.executable, "-m", "lmstrix", "--store", str(path), "list"],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONUTF8": "1"},
        )
        times.append(time.perf_counter() - start)
    return statistics.median(times)


async def run(models: int, trials: int, appends: int, folder: Path) -> None:
    """Fill one store, leave another empty, print both."""
    full, empty = folder / "full.sqlite3", folder / "empty.sqlite3"
    filled, nothing = SqliteStore(full), SqliteStore(empty)
    start = time.perf_counter()
    merged = await filled.merge(contents(models, trials))
    spent = time.perf_counter() - start
    await nothing.reports()
    await filled.aclose()
    await nothing.aclose()
    print(
        f"{merged.reports} models, {merged.trials} trials,"
        f" {full.stat().st_size / 1e6:.1f} MB, merged in {spent:.1f} s"
    )
    # The list first: measuring leaves something in both.
    lists = [list_seconds(path) for path in (empty, full)]
    small, large = [await measure(path, appends) for path in (empty, full)]
    print(f"{'call':32}{'empty, ms':>12}{'full, ms':>12}{'ratio':>8}")
    for name, cost in small.items():
        print(row(name, cost, large[name]))
    print(row("lmstrix list", *lists))
    within = lists[1] <= 2 * lists[0] + 0.2
    print(f"lmstrix list within twice the empty one and 200 ms: {'yes' if within else 'no'}")


def row(name: str, empty: float, full: float) -> str:
    """One line of the table."""
    return f"{name:32}{empty * 1e3:12.2f}{full * 1e3:12.2f}{full / empty:8.1f}"


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        description="What calls cost on a full store and on an empty one."
    )
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--appends", type=int, default=100)
    # The words that `nox -s bench` gives to every benchmark are not for this one.
    options, _ = parser.parse_known_args()
    with TemporaryDirectory() as folder:
        anyio.run(run, options.models, options.trials, options.appends, Path(folder))


if __name__ == "__main__":
    main()
