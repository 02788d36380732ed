"""What a person sees: it fits the terminal, is painted only if wanted, and says what to do next."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import attrs
import pytest
from cli_shell import ScriptedAdapter, Shell, made
from rich.cells import cell_len

from lmstrix import events
from lmstrix.models import Cause, PrefillProgress, Region, RegionReport, Verdict
from lmstrix.progress import ProgressState
from lmstrix.testing.samples import sample_model, sample_report, sample_trial
from lmstrix.testing.simulated import SimulatedModel
from lmstrix_cli.main import COMMANDS, lmstrix
from lmstrix_cli.progress import event_line, status_line

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


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_shows_that_infer_is_at_work(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, quiet: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stdin", Output(terminal=True))
    err = Output(terminal=True)
    words = [*(["--quiet"] if quiet else []), "infer", "m", "Say yes."]
    with redirect_stdout(Output(terminal=False)), redirect_stderr(err), pytest.raises(SystemExit):
        lmstrix(words, prog_name="lmstrix")
    assert ("loading the model" in err.text()) is not quiet
    assert "loading the model" not in shell.run("infer", "m", "Say yes.").stderr


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
def test_tables_fit_terminals(filled: Shell, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
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
    assert "21M to 67M" in lines[1]
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


def test_a_folded_name_breaks_between_parts(filled: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = plain(on_terminal(monkeypatch, 80, "scan"))
    [at] = [number for number, line in enumerate(lines) if line.startswith("someone")]
    folded = [line.split(" ")[0] for line in lines[at:]]
    assert "".join(folded).startswith(LONG)
    assert [part[-1] for part in folded[:3]] == ["-", "-", "-"]


@pytest.mark.parametrize(
    "command",
    ["scan --format csv", "list --format csv", "list --format md", "list --json", "status --json"],
)
def test_programs_get_it_all(filled: Shell, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    words = command.split()
    assert on_terminal(monkeypatch, 40, *words) == filled.run(*words).stdout


@pytest.mark.parametrize("name", ["", *sorted(COMMANDS)])
def test_help_fits_80_columns(shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for width in (80, 160):
        shown = on_terminal(monkeypatch, width, *name.split(), "--help")
        assert max(map(cell_len, shown.splitlines())) <= 80
        assert "\b" not in shown
        assert "Examples:" in shown or not name


# While a measurement runs.

KEY = "[red]m\x1b[0m"
READING = PrefillProgress(prompt_tokens=4000, cached_tokens=2000, processed_tokens=3000)
COURSE: tuple[events.Event, ...] = (
    events.MeasurementStarted(model_key=KEY, model=sample_model(), resumed_trials=3),
    events.PhaseStarted(model_key=KEY, phase="load"),
    events.LoadStarted(model_key=KEY, context_length=8192),
    events.LoadProgressed(model_key=KEY, context_length=8192, fraction=0.5),
    events.LoadFinished(model_key=KEY, context_length=8192, effective_context=7936),
    events.ProbeStarted(model_key=KEY, phase="search", length_tokens=4096, trials=4),
    events.TrialFinished(model_key=KEY, trial=sample_trial()),
    events.BracketChanged(model_key=KEY, low=4096, high=None),
    events.PrefillProgressed(model_key=KEY, length_tokens=4096, progress=READING),
)


def probe(length: int, passes: int) -> events.ProbeFinished:
    counts: dict[str, Any] = {"length_tokens": length, "passes": passes, "trials": 2}
    return events.ProbeFinished(model_key=KEY, phase="search", verdict=Verdict.FAIL, **counts)


def after(*heard: events.Event) -> ProgressState:
    state = ProgressState()
    for event in heard:
        state.hear(event)
    return state


def test_while_nothing_failed_the_line_tells_the_longest_clean_length() -> None:
    """The bracket begins at a verdict; a clean length has too few answers for one."""
    state = after(*COURSE, *(probe(length, passes) for length, passes in ((5120, 2), (6144, 1))))
    assert "correct to 5,120" in status_line(state, 1.0).plain
    state.hear(events.BaselineMeasured(model_key=KEY, baseline=sample_report().baseline))
    # Nothing more than the baseline passed.
    state.hear(events.BracketChanged(model_key=KEY, low=512, high=6144))
    assert "fails at 6,144" in status_line(state, 1.0).plain
    assert "512" not in status_line(state, 1.0).plain
    state.hear(events.BracketChanged(model_key=KEY, low=5120, high=6144))
    assert "bracket 5,120..6,144" in status_line(state, 1.0).plain
    state.hear(events.ProbeStarted(model_key=KEY, phase="coherence", length_tokens=4096, trials=2))
    assert "checking coherence" in status_line(state, 1.0).plain


@pytest.mark.parametrize("width", [79, 159])
def test_the_line_fits_the_usual_terminals(width: int) -> None:
    """A measurement that is well under way, of a file with a long path."""
    state = ProgressState()
    start = attrs.evolve(COURSE[0], model_key="/home/somebody/models/publisher/SmolLM2-Q4_1.gguf")
    for number, event in enumerate((start, *COURSE[1:6], *COURSE[6:7] * 12, *COURSE[7:])):
        state.hear(attrs.evolve(event, model_key=start.model_key), 10.0 * number)
    state.hear(events.BracketChanged(model_key=start.model_key, low=6144, high=6656))
    line = status_line(state, 3680.0, width)
    assert line.cell_len <= width
    for part in ("searching", "6,144..6,656", "12 of 12 correct", "elapsed 1:01:20 · about "):
        assert part in line.plain
    assert "/home" not in line.plain
    whole = ("SmolLM2-Q4_1.gguf", "searching for the limit", "40 tok/s")
    assert all(part in line.plain for part in whole) == (width == 159)


def test_whom_it_waits_for_is_said() -> None:
    waiting = events.WaitingForTurn(model_key=KEY, pid=None, holder_key="")
    assert event_line(waiting) == "waiting for another process"
    assert "waiting for another process" in status_line(after(waiting), 1.0).plain
    assert "waiting" not in status_line(after(waiting, *COURSE), 1.0).plain
