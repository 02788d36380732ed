"""Ctrl-C: everything is kept, the partial report is printed, the same command goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from cli_shell import DRIVER, ScriptedAdapter, Shell
from processes import started

from lmstrix.errors import EngineUnavailable
from lmstrix_cli import session

HANGING = """
class Hanging(SimulatedAdapter):
    async def before_reply(self, prompt_tokens):
        if self.counters.replies == {hangs_after}:
            print("it hangs", file=sys.stderr, flush=True)
            await anyio.sleep(3600)

    @asynccontextmanager
    async def load(self, model, context_length, **rest):
        try:
            if {load_hangs}:
                print("it hangs", file=sys.stderr, flush=True)
                await anyio.sleep(3600)
            async with super().load(model, context_length, **rest) as loaded:
                yield loaded
        finally:
            with anyio.CancelScope(shield=True):
                print("releasing", file=sys.stderr, flush=True)
                await anyio.sleep({release_s})

adapter = Hanging(SimulatedModel(key="m", declared=4096, true_context=3000), owns_engine=True)
"""
HANGS_S = 60.0
"""Only a process that hangs takes longer, on a slow machine too."""


@pytest.fixture(autouse=True)
def sighup() -> Generator[None]:
    """Not ignored, which processes inherit: the tests themselves may run under ``nohup``."""
    number = getattr(signal, "SIGHUP", None)
    before = signal.signal(number, signal.SIG_DFL) if number else None
    yield
    if number:
        signal.signal(number, before)


@contextmanager
def start(
    store: Path, *, hangs_after: int = -1, load_hangs: bool = False, release_s: float = 0.0
) -> Generator[subprocess.Popen[str]]:
    adapter = HANGING.format(hangs_after=hangs_after, load_hangs=load_hangs, release_s=release_s)
    code = DRIVER.format(adapter=adapter)
    words = ("-c", code, "--store", str(store), "test", "m", "--json")
    with started(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        yield process


def read_until(process: subprocess.Popen[str], mark: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if mark in line:
            return
    pytest.fail(f"{mark!r} never came")


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child on Windows")
def test_the_same_command_goes_on_after_a_signal(tmp_path: Path) -> None:
    for name in ("SIGHUP", "SIGTERM", "SIGINT"):
        store = tmp_path / f"{name}.db"
        with start(store, hangs_after=20) as process:
            read_until(process, "it hangs")
            process.send_signal(signal.Signals[name])
            out, err = process.communicate(timeout=HANGS_S)
        report = json.loads(out)
        found = (process.returncode, report["cause"], report["certified"])
        assert found == (5, "interrupted", False)
        assert f"To continue: lmstrix --store {store} test m --json" in err
        assert "Traceback" not in err
    with start(tmp_path / "SIGINT.db") as again:
        out, err = again.communicate(timeout=HANGS_S)
    assert again.returncode == 0
    assert "continuing after" in err
    assert json.loads(out)["cause"] == "forgets"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
def test_nohup_keeps_it_running(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with start(tmp_path / "s.db") as process:
            read_until(process, " of ")
            process.send_signal(signal.SIGHUP)
            out, _ = process.communicate(timeout=HANGS_S)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert process.returncode == 0
    assert json.loads(out)["cause"] == "forgets"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child on Windows")
def test_the_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with start(tmp_path / "s.db", hangs_after=20, release_s=3600) as process:
        read_until(process, "it hangs")
        process.send_signal(signal.SIGINT)
        read_until(process, "releasing")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=HANGS_S)
    assert process.returncode == 130


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child on Windows")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])  # by name: Windows has but the first
def test_only_two_kills_blame_the_size_that_was_being_loaded(tmp_path: Path, name: str) -> None:
    number = signal.Signals[name]
    store = tmp_path / "s.db"
    for _ in range(2):
        with start(store, load_hangs=True, release_s=3600) as process:
            read_until(process, "it hangs")
            process.send_signal(number)
            if number == signal.SIGINT:
                read_until(process, "releasing")  # the load still hangs: the second signal ends it
                process.send_signal(signal.SIGINT)
            process.communicate(timeout=HANGS_S)
    with start(store) as again:
        out, _ = again.communicate(timeout=HANGS_S)
    report = json.loads(out)
    blamed = any("earlier runs died" in note for note in report["notes"])
    assert blamed == (name == "SIGKILL")
    assert report["certified"] != blamed


async def _raise_signal_and_wait() -> str:
    signal.raise_signal(signal.SIGINT)
    await anyio.sleep(30)
    return "not reached"


async def _raise_signal_and_lose_the_engine() -> str:
    try:
        return await _raise_signal_and_wait()
    except BaseException as error:
        raise EngineUnavailable("it died of the same Ctrl-C") from error


@pytest.mark.parametrize("body", [_raise_signal_and_wait, _raise_signal_and_lose_the_engine])
def test_a_signal_cancels_the_body(body: session.Body[str]) -> None:
    with pytest.raises(session.Interrupted):
        session.run(body)


def test_a_late_signal_does_not_take_the_result_away() -> None:
    async def finish_anyway() -> int:
        signal.raise_signal(signal.SIGINT)
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.05)
        return 42

    assert session.run(finish_anyway) == 42


def test_the_adapters_warnings_are_shown(shell: Shell) -> None:
    class Warns(ScriptedAdapter):
        warnings = ("the model \x1b[31mx is still loaded",)

    shell.adapter = Warns()
    assert "the model \\x1b[31mx is still loaded" in shell.run("scan").stderr
