"""Whole measurements on the real model in the real engine, disturbed on purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from simulations import only

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.events import Event, PrefillProgressed, Retrying
from lmstrix.ports import Observer

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals and no `ps`"),
]

SMALL = MeasureOptions(max_context=640, certify=False)


def engine_processes() -> list[int]:
    """Engine processes that this process started and that still run."""
    listing = subprocess.run(
        ["ps", "-axwwo", "pid=,ppid=,stat=,command="], capture_output=True, text=True, check=True
    )
    rows = [line.split(None, 3) for line in listing.stdout.splitlines()]
    return [
        int(pid)
        for pid, parent, state, command in (row for row in rows if len(row) == 4)
        if int(parent) == os.getpid() and "child.py" in command and not state.startswith("Z")
    ]


def is_reading(event: Event) -> bool:
    """Whether `event` stands in the middle of a prefill, with more of the prompt to come."""
    return (
        isinstance(event, PrefillProgressed)
        and 0 < event.progress.processed_tokens < event.progress.prompt_tokens
    )


def fills_all(event: Event) -> bool:
    """Whether `event` stands anywhere in a prefill of the largest length."""
    return isinstance(event, PrefillProgressed) and event.length_tokens == SMALL.max_context


def client(*observers: Observer) -> LMStrix:
    # One thread: where other work shares the cores, two wait for each other at every step.
    adapter = LlamaCppAdapter(threads=1)
    return LMStrix(adapter=adapter, levels=(), store="memory", observers=observers)


async def test_cancelled_in_a_prefill_it_leaves_no_process(demo_model: Path) -> None:
    reading = anyio.Event()

    def watch(event: Event) -> None:
        if is_reading(event):
            reading.set()

    async with client(watch) as lmstrix:
        async with anyio.create_task_group() as group:
            group.start_soon(lmstrix.find_true_context, str(demo_model), SMALL)
            with anyio.fail_after(120):
                await reading.wait()
            assert len(engine_processes()) == 1
            group.cancel_scope.cancel()
        assert engine_processes() == []
        assert [m.path for m in await lmstrix.unfinished_models()] == [str(demo_model)]


class Killer:
    """Kills the engine at events for which `when` holds, `times` times."""

    def __init__(self, times: int, when: Callable[[Event], bool]) -> None:
        self._left = times
        self._when = when

    def __call__(self, event: Event) -> None:
        if self._left and self._when(event):
            self._left -= 1
            for pid in engine_processes():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
async def test_one_killed_engine_is_no_limit(demo_model: Path) -> None:
    events: list[Event] = []
    async with client(events.append) as lmstrix:
        report = await lmstrix.find_true_context(
            str(demo_model), SMALL, observers=[Killer(1, is_reading)]
        )
    assert (report.true_context, report.cause) == (640, Cause.MAX_CONTEXT)
    assert report.cost.loads == 2
    (retry,) = only(Retrying, events)
    assert "SIGKILL" in retry.reason
    assert engine_processes() == []


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_an_engine_that_dies_every_time_is_one(demo_model: Path) -> None:
    killer = Killer(99, fills_all)
    async with client() as lmstrix:
        report = await lmstrix.find_true_context(str(demo_model), SMALL, observers=[killer])
    assert report.cause is Cause.CRASHED_ON_FILL
    assert report.bracket == (report.true_context, 640) == (576, 640)
    assert engine_processes() == []
