"""Changes, backups and undo, on copies of real-looking homes of LM Studio."""

from __future__ import annotations

import json
import math
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import lmstrix
from lmstrix.apply import CONTEXT_KEY, lmstudio, plan_change, plan_undo
from lmstrix.errors import SettingsError

FOLDER = Path(".internal", "user-concrete-model-default-config")
DATA = Path(__file__).parent / "data" / "home" / FOLDER
PRETTY = (DATA / "google" / "gemma-3-4b.json").read_bytes()
COMPACT = (DATA / "LiquidAI" / "LFM2-GGUF" / "LFM2.gguf.json").read_bytes()
GEMMA = "google/gemma-3-4b"
LFM = "LiquidAI/LFM2-GGUF/LFM2.gguf"
VARIANT = "google/gemma-3-4b@lms/gemma-GGUF/gemma-Q8_0.gguf"
ENTRY = {"key": CONTEXT_KEY, "value": 6144}


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@contextmanager
def refused(home: Path, match: str) -> Generator[pytest.ExceptionInfo[SettingsError]]:
    """A `SettingsError` in the block, which changes no file."""
    before = files(home)
    with pytest.raises(SettingsError, match=match) as caught:
        yield caught
    assert files(home) == before


def test_one_setting_changes_and_a_backup_is_left(home: Path) -> None:
    change = plan_change(home, GEMMA, 6144)
    assert (change.old_context, change.new_context, change.needed) == (4096, 6144, True)
    assert change.difference.splitlines()[2:7] == [
        "@@ -24,5 +24,5 @@",
        "       {",
        '         "key": "llm.load.contextLength",',
        '-        "value": 4096',
        '+        "value": 6144',
    ]
    before = files(home)
    backup = change.write()
    assert backup is not None
    assert backup.read_bytes() == PRETTY
    assert not backup.name.endswith(".json")
    expected = json.loads(PRETTY)
    expected["load"]["fields"][1]["value"] = 6144
    written = change.path.read_text(encoding="utf-8")
    assert written == json.dumps(expected, indent=2, ensure_ascii=False)
    assert set(files(home)) - set(before) == {backup.relative_to(home).as_posix()}


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({}, [ENTRY]),
        ({"load": {}}, [ENTRY]),
        ({"load": {"fields": [{"key": "a"}]}}, [{"key": "a"}, ENTRY]),
        (
            {"load": {"fields": [{"key": CONTEXT_KEY, "value": 0.5}, {"key": "b"}]}},
            [ENTRY, {"key": "b"}],
        ),
    ],
)
def test_the_setting_is_added_or_replaced(home: Path, document: Any, fields: Any) -> None:
    path = home / FOLDER / "m.json"
    path.write_text(json.dumps(document | {"other": 1e-7}))
    plan_change(home, "m", 6144).write()
    assert json.loads(path.read_text()) == {"load": {"fields": fields}, "other": 1e-7}


@pytest.mark.parametrize("wrong", [math.nan, -5, 0, True, "8k", 1.5, 2**63])
def test_only_a_context_length_is_written(home: Path, wrong: Any) -> None:
    with refused(home, "not a context length"):
        plan_change(home, "m", wrong)


@pytest.mark.parametrize("name", [GEMMA, LFM, VARIANT, "new/publisher/model.gguf", "alone"])
def test_undo_restores_every_byte(home: Path, name: str) -> None:
    before = files(home)
    for change in (plan_change(home, name, 5120), plan_change(home, name, 6144)):
        assert files(home) == before
        assert change.needed
    change.write()
    undo = plan_undo(home, name)
    assert undo.old_context == 6144
    assert '-        "value": 6144' in undo.difference
    undo.write()
    assert files(home) == before
    assert sorted(path.name for path in (home / FOLDER).iterdir()) == ["LiquidAI", "google"]
    with pytest.raises(SettingsError, match="nothing to undo"):
        plan_undo(home, name)


def test_the_first_settings_of_a_home(tmp_path: Path) -> None:
    home = tmp_path.resolve() / "fresh"
    (home / ".internal").mkdir(parents=True)
    change = plan_change(home, GEMMA, 6144)
    assert change.difference.startswith("--- (no file)")
    change.write()
    written = json.loads((home / FOLDER / f"{GEMMA}.json").read_text())
    assert written == {"preset": "", "operation": {"fields": []}, "load": {"fields": [ENTRY]}}
    plan_undo(home, GEMMA).write()
    assert files(home) == {}


def test_undo_leaves_folders_that_somebody_else_uses(home: Path) -> None:
    plan_change(home, "new/repo/model.gguf", 6144).write()
    theirs = home / FOLDER / "new" / "theirs.json"
    theirs.write_text("{}")
    plan_undo(home, "new/repo/model.gguf").write()
    assert theirs.read_text() == "{}"
    assert not (theirs.parent / "repo").exists()


def test_changes_are_taken_back_one_by_one(home: Path) -> None:
    for context in (8192, 16384, 8192):
        plan_change(home, GEMMA, context).write()
    for context in (16384, 8192, 4096):
        plan_undo(home, GEMMA).write()
        assert plan_change(home, GEMMA, 1).old_context == context
    assert (home / FOLDER / f"{GEMMA}.json").read_bytes() == PRETTY


def test_nothing_is_written_if_the_context_is_set_already(home: Path) -> None:
    before = files(home)
    change = plan_change(home, GEMMA, 4096)
    assert (change.needed, change.difference, change.write()) == (False, "", None)
    assert files(home) == before


def test_undo_does_not_take_back_somebody_elses_change(home: Path) -> None:
    backup = plan_change(home, GEMMA, 6144).write()
    path = home / FOLDER / f"{GEMMA}.json"
    path.write_bytes(path.read_bytes().replace(b"6144", b"7000"))
    with refused(home, "has changed since") as caught:
        plan_undo(home, GEMMA)
    assert str(backup) in caught.value.hint
    path.unlink()
    with refused(home, r"\w"):
        plan_undo(home, GEMMA)
    plan_change(home, "new/model", 6144).write()
    (home / FOLDER / "new" / "model.json").write_text("{}")
    with refused(home, "has changed since") as caught:
        plan_undo(home, "new/model")
    assert "remove it" in caught.value.hint


def test_a_damaged_backup_is_not_put_back(home: Path) -> None:
    backup = plan_change(home, GEMMA, 6144).write()
    assert backup is not None
    backup.write_bytes(PRETTY[:-5])
    with refused(home, "is damaged"):
        plan_undo(home, GEMMA)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"{}//x", b"{}\0", b"\xef\xbb\xbf{}", "{}".encode("utf-16")),
        *(b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": 1e400}', b'{"a": "\\ud800"}', b"[" * 100_000),
        *(b'{"a":' + b"9" * 5000 + b"}", b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        *(b'{"load": 1}', b'{"load": {"fields": {}}}', PRETTY[:-3]),
        *(
            json.dumps({"load": {"fields": fields}}).encode()
            for fields in (
                *([1], [{"key": 1}], [ENTRY, ENTRY], [{"key": CONTEXT_KEY}]),
                [{"key": CONTEXT_KEY, "value": True}],
            )
        ),
    ],
    ids=lambda content: ascii(content[:40]),
)
def test_a_file_that_is_not_understood_is_left_alone(home: Path, content: bytes) -> None:
    path = home / FOLDER / f"{GEMMA}.json"
    path.write_bytes(content)
    with refused(home, "cannot be changed") as caught:
        plan_change(home, GEMMA, 6144)
    assert str(path) in str(caught.value)
    assert "left as it is" in caught.value.hint


def test_what_is_not_a_regular_file_is_refused(home: Path) -> None:
    (home / FOLDER / "google" / "folder.json").mkdir()
    with pytest.raises(SettingsError, match="not a regular file"):
        plan_change(home, "google/folder", 6144)
    with pytest.raises(SettingsError, match="cannot be written"):
        plan_change(home, f"{GEMMA}.json/inner", 6144).write()
    if hasattr(os, "mkfifo"):
        os.mkfifo(home / FOLDER / "google" / "pipe.json")
        with pytest.raises(SettingsError, match="not a regular file"):
            plan_change(home, "google/pipe", 6144)
    with (home / FOLDER / f"{GEMMA}.json").open("r+b") as file:
        file.truncate(100 * 1024**2)
    with pytest.raises(SettingsError, match="too large"):
        plan_change(home, GEMMA, 6144)


def test_a_file_that_changed_after_it_was_shown_is_left_alone(home: Path) -> None:
    for name in (GEMMA, "new/model"):
        change = plan_change(home, name, 6144)
        change.path.parent.mkdir(exist_ok=True)
        change.path.write_text("{}")
        with refused(home, "has changed"):
            change.write()


def test_of_concurrent_changes_one_wins_and_the_others_are_told(home: Path) -> None:
    changes = [plan_change(home, GEMMA, 5120 + 256 * n) for n in range(8)]

    def write(change: lmstudio.Change) -> bool:
        try:
            return change.write() is not None
        except SettingsError as error:
            assert "Try again." in error.hint  # noqa: PT017 - in a thread
            return False

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, changes))
    assert sum(won) == 1
    path = home / FOLDER / f"{GEMMA}.json"
    assert path.read_bytes() == changes[won.index(True)].after
    plan_undo(home, GEMMA).write()
    assert path.read_bytes() == PRETTY
    assert len(files(home)) == 5


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

    before = sorted(home.rglob("*")), files(home)
    change = plan_change(home, name, 6144)
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, failing)
        with pytest.raises(SettingsError, match="No space left"):
            change.write()
    assert len(calls) > good
    assert (sorted(home.rglob("*")), files(home)) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from lmstrix.apply import plan_change, plan_undo

home, target, act, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]
original = target.read_bytes() if target.exists() else None
os.fsync = lambda handle: None  # a kill loses nothing that was written


def plan():
    return plan_change(home, name, 6144) if act == "write" else plan_undo(home, name)


def attempt(lines):
    def trace(frame, event, arg):
        nonlocal lines
        if not frame.f_code.co_filename.endswith(("apply/lmstudio.py", "lmstrix/files.py")):
            return None
        if event == "line":
            lines -= 1
            if lines < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    change = plan()
    sys.settrace(trace)
    change.write()
    sys.settrace(None)


for lines in range(10_000):
    child = os.fork()
    if not child:
        attempt(lines)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = target.read_bytes() if target.exists() else None
    print(os.WTERMSIG(status), "none" if found is None else found.hex(), flush=True)
    if not status:
        break
    if found != original:  # whatever was done can be done back
        (plan_undo(home, name) if act == "write" else plan_change(home, name, 6144)).write()
        assert act == "undo" or (target.read_bytes() if target.exists() else None) == original
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, no fork there")
@pytest.mark.parametrize("act", ["write", "undo"])
@pytest.mark.parametrize("name", [GEMMA, "new/model"])
def test_killed_at_any_line_the_old_or_new_file_is_whole(home: Path, act: str, name: str) -> None:
    target = home / FOLDER / f"{name}.json"
    old, new = target.read_bytes() if target.exists() else None, plan_change(home, name, 6144).after
    if act == "undo":
        plan_change(home, name, 6144).write()
        old, new = new, old
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(home), str(target), act, name],
        cwd=Path(lmstrix.__file__).parents[1],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert [code for code, _ in lines] == [f"{signal.SIGKILL:d}"] * (len(lines) - 1) + ["0"]
    found = [None if content == "none" else bytes.fromhex(content) for _, content in lines]
    assert set(found) == {old, new}
    assert (found[0], found[-1]) == (old, new)


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
def test_permissions_hold_from_the_start(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = home / FOLDER / f"{GEMMA}.json"
    path.chmod(0o600)
    seen: list[int] = []
    sync = os.fsync

    def look(handle: int) -> None:
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode):
            seen.append(stat.S_IMODE(mode))
        sync(handle)

    monkeypatch.setattr(os, "fsync", look)
    backup = plan_change(home, GEMMA, 6144).write()
    assert backup is not None
    assert [*seen, *(stat.S_IMODE(p.stat().st_mode) for p in (path, backup))] == [0o600] * 4
    plan_undo(home, GEMMA).write()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_inside_the_home_is_followed_and_stays(home: Path) -> None:
    link = home / FOLDER / "google" / "twin.json"
    link.symlink_to(home / FOLDER / f"{LFM}.json")
    plan_change(home, "google/twin", 6144).write()
    assert link.is_symlink()
    assert b"6144" in (home / FOLDER / f"{LFM}.json").read_bytes()
    plan_undo(home, "google/twin").write()
    assert (home / FOLDER / f"{LFM}.json").read_bytes() == COMPACT
