"""Streams that are missing, closed, full or a terminal, where Ctrl-C is typed."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_shell import DRIVER, SOURCES

if sys.platform != "win32":
    import fcntl
    import pty
    import termios

FULL = Path("/dev/full")


def run(tmp_path: Path, words: str, **streams: Any) -> tuple[int, str]:
    """Exit code and stderr of ``lmstrix``."""
    environment = {"HOME": str(tmp_path), "LMSTRIX_STORE": str(tmp_path / "store.sqlite3")}
    usual = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    pipes: dict[str, Any] = usual | streams
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [sys.executable, "-m", "lmstrix", *words.split()],
        text=True,
        timeout=30,
        check=False,
        env=SOURCES | environment,
        **pipes,
    )
    return done.returncode, done.stderr or ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows closes no descriptors so")
@pytest.mark.parametrize(
    ("close", "words", "code"), [(0, "import -", 1), (1, "list", 0), (2, "apply nosuch", 4)]
)
def test_a_missing_stream_is_a_null_device(
    tmp_path: Path, close: int, words: str, code: int
) -> None:
    found, said = run(tmp_path, words, preexec_fn=partial(os.close, close))
    assert found == code
    assert "bug" not in said


@pytest.mark.skipif(not FULL.exists(), reason="this system has no full device")
def test_a_full_disk_is_no_bug_of_ours(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        for words in ("--version", "--store memory list"):
            code, said = run(tmp_path, words, stdout=full.fileno())
            assert code == 1
            assert said.startswith(
                "Error: stdout cannot be written: No space left on device\nHint:"
            )
            assert said.count("\n") == 2
        assert run(tmp_path, "apply nosuch", stderr=full.fileno())[0] == 4


def test_a_pipe_that_nobody_writes_to_is_named(tmp_path: Path) -> None:
    words = ["--store", "memory", "infer", str(tmp_path / "away.gguf"), "Why?"]
    with subprocess.Popen(
        [sys.executable, "-m", "lmstrix", *words],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | SOURCES | {"HOME": str(tmp_path)},
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        close = threading.Timer(20, process.stdin.close)  # a program that says nothing ends too
        close.start()
        said = process.stderr.readline()
        close.cancel()
        assert "Waiting for text on stdin" in said
        process.stdin.close()
        assert "Error: " in process.stderr.read()
        assert process.wait(timeout=30) == 4


CODE = DRIVER.format(
    adapter="""
adapter = SimulatedAdapter(SimulatedModel(key="m", declared=16384), reply_seconds=0.05)
"""
)


def watch(terminal: int, ctrl_c_after: str) -> str:
    """All that appears; Ctrl-C is typed once, as soon as `ctrl_c_after` is to be seen."""
    screen, typed, deadline = "", False, time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            read = os.read(terminal, 65536)
        except OSError:  # Linux says that nobody holds the other end any more
            break
        if not read:
            break
        screen += read.decode()
        if ctrl_c_after in screen and not typed:
            os.write(terminal, b"\x03")
            typed = True
    return screen


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_live_line_and_ctrl_c() -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", CODE, "--store", "memory", "test", "m"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        # The child's own terminal, from which Ctrl-C comes. This process has one thread here.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        env=os.environ | SOURCES | {"TERM": "xterm", "NO_COLOR": "", "COLUMNS": "100"},
    ) as process:
        os.close(theirs)
        try:
            screen = watch(ours, "correct to ")
            assert process.wait(timeout=30) == 5
        finally:
            process.kill()
    os.close(ours)
    assert " at " in screen
    drawn, _, after = screen.rpartition("\x1b[?25h")  # the cursor came back before the report
    assert "\x1b[?25l" in drawn
    wiped, _, report = after.rpartition("\x1b[2K")
    assert "m" not in wiped
    assert report.startswith("m (simulated")
    assert "\x1b[1mtrue " in report  # a terminal gets colours
    report = re.sub(r"\x1b\[[0-9;]*m", "", report)
    assert "cause: interrupted." in report
    assert "To continue: lmstrix --store memory test m" in report
    assert "\x1b" not in report
    assert "Traceback" not in screen
