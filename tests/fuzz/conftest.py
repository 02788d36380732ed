"""A home of its own for every test here, which nothing may change; and the counts at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz_counts import COUNTS, table

HOMES = (
    *("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA"),
    *(f"XDG_{kind}_HOME" for kind in ("CONFIG", "DATA", "CACHE", "STATE")),
)


@pytest.fixture(autouse=True)
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and a working folder that must stay as they are, and a folder for temporary files."""
    home, work, scratch = (tmp_path / name for name in ("home", "work", "scratch"))
    for folder in (home, work, scratch):
        folder.mkdir()
    for folder in (home, work, tmp_path):
        (folder / "passwd").write_text("untouched")
    for name in HOMES:
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr("os.fsync", _no_waiting)  # nothing here is about a power cut
    monkeypatch.chdir(work)
    before = _snapshot(tmp_path)
    yield home
    assert _snapshot(tmp_path) == before


def _no_waiting(_: int) -> None:
    return None


def _snapshot(folder: Path) -> dict[str, object]:
    """Everything below `folder` but the insides of the folder for temporary files."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if path.name != "scratch":
            # A folder's own times tell of what was put there by a test and taken away again.
            written = status.st_mtime_ns if path.is_file() else None
            found[str(path)] = (status.st_mode, status.st_size, written)
    return found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTS:
        terminalreporter.section("fuzzed")
        for line in table():
            terminalreporter.write_line(line)
