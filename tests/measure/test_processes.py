"""Four processes on one store and one server, all at once."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from functools import partial
from itertools import combinations
from pathlib import Path

import anyio
import pytest

from lmstrix.locks import FOLDER_VARIABLE
from lmstrix.problem import step_at
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.lmstudio import LMStudioServer, Script
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

MEASURING = Path(__file__).parents[2] / "benchmarks" / "soak" / "measuring.py"
TRUTHS = {"a": 1300, "b": 1600, "c": 1800, "d": 2100}

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="measurements are forked"),
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # as the SDK
]


def server() -> LMStudioServer:
    models = [
        SimulatedModel(key=key, declared=3072, true_context=truth, beyond=Beyond.FORGETS_ALL)
        for key, truth in TRUTHS.items()
    ]
    # A load takes long enough for another one to come in between.
    return LMStudioServer(
        SimulatedAdapter(*models), script=Script(load_s=0.1), preload=[("a", "users-own", 2048)]
    )


async def measure(host: str, key: str, folder: Path, statuses: list[int]) -> None:
    (folder / key).mkdir()
    job = {
        "host": host,
        "model": key,
        "store": str(folder / "store.sqlite3"),
        "folder": str(folder / key),
        "seed": 1,
        "certify": True,
        "slow_s": 0.0,
        "hurried": False,
    }
    environment = {**os.environ, FOLDER_VARIABLE: str(folder / "turns")}
    ended = await anyio.run_process(
        [sys.executable, str(MEASURING)],
        input=(json.dumps(job) + "\n").encode(),
        stderr=None,
        env=environment,
    )
    _, status = ended.stdout.split()
    assert int(status) == 0, (folder / key / "errors").read_text()
    statuses.append(int(status))


async def test_four_processes_measure_in_turn(tmp_path: Path) -> None:
    statuses: list[int] = []
    async with server() as stand_in:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for key in TRUTHS:
                    tasks.start_soon(partial(measure, stand_in.host, key, tmp_path, statuses))
        assert statuses == [0] * 4
        assert stand_in.left_behind == []
        assert stand_in.user_instances_untouched
        loads = list(stand_in.loads)
    assert {load.key for load in loads} == set(TRUTHS)
    overlapping = [(a.key, b.key) for a, b in combinations(loads, 2) if a.overlaps(b)]
    assert overlapping == []
    await check_results(tmp_path / "store.sqlite3", tmp_path)


async def check_results(path: Path, folder: Path) -> None:
    store = SqliteStore(path)
    try:
        kept = (await store.contents()).measurements
    finally:
        await store.aclose()
    reports = {m.model.key: m.report for m in kept if m.report is not None}
    assert len(kept) == len(reports) == 4
    for key, truth in TRUTHS.items():
        report = reports[key]
        assert report is not None
        assert report.true_context is not None
        assert 0 <= truth - report.true_context < step_at(truth, 64)
    acks = [line for key in TRUTHS for line in (folder / key / "acks").read_text().splitlines()]
    stored = Counter(m.id for m in kept for _ in m.trials)
    assert stored == Counter(json.loads(line)[0] for line in acks if line != "finished")
