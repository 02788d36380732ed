"""export and import: results from one store to another."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cli_shell import Shell

from lmstrix import dump_report
from lmstrix.testing.samples import sample_report


@pytest.fixture
def exported(shell: Shell, tmp_path: Path) -> Path:
    """An export of a store that holds one small measurement."""
    shell.run("test", "simulated", "--max-context", "1k", "--no-certify", code=0)
    file = tmp_path / "results.json"
    result = shell.run("export", str(file), code=0)
    assert "1 measurement, 1 report" in result.stderr
    return file


def test_another_store_has_it_after_an_import(shell: Shell, exported: Path, tmp_path: Path) -> None:
    listed, text = shell.run("list", "--json").stdout, shell.run("export").stdout
    assert json.loads(text) == json.loads(exported.read_text())
    shell.store = tmp_path / "other.sqlite3"
    dry = shell.run("import", str(exported), "--dry-run")
    assert "would add 1 measurement with" in dry.stdout
    assert "Nothing measured yet" in shell.run("list").stdout
    assert "added 1 measurement with" in shell.run("import", str(exported)).stdout
    assert shell.run("list", "--json").stdout == listed
    again = shell.run("import", "-", typed=text).stdout
    assert "stdin: added 0 measurements" in again
    assert "1 already in the store" in again


def test_what_was_added_before_an_error(shell: Shell, exported: Path, tmp_path: Path) -> None:
    shell.store = tmp_path / "other.sqlite3"
    document = json.loads(exported.read_text())
    document["measurements"][0]["key"] += "!"
    clash = tmp_path / "clash.json"
    clash.write_text(json.dumps(document))
    result = shell.run("import", str(exported), str(clash), code=1)
    assert "added 1 measurement" in result.stdout
    assert "nothing of it was merged" in result.stderr


def test_a_file_is_not_replaced_unasked(shell: Shell, exported: Path) -> None:
    before = exported.read_bytes()
    refused = shell.run("export", str(exported))
    assert (refused.exit_code, exported.read_bytes()) == (1, before)
    assert "--force" in refused.stderr
    shell.run("export", str(exported), "--force", code=0)
    assert not list(exported.parent.glob(".lmstrix-*"))


def test_an_unsound_file_adds_nothing(shell: Shell, exported: Path, tmp_path: Path) -> None:
    shell.store = tmp_path / "other.sqlite3"
    bad = tmp_path / "bad.json"
    bad.write_text(exported.read_text().replace('"length_tokens"', '"length_apples"', 1))
    words, reports = tmp_path / "words.txt", tmp_path / "reports.jsonl"
    words.write_text("hello")
    reports.write_text(dump_report(sample_report()) + "\n")
    for source, code, said in (
        (bad, 1, "bad.json' is not an export of a store"),
        (bad, 1, "Nothing was added"),
        (words, 1, "words.txt' is not an LMStrix export"),
        (reports, 1, "lmstrix report --from"),
        (tmp_path / "away.json", 2, "does not exist"),
        (tmp_path, 2, "is a directory"),
    ):
        result = shell.run("import", str(exported), str(source), code=code)
        assert said in result.stderr
        assert "_Head" not in result.stderr
    assert "Nothing measured yet" in shell.run("list").stdout


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_pipe_stays(shell: Shell, exported: Path, tmp_path: Path, force: tuple[str, ...]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Opened first and without waiting: where nobody writes, nobody hangs.
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        result = shell.run("export", str(pipe), *force)
        assert (result.exit_code, pipe.is_fifo()) == (0, True), result.stderr
        assert os.read(reader, 1 << 20) == exported.read_bytes()
    finally:
        os.close(reader)
    assert "irectory" in shell.run("export", str(tmp_path), *force).stderr


@pytest.mark.skipif(os.name != "posix", reason="links and permissions as there")
def test_an_export_is_a_file_like_any_other(shell: Shell, exported: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.touch()
    assert exported.stat().st_mode == new.stat().st_mode
    exported.chmod(0o640)
    link = tmp_path / "link.json"
    link.symlink_to(exported)
    shell.run("export", str(link), "--force", code=0)
    assert link.is_symlink()
    assert stat.S_IMODE(exported.stat().st_mode) == 0o640
