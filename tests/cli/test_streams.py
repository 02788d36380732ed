"""Streams that are missing, closed or full; lines that are too long for a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from cli_shell import Shell

from lmstrix_cli import main, output, session

ROOT = Path(main.__file__).parents[2]
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
    environment: Mapping[str, str] = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}",
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


@pytest.mark.parametrize("name", ["thesis.txt", "other.db"])
def test_what_is_no_store_is_left_where_it_is(tmp_path: Path, name: str) -> None:
    """A mistyped --store must not move a file away, as a damaged store would be."""
    file = tmp_path / name
    if name.endswith("db"):
        import sqlite3  # noqa: PLC0415 - here only

        with sqlite3.connect(file) as other:
            other.execute("CREATE TABLE mine (x)")
        other.close()
    else:
        file.write_text("years of work")
    before = file.read_bytes()
    shell = Shell(tmp_path / "unused.sqlite3")
    result = shell.run("--store", str(file), "list")
    assert result.exit_code == 1
    assert "is not a store of LMStrix" in result.stderr
    assert file.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == [name]
    assert session.choose_store(str(tmp_path / "new")) == tmp_path / "new"


def test_long_lines_break_between_words_and_never_in_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    command = "lmstrix test a-model-with-a-long-name --max-context 4096"
    text = f"Hint: Look at what there is, and measure it to the end: {command}\nshort"
    shown = io.StringIO()
    with redirect_stdout(shown):
        output.out(output.prose(text, "say so: `a b c d e f g h i j k l m n o p q r s t u v` now"))
    assert shown.getvalue().splitlines() == [
        "Hint: Look at what there is, and measure it to the",
        "end:",
        command,
        "short",
        "say so:",
        "`a b c d e f g h i j k l m n o p q r s t u v` now",
    ]


def test_a_pipe_that_nobody_writes_to_is_named(tmp_path: Path) -> None:
    words = ["--store", "memory", "infer", str(tmp_path / "away.gguf"), "Why?"]
    with subprocess.Popen(
        [sys.executable, "-m", "lmstrix_cli", *words],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'cli'}", "HOME": str(tmp_path)},
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
