from __future__ import annotations

import json
from pathlib import Path

import attrs
import platformdirs
import pytest
from anyio.from_thread import start_blocking_portal
from cli_shell import NOBODY, REAL, ScriptedAdapter, Shell, made

from lmstrix.models import LoadedInstance, Status
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.samples import sample_model
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix_cli import session

EVIL = "evil\x1b]0;title\x07[red]\u202e"


def test_names_cannot_steer_the_terminal(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(listing=[sample_model(key=EVIL, quantization="\x9b31m")])
    text = shell.run("scan").stdout
    assert not set("\x1b\x07\u202e\x9b") & set(text)
    assert "evil\\x1b]0;title\\x07[red]\\u202e" in text


def test_scan_says_where_it_looked_when_nothing_is_there(shell: Shell) -> None:
    status = Status(
        adapter="x", engine="y", available=True, model_folders=("/models/one", "/models/two")
    )
    shell.adapter = ScriptedAdapter(listing=[], status=status)
    result = shell.run("scan")
    assert result.exit_code == 0
    for expected in ("No models found", "/models/one", "/models/two", "lmstrix demo", ".gguf"):
        assert expected in result.stdout
    assert shell.run("scan", "--json").stdout == ""


GGUF = b"GGUF" + bytes(60)
"""Not a sound model, but a file to be listed."""


@pytest.fixture
def files(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The embedded engine's model folder, and LM Studio away."""
    monkeypatch.setattr(session, "open_client", REAL)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LMSTRIX_HOST", NOBODY)
    monkeypatch.setenv("LMSTRIX_STORE", "memory")
    folder = platformdirs.user_cache_path("lmstrix") / "models"
    folder.mkdir(parents=True)
    return folder


def test_scan_lists_files_without_lm_studio(shell: Shell, files: Path) -> None:
    (files / "one.gguf").write_bytes(GGUF)
    result = shell.run("scan", "--json")
    assert result.exit_code == 0
    assert NOBODY in result.stderr
    [found] = [json.loads(line) for line in result.stdout.splitlines()]
    assert found["key"] == str(files / "one.gguf")  # what `lmstrix test` takes
    for named in (("--host", NOBODY), ("--adapter", "lmstudio")):
        assert shell.run("scan", "--json", *named).exit_code == 3


def test_scan_with_neither_lm_studio_nor_files(shell: Shell, files: Path) -> None:
    result = shell.run("scan")
    assert result.exit_code == 3
    assert NOBODY in result.stderr
    assert "lmstrix demo" in result.stderr


def test_scan_lists_lm_studios_models_and_other_files(
    shell: Shell, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files / "one.gguf").write_bytes(GGUF)
    engine = SimulatedAdapter(SimulatedModel(key="served"))
    server = LMStudioServer(engine)
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(server):
        monkeypatch.setenv("LMSTRIX_HOST", server.host)
        result = shell.run("scan", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    keys = [json.loads(line)["key"] for line in result.stdout.splitlines()]
    assert keys == ["served", str(files / "one.gguf")]


def test_list_shows_what_was_measured(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(SimulatedModel(declared=2048, true_context=10**6))
    [printed] = shell.lines("test", "simulated", "--json", "--no-certify")
    shell.adapter = ScriptedAdapter()
    head, row = shell.run("list").stdout.splitlines()
    assert head.split() == "MODEL DECLARED LOADABLE TRUE CAUSE CERTIFIED SPEED AGE".split()
    expected = ["simulated", "2,048", "2,048", "2,048", "declared", "maximum", "no"]
    assert row.split()[:7] == expected
    assert row.endswith("now")
    assert shell.lines("list", "--json") == [printed]


def test_list_names_servers_where_results_are_of_several(shell: Shell) -> None:
    report = made("m")
    elsewhere = attrs.evolve(report.environment, adapter="ollama")
    shell.remember(report, attrs.evolve(report, environment=elsewhere))
    head, *rows = shell.run("list").stdout.splitlines()
    assert head.endswith("SERVER")
    assert {row.split()[-1] for row in rows} == {"ollama", report.environment.adapter}


def test_status_shows_engine_store_and_what_is_loaded(shell: Shell) -> None:
    theirs = LoadedInstance(key="theirs", identifier="1", context_length=4096)
    shell.adapter = ScriptedAdapter(
        status=Status(
            adapter="x", engine="llama.cpp", available=True, versions={"b": "123"}, loaded=(theirs,)
        )
    )
    result = shell.run("status")
    assert result.exit_code == 0
    for expected in ("llama.cpp", "b 123", str(shell.store), "theirs", "4,096", "another program"):
        assert expected in result.stdout
    [document] = shell.lines("status", "--json")
    assert document["available"] is True
    assert document["loaded"][0]["key"] == "theirs"
    assert str(shell.store) in document["store"]
    assert document["unfinished"] == []
