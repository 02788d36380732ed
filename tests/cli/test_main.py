"""The group: help, version, global options, errors to exit codes."""

from __future__ import annotations

import pytest
from cli_shell import ScriptedAdapter, Shell

from lmstrix.errors import (
    EngineUnavailable,
    InvalidModel,
    LMStrixError,
    LoadFailed,
    PluginNotFound,
    StoreError,
)
from lmstrix.models import Cause
from lmstrix.testing.samples import sample_report
from lmstrix_cli import errors, main
from lmstrix_cli.errors import ExitCode, code_of_error, code_of_report
from lmstrix_cli.settings import Settings


def test_help_lists_every_command_and_exit_code(shell: Shell) -> None:
    text = shell.run("--help").stdout
    assert all(f"  {name} " in text for name in main.COMMANDS)
    assert all(f"  {code.value}  " in text for code in ExitCode)


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_each_command_explains_itself(shell: Shell, name: str) -> None:
    result = shell.run(name, "--help")
    assert result.exit_code == 0
    assert "Examples:" in result.stdout
    assert "\b" not in result.stdout


def test_options_come_from_the_environment(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTRIX_ADAPTER", "lmstudio")
    monkeypatch.setenv("LMSTRIX_HOST", "127.0.0.1:9")
    monkeypatch.setenv("LMSTRIX_STORE", "elsewhere.db")
    shell.run("list")
    settings = shell.settings
    assert settings is not None
    assert (settings.adapter, settings.host, settings.store) == (
        "lmstudio",
        "127.0.0.1:9",
        "elsewhere.db",
    )


def test_the_command_to_go_on_is_quoted_and_does_not_start_afresh() -> None:
    settings = Settings(arguments=("--store", "my store", "test", "--fresh", "m.gguf"))
    assert settings.command_again() == "lmstrix --store 'my store' test m.gguf"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PluginNotFound("x"), 2),
        (EngineUnavailable("x"), 3),
        (InvalidModel("x"), 4),
        (LoadFailed("x"), 1),
        (StoreError("x"), 1),
        (LMStrixError("x"), 1),
    ],
)
def test_errors_have_exit_codes(error: LMStrixError, code: int) -> None:
    assert code_of_error(error) == code


def test_a_model_that_never_loads_is_not_measurable() -> None:
    report = sample_report(cause=Cause.LOAD_FAILED, true_context=None)
    assert code_of_report(report) == 4


def test_an_error_is_two_lines_without_a_traceback(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(
        listing_error=EngineUnavailable("no \x1b[2J answer", hint="Start\nit.")
    )
    result = shell.run("scan")
    assert result.exit_code == 3
    assert result.stdout == ""
    error, hint = result.stderr.splitlines()
    assert error == "Error: no model was found. no \\x1b[2J answer"
    assert hint.startswith("Hint: Start\\x0ait. ")


def test_a_bug_is_said_to_be_one_and_shows_its_traceback_only_when_asked(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(listing_error=RuntimeError("oops"))
    result = shell.run("scan")
    assert result.exit_code == 1
    assert "this is a bug" in result.stderr.lower()
    assert "Traceback" not in result.stderr
    verbose = shell.run("--verbose", "scan")
    assert verbose.exit_code == 1
    assert "Traceback" in verbose.stderr


def test_a_reader_that_goes_away_is_no_error(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(listing_error=BrokenPipeError(32, "Broken pipe"))
    result = shell.run("scan")
    assert result.exit_code == 1
    assert result.output == ""


def test_ctrl_c_outside_of_the_event_loop(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.explain(KeyboardInterrupt(), verbose=False) == 5
    assert capsys.readouterr().err == "Interrupted.\n"
