"""On a real terminal: one live line, and Ctrl-C typed on the keyboard."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import time

import pytest
from cli_shell import DRIVER, SOURCES

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals", allow_module_level=True)

import fcntl
import pty
import termios

COLOURS = re.compile(r"\x1b\[[0-9;]*m")

CODE = DRIVER.format(
    adapter="""
adapter = SimulatedAdapter(SimulatedModel(key="m", declared=16384), reply_seconds=0.05)
"""
)


def own_terminal() -> None:
    """In the child: the pseudo-terminal on stdin becomes the one that Ctrl-C comes from."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


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


def run_on_terminal(*arguments: str, ctrl_c_after: str) -> tuple[int, str]:
    """Exit code and all that appeared on the screen."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", CODE, "--store", "memory", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=own_terminal,  # noqa: PLW1509 - this process has one thread here
        env=os.environ | SOURCES | {"TERM": "xterm", "NO_COLOR": "", "COLUMNS": "100"},
    ) as process:
        os.close(theirs)
        try:
            screen = watch(ours, ctrl_c_after)
            code = process.wait(timeout=30)
        finally:
            process.kill()
    os.close(ours)
    return code, screen


def test_a_live_line_and_ctrl_c() -> None:
    code, screen = run_on_terminal("test", "m", ctrl_c_after="correct to ")
    assert code == 5
    assert " at " in screen
    drawn, _, after = screen.rpartition("\x1b[?25h")  # the cursor came back before the report
    assert "\x1b[?25l" in drawn
    wiped, _, report = after.rpartition("\x1b[2K")
    assert "m" not in wiped
    assert report.startswith("m (simulated")
    assert "\x1b[1mtrue " in report  # a terminal gets colours
    report = COLOURS.sub("", report)
    assert "cause: interrupted." in report
    assert "To continue: lmstrix --store memory test m" in report
    assert "\x1b" not in report
    assert "Traceback" not in screen
