"""Measurements that contend for a machine or a server take turns, whatever becomes of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from processes import started, until
from simulations import BOTH_LOOPS, measure, only

from lmstrix import LMStrix, MeasureOptions
from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.errors import ConfigurationError
from lmstrix.events import Event, MeasurementStarted, WaitingForTurn
from lmstrix.locks import FOLDER_VARIABLE, THIS_MACHINE, Holder, hold_turn, turns_folder
from lmstrix.measure.options import MapOptions
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=1024, true_context=10**6)
QUICK = MeasureOptions(certify=False)

HOLDS = """
import sys, anyio
from pathlib import Path
from lmstrix.locks import hold_turn

async def hold():
    for _ in range(int(sys.argv[2])):
        async with hold_turn("r", sys.argv[1], lambda holder: None):
            with Path(sys.argv[3]).open("a") as log:
                print("begin", sys.argv[1], file=log, flush=True)
                await anyio.sleep(float(sys.argv[4]))
                print("end", sys.argv[1], file=log, flush=True)

anyio.run(hold)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for each test, which is not there yet."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "state" / "turns"))
    return tmp_path / "state" / "turns"


def holder(
    name: str, log: Path, *, times: int, seconds: float
) -> AbstractContextManager[subprocess.Popen[str]]:
    return started("-c", HOLDS, name, str(times), str(log), str(seconds))


@asynccontextmanager
async def somebody_has(resource: str) -> AsyncGenerator[None]:
    """Another task has the turn."""

    async def hold(*, task_status: TaskStatus[None]) -> None:
        async with hold_turn(resource, "someone's", lambda holder: None):
            task_status.started()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        await tasks.start(hold)
        yield
        tasks.cancel_scope.cancel()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
async def test_a_turn_dies_with_its_holder(tmp_path: Path) -> None:
    log, heard = tmp_path / "log", list[Holder]()
    with holder("held", log, times=1, seconds=3600) as process:
        await until(log.exists)
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:

                async def wait() -> None:
                    async with hold_turn("r", "next", heard.append):
                        assert process.wait(30) == -signal.SIGKILL

                group.start_soon(wait)
                await until(lambda: heard)
                process.kill()
    assert heard[0] == Holder(pid=process.pid, model_key="held")


async def test_four_processes_never_overlap(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ExitStack() as stack:
        holders = [holder(name, log, times=2, seconds=0.02) for name in "abcd"]
        processes = [stack.enter_context(one) for one in holders]
        assert [process.wait(60) for process in processes] == [0] * 4
    lines = log.read_text().splitlines()
    assert sorted(lines[::2]) == [f"begin {name}" for name in "aabbccdd"]
    assert [line.replace("begin", "end") for line in lines[::2]] == lines[1::2]


class Shared(SimulatedAdapter):
    """One machine: counts how many models are loaded at once."""

    turn = "a machine"
    now = most = 0

    @asynccontextmanager
    async def load(self, *args: Any, **rest: Any) -> AsyncGenerator[Any, None]:
        async with super().load(*args, **rest) as loaded:
            type(self).now += 1
            type(self).most = max(self.most, self.now)
            try:
                yield loaded
            finally:
                type(self).now -= 1


@BOTH_LOOPS
async def test_measurements_and_maps_of_one_process_wait_too() -> None:
    Shared.most, events = 0, list[Event]()
    store = SqliteStore(":memory:")
    clients = [
        LMStrix(adapter=Shared(MODEL), store=store, observers=[events.append]) for _ in range(3)
    ]
    async with anyio.create_task_group() as group:
        group.start_soon(clients[0].find_true_context, "m", QUICK)
        group.start_soon(clients[1].find_true_context, "m", QUICK)
        group.start_soon(clients[2].map_context, "m", MapOptions(lengths=2, trials=2))
    assert Shared.most == 1
    waits = {(event.pid, event.holder_key) for event in only(WaitingForTurn, events)}
    assert waits >= {(os.getpid(), "m")}
    # Each was a measurement of its own: what was waited for was not gone on with.
    assert [event.resumed_trials for event in only(MeasurementStarted, events)] == [0, 0]
    assert not list(turns_folder().glob("*.json"))


@BOTH_LOOPS
async def test_a_wait_can_be_cancelled_and_costs_no_budget() -> None:
    client = LMStrix(adapter=Shared(MODEL), store="memory")
    async with somebody_has("a machine"):
        with anyio.move_on_after(0.5) as scope:
            await client.find_true_context("m")
        assert scope.cancelled_caught
    report = await client.find_true_context("m", MeasureOptions(budget_s=30))
    assert report.true_context == 1024


async def test_a_reply_that_waits_for_its_turn_says_so() -> None:
    client = LMStrix(adapter=Shared(MODEL), store="memory")
    notes: list[str] = []
    async with somebody_has("a machine"):
        with anyio.move_on_after(0.5):
            async with client.stream("m", "Hello", on_note=notes.append):
                pass
    assert notes == [f"waiting for process {os.getpid()} to measure someone's"]


@BOTH_LOOPS
async def test_a_task_does_not_wait_for_its_own_turn() -> None:
    client = LMStrix(adapter=Shared(MODEL), store="memory")
    async with client.stream("m", "Hello"):
        with anyio.fail_after(5), pytest.raises(ConfigurationError, match="this task still uses"):
            await client.infer("m", "Hello")
        async with anyio.create_task_group() as tasks:  # another one waits as ever
            tasks.start_soon(client.infer, "m", "Hello")
            await anyio.sleep(0.1)
            tasks.cancel_scope.cancel()
    assert (await client.infer("m", "Hello")).text


async def test_what_is_told_of_a_holder_is_not_trusted(folder: Path) -> None:
    said = ["", "[]", "{", '{"pid": -1, "model": 5}', '{"pid": true, "model": ["x"]}', "[" * 9999]
    for text in said:
        heard: list[Holder] = []
        async with somebody_has("r"):
            (told,) = folder.glob("*.json")  # noqa: ASYNC240 - a test may wait
            told.write_text(text)
            with anyio.move_on_after(0.1):
                async with hold_turn("r", "n", heard.append):
                    pytest.fail("two had the turn")
        assert heard == [Holder()]


async def test_where_no_lock_can_be_made_it_is_noted(folder: Path) -> None:
    folder.parent.write_text("a file, not a folder")
    report = await measure(Shared(MODEL), QUICK)
    assert report.true_context == 1024
    assert any("no lock was created" in note for note in report.notes)


@pytest.mark.parametrize(
    ("host", "turn"),
    [
        *((host, THIS_MACHINE) for host in (None, "127.0.0.1:1234", "localhost:1", "[::1]:1234")),
        ("Lab.example:1234", "LM Studio at lab.example:1234"),
        ("192.0.2.7:1234", "LM Studio at 192.0.2.7:1234"),
    ],
)
def test_what_has_turns(host: str | None, turn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LMSTRIX_HOST", raising=False)
    assert LMStudioAdapter(host).turn == turn
    assert LlamaCppAdapter().turn == THIS_MACHINE
    assert not hasattr(SimulatedAdapter(), "turn")
