"""A write that is interrupted anywhere leaves the old file or the new one, whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lmstrix
from lmstrix.settings import SettingsError, files, plan_change

FOLDER = Path(".internal", "user-concrete-model-default-config")
DATA = Path(__file__).parent / "data" / "home" / FOLDER
PRETTY = (DATA / "google" / "gemma-3-4b.json").read_bytes().decode()
GEMMA = "google/gemma-3-4b"
NEW = PRETTY.replace("4096", "6144").encode()
ROOT = Path(lmstrix.__file__).parents[1]

KILLED = """
import os, signal, sys
from pathlib import Path
from lmstrix.settings import plan_change, plan_undo

home, target, act, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
original = target.read_bytes() if target.exists() else None
OF_PATHS = {"open", "write_bytes", "write_text", "replace", "chmod", "unlink", "mkdir", "rmdir"}
os.fsync = lambda handle: None  # a kill loses nothing that was written; only waiting is saved


def attempt(lines):
    # In the child: dies before the given line of Python, wherever that is.
    plan = plan_change(home, name, 6144) if act == "write" else plan_undo(home, name)

    def trace(frame, event, arg):
        nonlocal lines
        code = frame.f_code
        if "settings" not in code.co_filename and code.co_name not in OF_PATHS:
            return None
        if event == "line":
            lines -= 1
            if lines < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    plan.write()
    sys.settrace(None)


for lines in range(100_000):
    child = os.fork()
    if not child:
        attempt(lines)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = target.read_bytes() if target.exists() else None
    print(os.WTERMSIG(status), "none" if found is None else found.hex(), flush=True)
    if not status:
        break
    if found == original:
        continue
    if act == "write":  # whatever was written can be taken back
        plan_undo(home, name).write()
        assert (target.read_bytes() if target.exists() else None) == original
    else:
        plan_change(home, name, 6144).write()
"""


def kill_everywhere(home: Path, act: str, name: str) -> list[bytes | None]:
    """What the file holds after a SIGKILL before the first line of Python, the second, ..."""
    target = home / FOLDER / f"{name}.json"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(home), str(target), act, name],
        cwd=ROOT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    *killed, (last, _) = lines
    assert last == "0"
    assert len(killed) > 20
    assert {signal for signal, _ in killed} == {"9"}
    return [None if found == "none" else bytes.fromhex(found) for _, found in lines]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, no fork there")
@pytest.mark.parametrize("act", ["write", "undo"])
def test_killed_at_any_step_the_old_or_the_new_file_is_whole(home: Path, act: str) -> None:
    if act == "undo":
        plan_change(home, GEMMA, 6144).write()
    found = kill_everywhere(home, act, GEMMA)
    old, new = (PRETTY.encode(), NEW) if act == "write" else (NEW, PRETTY.encode())
    assert set(found) == {old, new}
    assert (found[0], found[-1]) == (old, new)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, no fork there")
def test_killed_while_the_first_settings_are_written_and_taken_back(home: Path) -> None:
    *found, last = kill_everywhere(home, "write", "new/model")
    assert last is not None
    assert set(found) == {None, last}
    assert not plan_change(home, "new/model", 6144).needed
    *found, gone = kill_everywhere(home, "undo", "new/model")
    assert gone is None
    assert set(found) == {None, last}


@pytest.mark.parametrize("name", [GEMMA, "new/deep/model"])
@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("good", [0, 1])
def test_a_failing_step_changes_nothing_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: str, good: int
) -> None:
    owner: Any = os if call == "fsync" else Path
    real = getattr(owner, call)
    calls: list[str] = []

    def failing(*args: Any) -> Any:
        calls.append(call)
        if len(calls) > good:
            raise OSError(28, "No space left on device")
        return real(*args)

    before = {path: path.is_file() and path.read_bytes() for path in home.rglob("*")}
    change = plan_change(home, name, 6144)
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, failing)
        with pytest.raises(SettingsError, match="No space left"):
            change.write()
    assert len(calls) > good
    assert {path: path.is_file() and path.read_bytes() for path in home.rglob("*")} == before


def test_a_write_that_did_not_arrive_is_noticed(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = plan_change(home, GEMMA, 6144)
    real = files.put

    def lossy(path: Path, content: bytes, *, like: Path | None = None) -> None:
        real(path, content[:-1] if path == change.path else content, like=like)

    monkeypatch.setattr(files, "put", lossy)
    with pytest.raises(SettingsError, match="does not hold what was written"):
        change.write()
