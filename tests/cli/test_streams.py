"""Streams that are missing, closed or full."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_shell import SOURCES

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="this system has no full device")


def run(
    tmp_path: Path,
    *words: str,
    close: int = -1,
    stdout: int = subprocess.DEVNULL,
    stderr: int = subprocess.PIPE,
) -> tuple[int, str]:
    """Exit code and stderr of ``lmstrix``, started without the descriptor `close`."""
    environment = SOURCES | {
        "HOME": str(tmp_path),
        "LMSTRIX_STORE": str(tmp_path / "store.sqlite3"),
    }
    before: Callable[[], None] | None = None
    if close >= 0:
        before = lambda: os.close(close)  # noqa: E731 - short
    done = subprocess.run(
        [sys.executable, "-m", "lmstrix_cli", *words],
        stdout=stdout,
        stderr=stderr,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=30,
        check=False,
        env=environment,
        preexec_fn=before,
    )
    return done.returncode, done.stderr or ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows closes no descriptors so")
@pytest.mark.parametrize(
    ("close", "words", "code"), [(0, "import -", 1), (1, "list", 0), (2, "apply nosuch", 4)]
)
def test_a_missing_stream_is_like_a_null_device(
    tmp_path: Path, close: int, words: str, code: int
) -> None:
    found, said = run(tmp_path, *words.split(), close=close)
    assert found == code
    assert "bug" not in said


@needs_full
@pytest.mark.parametrize("words", ["--version", "list"])
def test_a_full_disk_behind_stdout_is_no_bug_of_ours(tmp_path: Path, words: str) -> None:
    with FULL.open("w") as full:
        code, said = run(tmp_path, *words.split(), stdout=full.fileno())
    assert code == 1
    assert said.startswith("Error: stdout cannot be written: No space left on device\nHint: ")
    assert said.count("\n") == 2


@needs_full
def test_a_full_disk_behind_stderr_changes_no_exit_code(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        assert run(tmp_path, "apply", "nosuch", stderr=full.fileno())[0] == 4


def test_a_pipe_that_nobody_writes_to_is_named(tmp_path: Path) -> None:
    words = ["--store", "memory", "infer", str(tmp_path / "away.gguf"), "Why?"]
    with subprocess.Popen(
        [sys.executable, "-m", "lmstrix_cli", *words],
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
