"""Writing, reading back, backing up and taking back, on copies of real-looking homes."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmstrix.settings import SettingsError, plan_change, plan_undo

FOLDER = Path(".internal", "user-concrete-model-default-config")
DATA = Path(__file__).parent / "data" / "home" / FOLDER
PRETTY = (DATA / "google" / "gemma-3-4b.json").read_bytes().decode()
COMPACT = (DATA / "LiquidAI" / "LFM2-GGUF" / "LFM2.gguf.json").read_bytes().decode()
CONTEXT = "llm.load.contextLength"
GEMMA = "google/gemma-3-4b"
LFM = "LiquidAI/LFM2-GGUF/LFM2.gguf"
VARIANT = "google/gemma-3-4b@lms/gemma-GGUF/gemma-Q8_0.gguf"


def everything(folder: Path) -> dict[str, bytes | None]:
    """All that is below `folder`: bytes of files, None for folders."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_existing_settings_are_kept(home: Path) -> None:
    change = plan_change(home, GEMMA, 6144)
    assert (change.old_context, change.needed) == (4096, True)
    assert change.difference.splitlines()[2:] == [
        "@@ -24,5 +24,5 @@",
        "       {",
        '         "key": "llm.load.contextLength",',
        '-        "value": 4096',
        '+        "value": 6144',
        "       },",
        "       {",
    ]
    before = everything(home)
    backup = change.write()
    assert backup is not None
    assert backup.read_bytes() == PRETTY.encode()
    assert change.path.read_bytes() == PRETTY.replace("4096", "6144").encode()
    after = everything(home)
    assert set(after) - set(before) == {backup.relative_to(home).as_posix()}
    assert not backup.name.endswith(".json")


def test_a_long_line_elsewhere_does_not_hide_the_difference(home: Path) -> None:
    path = home / FOLDER / f"{GEMMA}.json"
    entry = {"key": CONTEXT, "value": 4096}
    path.write_text(json.dumps({"note": "x" * 500, "load": {"fields": [entry]}}, indent=1))
    assert '-    "value": 4096' in plan_change(home, GEMMA, 6144).difference.splitlines()
    path.write_text(json.dumps({"load": {"fields": [{**entry, "note": "x" * 500}]}}, indent=1))
    lines = plan_change(home, GEMMA, 6144).difference.splitlines()
    assert '+    "value": 6144,' in lines
    assert max(len(line) for line in lines[2:]) == 201
    assert lines[-2].endswith("x…")
    path.write_text(json.dumps({"note": "x" * 500, "load": {"fields": [entry]}}))
    assert plan_change(home, GEMMA, 6144).difference == ""


def test_planning_writes_nothing(home: Path) -> None:
    before = everything(home)
    for name in (GEMMA, LFM, VARIANT, "new/model"):
        plan_change(home, name, 6144)
    assert everything(home) == before


@pytest.mark.parametrize("name", [GEMMA, LFM, VARIANT, "new/publisher/model.gguf", "alone"])
def test_undo_is_exact_to_the_byte(home: Path, name: str) -> None:
    before = everything(home)
    plan_change(home, name, 6144).write()
    assert everything(home) != before
    undo = plan_undo(home, name)
    assert undo.contexts[0] == 6144
    undo.write()
    assert everything(home) == before
    with pytest.raises(SettingsError, match="nothing to take back"):
        plan_undo(home, name)


def test_a_fresh_home_without_any_settings(tmp_path: Path) -> None:
    home = tmp_path.resolve() / "fresh"
    (home / ".internal").mkdir(parents=True)
    before = everything(home)
    change = plan_change(home, GEMMA, 6144)
    assert change.before is None
    assert change.difference.startswith("--- (no file)")
    change.write()
    written = json.loads((home / FOLDER / f"{GEMMA}.json").read_text())
    assert written["load"] == {"fields": [{"key": CONTEXT, "value": 6144}]}
    plan_undo(home, GEMMA).write()
    assert everything(home) == before


def test_undo_leaves_folders_that_somebody_else_uses(home: Path) -> None:
    plan_change(home, "new/repo/model.gguf", 6144).write()
    theirs = home / FOLDER / "new" / "theirs.json"
    theirs.write_text("{}")
    plan_undo(home, "new/repo/model.gguf").write()
    assert theirs.read_text() == "{}"
    assert not (theirs.parent / "repo").exists()


def test_changes_are_taken_back_one_by_one(home: Path) -> None:
    path = home / FOLDER / f"{GEMMA}.json"
    for context in (8192, 16384, 8192):
        plan_change(home, GEMMA, context).write()
    found: list[Any] = []
    for _ in range(3):
        plan_undo(home, GEMMA).write()
        found.append(json.loads(path.read_text())["load"]["fields"][1]["value"])
    assert found == [16384, 8192, 4096]
    assert path.read_bytes() == PRETTY.encode()


def test_nothing_is_written_where_it_says_so_already(home: Path) -> None:
    before = everything(home)
    change = plan_change(home, GEMMA, 4096)
    assert not change.needed
    assert change.difference == ""
    assert change.write() is None
    assert everything(home) == before


def test_undo_does_not_take_back_somebody_elses_change(home: Path) -> None:
    backup = plan_change(home, GEMMA, 6144).write()
    path = home / FOLDER / f"{GEMMA}.json"
    path.write_text(path.read_text(encoding="utf-8").replace("6144", "7000"), encoding="utf-8")
    with pytest.raises(SettingsError, match="changed since") as caught:
        plan_undo(home, GEMMA)
    assert str(backup) in caught.value.hint
    path.unlink()
    with pytest.raises(SettingsError):
        plan_undo(home, GEMMA)


def test_a_file_that_was_new_and_changed_since_is_not_said_to_be_in_its_backup(home: Path) -> None:
    backup = plan_change(home, "new/model", 6144).write()
    (home / FOLDER / "new" / "model.json").write_text("{}")
    with pytest.raises(SettingsError, match="changed since") as caught:
        plan_undo(home, "new/model")
    assert str(backup) not in caught.value.hint
    assert "remove it" in caught.value.hint


def test_a_damaged_backup_is_not_put_back(home: Path) -> None:
    backup = plan_change(home, GEMMA, 6144).write()
    assert backup is not None
    backup.write_bytes(PRETTY.encode()[:-5])
    before = everything(home)
    with pytest.raises(SettingsError, match="is damaged"):
        plan_undo(home, GEMMA)
    assert everything(home) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b"[]", b'{"load": 1}', PRETTY.encode()[:-3]],
)
def test_what_is_not_understood_is_never_touched(home: Path, content: bytes) -> None:
    path = home / FOLDER / f"{GEMMA}.json"
    path.write_bytes(content)
    before = everything(home)
    with pytest.raises(SettingsError, match="cannot be changed") as caught:
        plan_change(home, GEMMA, 6144)
    assert str(path) in str(caught.value)
    assert "left as it is" in caught.value.hint
    assert everything(home) == before


def test_what_is_no_plain_file_is_refused(home: Path) -> None:
    (home / FOLDER / "google" / "folder.json").mkdir()
    with pytest.raises(SettingsError, match="no plain file"):
        plan_change(home, "google/folder", 6144)
    with pytest.raises(SettingsError, match="cannot be written"):
        plan_change(home, f"{GEMMA}.json/inner", 6144).write()
    if hasattr(os, "mkfifo"):
        os.mkfifo(home / FOLDER / "google" / "pipe.json")
        with pytest.raises(SettingsError, match="no plain file"):
            plan_change(home, "google/pipe", 6144)


def test_a_huge_file_is_not_read(home: Path) -> None:
    with (home / FOLDER / f"{GEMMA}.json").open("r+b") as file:
        file.truncate(100 * 1024**2)
    with pytest.raises(SettingsError, match="too large"):
        plan_change(home, GEMMA, 6144)


def test_a_file_that_changed_after_it_was_shown_is_left_alone(home: Path) -> None:
    change = plan_change(home, GEMMA, 6144)
    change.path.write_text("{}")
    before = everything(home)
    with pytest.raises(SettingsError, match="a moment ago"):
        change.write()
    assert everything(home) == before
    fresh = plan_change(home, "new/model", 6144)
    fresh.path.parent.mkdir()
    fresh.path.write_text("{}")
    with pytest.raises(SettingsError, match="a moment ago"):
        fresh.write()
    assert fresh.path.read_text() == "{}"


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
def test_permissions_stay(home: Path) -> None:
    path = home / FOLDER / f"{GEMMA}.json"
    path.chmod(0o600)
    backup = plan_change(home, GEMMA, 6144).write()
    assert backup is not None
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path, backup)] == [0o600, 0o600]
    plan_undo(home, GEMMA).write()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions there")
def test_what_is_private_is_so_before_it_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / FOLDER / f"{GEMMA}.json").chmod(0o600)
    seen: list[int] = []
    sync = os.fsync

    def look(handle: int) -> None:
        mode = os.fstat(handle).st_mode
        if stat.S_ISREG(mode):
            seen.append(stat.S_IMODE(mode))
        sync(handle)

    monkeypatch.setattr(os, "fsync", look)
    plan_change(home, GEMMA, 6144).write()
    assert seen == [0o600, 0o600]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_inside_the_home_is_followed_and_stays(home: Path) -> None:
    link = home / FOLDER / "google" / "twin.json"
    link.symlink_to(home / FOLDER / f"{LFM}.json")
    plan_change(home, "google/twin", 6144).write()
    assert link.is_symlink()
    assert "6144" in (home / FOLDER / f"{LFM}.json").read_text()
    plan_undo(home, "google/twin").write()
    assert (home / FOLDER / f"{LFM}.json").read_text() == COMPACT


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3),
    st.sampled_from([None, 2, "\t"]),
    st.sampled_from(["", "\n", "\r\n \t"]),
    st.integers(1, 10**7),
)
def test_any_file_comes_back_to_the_byte(
    home: Path, other: dict[str, str], indent: int | str | None, end: str, context: int
) -> None:
    path = home / FOLDER / "any.json"
    document: dict[str, Any] = {"other": other, "load": {"fields": []}}
    content = (json.dumps(document, indent=indent) + end).encode()
    path.write_bytes(content)
    plan_change(home, "any", context).write()
    assert json.loads(path.read_bytes())["other"] == other
    plan_undo(home, "any").write()
    assert path.read_bytes() == content
