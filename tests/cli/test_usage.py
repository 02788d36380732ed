"""Wrong usage: exit code 2, and a message that says what to type."""

from __future__ import annotations

import pytest
from cli_shell import REAL, Shell

from lmstrix_cli import session


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--json list", "--json is an option of list and belongs after it"),
        ("--store x --json list", "lmstrix list --json ..."),
        ("tets", "No such command 'tets'. Did you mean 'test'?"),
        ("help nosuch", "No such command 'nosuch'."),
        ("a/model.gguf", "To measure a model: lmstrix test a/model.gguf"),
        ("a/\x1b[2J", "No such command 'a/\\x1b[2J'.\n"),
        ("list --nam x", "'--name'"),
        ("--nosuch list", "No such option '--nosuch'."),
    ],
)
def test_what_may_have_been_meant(shell: Shell, typed: str, said: str) -> None:
    result = shell.run(*typed.split(" "))
    assert result.exit_code == 2
    assert said in result.stderr
    assert "\x1b" not in result.stderr


def test_without_a_command_one_screen_says_how_to_begin(shell: Shell) -> None:
    result = shell.run()
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    for words in ("how much context", "lmstrix demo", "20 min", "true   ", "certified", "--help"):
        assert words in result.stderr


@pytest.mark.parametrize(
    "typed",
    [
        "--nosuch",
        "--log-file . list",
        "--adapter nosuch doctor",
        "apply",
        "apply m --all",
        "apply --all --undo",
        "apply m --percent 50 --cap 4k",
        "apply m --percent 0",
        "apply m --cap 0",
        "apply m --undo --cap 4k",
        "apply m --undo --for ollama",
        "apply m --home . --for ollama",
        "apply m --home no-such-folder",
        "apply m --yes --dry-run",
        "apply m --for vllm",
        "completion tcsh",
        "compare --format table -o x",
        "compare -o x",
        "import",
        "import - -",
        "infer only-a-model",
        "list --sort nosuch",
        "list --json --format csv",
        "report --from nothing-there",
        "report --from - --map -",
        "report --open --format md",
        "report --open -o -",
        "report m --all",
        "scan --min-size 2g --max-size 1g",
        "test",
        "test --all fine",
        "test --all --min-size huge",
        "test --name x",
        "test fine --at 1k --max-context 2k",
        "test fine --at 100",
        "test fine --max-context 0",
        "test fine --max-context 100",
        "test fine --max-memory much",
        "test fine --name x",
        "test fine --budget soon",
        "test fine --strategy nosuch",
        "test fine --tolerance 1",
        "test fine --validator nosuch",
    ],
)
def test_wrong_usage(shell: Shell, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr(session, "open_client", REAL)
    result = shell.run("--store", "memory", *typed.split(" "))
    assert result.exit_code == 2
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr
