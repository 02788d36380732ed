"""What a person sees: it fits the terminal, is painted only if wanted, and says what to do next."""

from __future__ import annotations

import io
import re
import sys
from contextlib import redirect_stderr, redirect_stdout

import attrs
import pytest
from cli_shell import NOBODY, REAL, ScriptedAdapter, Shell, made
from rich.cells import cell_len

from lmstrix.models import Cause, Region, RegionReport
from lmstrix.testing.simulated import SimulatedModel
from lmstrix_cli import session
from lmstrix_cli.main import COMMANDS, lmstrix

LONG = "someone/a-model-with-a-rather-long-name-that-is-hard-to-fit-8x22b-instruct-q4_k_m"


class Output(io.TextIOWrapper):
    """A stream in memory that may say that it is a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        self.seek(0)
        return self.read()


def on_terminal(patch: pytest.MonkeyPatch, width: int, *words: str) -> str:
    """What a command shows on a terminal of this width."""
    patch.setenv("COLUMNS", str(width))
    patch.setenv("TERM", "xterm-256color")
    out, err = Output(terminal=True), Output(terminal=False)
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit):
        lmstrix(list(words), prog_name="lmstrix")
    return out.text()


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """Four results in the store."""
    reports = [
        made("google/gemma-3-4b", 3),
        made(LONG, 4, declared_context=10**7, loadable_context=10**7, true_context=131072),
        made("模型/七", 5, cause=Cause.BUDGET_SPENT, certified=False),
        made("clueless", 6, true_context=None, cause=Cause.NOT_MEASURABLE, certified=False),
    ]

    shell.remember(*reports)
    shell.adapter = ScriptedAdapter(listing=[report.model for report in reports])
    return shell


@pytest.mark.parametrize("width", [80, 160])
def test_tables_fit_the_terminal(
    filled: Shell, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    for command in ("scan", "list"):
        lines = plain(on_terminal(monkeypatch, width, command))
        assert "MODEL" in lines[0]
        assert "TRUE" in lines[0]
        assert any("google" in line and "8,192" in line for line in lines)
        assert max(map(cell_len, lines)) <= width


def plain(shown: str) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()


def test_a_plan_of_large_models_is_a_table(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    huge = SimulatedModel(key="llama-4-scout-17b-16e-instruct", declared=10**7)
    shell.adapter = ScriptedAdapter(huge)
    lines = plain(on_terminal(monkeypatch, 80, "test", "--all", "--dry-run"))
    assert lines[0].split() == ["MODEL", "PLAN", "LARGEST", "MEMORY", "FITS", "TOKENS", "TIME"]
    assert "21M to 43M" in lines[1]
    assert max(map(len, lines)) <= 80


def test_a_comparison_of_many_cuts_nothing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = tuple(
        RegionReport(region=one, limit_tokens=6144, bracket=(6144, high), cause=Cause.GIBBERISH)
        for one, high in zip(Region, (6400, 6400, 6400, 6400, 6656), strict=True)
    )
    kept = tuple(attrs.evolve(one, limit_tokens=6400) for one in lost)
    shell.remember(
        *(made(f"{n}-{LONG}", n, regions=kept, cause=Cause.GIBBERISH) for n in (1, 2, 3))
    )
    lines = plain(on_terminal(monkeypatch, 80, "compare"))
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["#", "MODEL", "DECL", "LOAD", "TRUE", "CERT", "CAUSE"]
    words = " ".join(lines).split()
    assert words.count("8,192") >= 6
    assert words.count("6,144") >= 3


def test_a_folded_name_breaks_between_its_parts(
    filled: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = plain(on_terminal(monkeypatch, 80, "scan"))
    [at] = [number for number, line in enumerate(lines) if line.startswith("someone")]
    folded = [line.split(" ")[0] for line in lines[at:]]
    assert "".join(folded).startswith(LONG)
    assert [part[-1] for part in folded[:3]] == ["-", "-", "-"]


@pytest.mark.parametrize(
    "command",
    ["scan --format csv", "list --format csv", "list --format md", "list --json", "status --json"],
)
def test_output_for_programs_is_the_same_at_any_width(
    filled: Shell, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    words = command.split()
    assert on_terminal(monkeypatch, 40, *words) == filled.run(*words).stdout


@pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
def test_help_is_at_most_80_columns_wide(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for width in (80, 160):
        shown = on_terminal(monkeypatch, width, *name.split(), "--help")
        assert max(map(cell_len, shown.splitlines())) <= 80


@pytest.mark.parametrize("command", ["scan", "list", "status", "compare", "report", "test --all"])
def test_an_empty_store_and_no_models_are_explained(shell: Shell, command: str) -> None:
    shell.adapter = ScriptedAdapter(listing=[])
    result = shell.run(*command.split())
    assert result.output.strip()
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["scan", "test m", "infer m x", "bench m", "map m"])
def test_without_lm_studio_the_code_is_3(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(session, "open_client", REAL)
    monkeypatch.setenv("LMSTRIX_STORE", str(shell.store))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    result = shell.run("--host", NOBODY, *command.split())
    assert result.exit_code == 3
    assert "Error: " in result.stderr
    assert "Traceback" not in result.output
