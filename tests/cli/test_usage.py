"""What is typed: values, wrong usage with a message that says what to type, errors, help."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest
from cli_shell import REAL, ScriptedAdapter, Shell

from lmstrix.errors import EngineUnavailable
from lmstrix_cli import main, session
from lmstrix_cli.errors import ExitCode
from lmstrix_cli.options import DURATION, SHARE, SIZE, TOKENS


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
        ("test m --at 1k --min-speed 20", "cannot be combined"),
        ("test m --at 1k --max-ttft 5s", "cannot be combined"),
        ("test m --at 1k --documents 3", "cannot be combined with --documents"),
        ("test m --at 1k --no-certify", "cannot be combined with --no-certify"),
        ("--adapter ollama --declared 5 scan", "--declared is for --adapter openai"),
        ("--adapter lmstudio --yes scan", "--yes is for --adapter openai"),
        ("--adapter openai --binary x scan", "--binary is for --adapter llama-server"),
        ("--store memory --adapter llama-server --server-args=-n scan", "--binary"),
        ("--store memory --adapter llama-server --binary /no/such scan", "not a program"),
    ],
)
def test_suggestions(shell: Shell, monkeypatch: pytest.MonkeyPatch, typed: str, said: str) -> None:
    monkeypatch.setattr(session, "open_client", REAL)
    result = shell.run(*typed.split(" "), code=2)
    assert said in result.stderr
    assert "\x1b" not in result.stderr


WRONG_USAGE = """
--nosuch | --log-file . list | --adapter nosuch doctor | completion tcsh | infer only-a-model
apply | apply m --all | apply --all --undo | apply m --percent 50 --cap 4k | apply m --percent 0
apply m --cap 0 | apply m --undo --cap 4k | apply m --undo --for ollama | apply m --for vllm
apply m --home . --for ollama | apply m --home no-such-folder | apply m --yes --dry-run
compare --format table -o x | compare -o x | import | import - - | scan --min-size 2g --max-size 1g
list --sort nosuch | list --json --format csv | report --from nothing-there | report m --all
report --from - --map - | report --open --format md | report --open -o - | test | test --name x
test --all fine | test --all --min-size huge | test fine --at 1k --max-context 2k
test fine --at 100 | test fine --max-context 0 | test fine --max-context 100 | test fine --name x
test fine --max-memory much | test fine --budget soon | test fine --strategy nosuch
test fine --tolerance 1 | test fine --validator nosuch | bench fine --max-context 100
"""


@pytest.mark.parametrize("typed", re.split(r" \| |\n", WRONG_USAGE.strip()))
def test_wrong_usage(shell: Shell, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.setattr(session, "open_client", REAL)
    result = shell.run("--store", "memory", *typed.split(" "), code=2)
    assert "Error: " in result.stderr
    assert "Traceback" not in result.stderr


def test_without_a_command_one_screen_says_how_to_begin(shell: Shell) -> None:
    result = shell.run()
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    for words in ("how much context", "lmstrix demo", "25 min", "true   ", "certified", "--help"):
        assert words in result.stderr


def test_help_lists_every_command_and_exit_code(shell: Shell) -> None:
    text = shell.run("--help").stdout
    assert all(f"  {name} " in text for name in main.COMMANDS)
    assert all(f"  {code.value}  " in text for code in ExitCode)


def test_aliases(shell: Shell) -> None:
    assert shell.run("ls", "--json").stdout == shell.run("list", "--json").stdout
    assert "Commands:" in shell.run("help").stdout
    assert shell.run("help", "test").stdout == shell.run("test", "--help").stdout
    shell.run("help", "ls", code=0)


# Values.

TYPED: dict[click.ParamType[Any, Any], dict[str, float]] = {
    TOKENS: {"8192": 8192, "8k": 8192, "8_192": 8192, "8,192": 8192, "128K": 2**17, "1m": 2**20},
    DURATION: {"90s": 90, "10m": 600, "1h": 3600, "1h30m": 5400, "1h2m3s": 3723},
    SHARE: {"0.85": 0.85, "1/64": 1 / 64, "1": 1, ".5": 0.5},
    SIZE: {"4g": 4 * 10**9, "500MB": 5 * 10**8, "1.5 GiB": 3 * 2**29, "12000000": 12 * 10**6},
}
WRONG = {
    TOKENS: ["", "0", "-1", "1.5k", "8kk", "k", "٣", "8__1", "8,1", "8,19", "9" * 99, "nan"],
    DURATION: ["", "0", "0s", "m", "10", "1h30", "10m1h", "1d", "-5", "inf", "9" * 99],
    SHARE: ["", "0", "-1", "2", "nan", "inf", "1/0", "3/2", "1e-3", "x"],
    SIZE: ["", "4x", "ib", "-1", "1i"],
}


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in TYPED for text in TYPED[kind]])
def test_what_is_typed_is_understood(kind: click.ParamType[Any, Any], text: str) -> None:
    assert kind.convert(text, None, None) == TYPED[kind][text]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in WRONG for text in WRONG[kind]])
def test_what_is_none_of_its_kind_is_refused(kind: click.ParamType[Any, Any], text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


def test_without_a_unit_the_units_are_named() -> None:
    with pytest.raises(click.BadParameter, match=r"10s, 10m or 10h"):
        DURATION.convert("10", None, None)
    with pytest.raises(click.BadParameter, match=r"8 has no unit: write 8m or 8g"):
        SIZE.convert("8", None, None)


# Errors.


def test_an_error_is_two_lines_without_a_traceback(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(
        listing_error=EngineUnavailable("no \x1b[2J answer", hint="Start\nit.")
    )
    result = shell.run("scan")
    assert (result.exit_code, result.stdout) == (3, "")
    error, hint = result.stderr.splitlines()
    assert error == "Error: no model was found. no \\x1b[2J answer"
    assert hint.startswith("Hint: Start\\x0ait. ")


def test_a_bug_is_said_to_be_one_and_shows_its_traceback_only_when_asked(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(listing_error=RuntimeError("oops"))
    for words, traced in ((("scan",), False), (("--verbose", "scan"), True)):
        result = shell.run(*words, code=1)
        assert "this is a bug" in result.stderr.lower()
        assert ("Traceback" in result.stderr) is traced


def test_a_reader_that_goes_away_is_no_error(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(listing_error=BrokenPipeError(32, "Broken pipe"))
    result = shell.run("scan")
    assert (result.exit_code, result.output) == (1, "")
