"""What is shown while a measurement runs."""

from __future__ import annotations

import io

import attrs
import pytest
from rich.console import Console

from lmstrix.events import (
    BracketChanged,
    Event,
    LoadFinished,
    LoadProgressed,
    LoadStarted,
    MeasurementStarted,
    PhaseStarted,
    PrefillProgressed,
    ProbeFinished,
    ProbeStarted,
    TrialFinished,
    WaitingForTurn,
)
from lmstrix.models import Cause, PrefillProgress, Verdict
from lmstrix.progress import ProgressState
from lmstrix.testing.samples import sample_model, sample_trial
from lmstrix_cli.progress import LiveProgress, event_line, status_line

KEY = "[red]m\x1b[0m"
READING = PrefillProgress(prompt_tokens=4000, cached_tokens=2000, processed_tokens=3000)
COURSE: tuple[Event, ...] = (
    MeasurementStarted(model_key=KEY, model=sample_model(), resumed_trials=3),
    PhaseStarted(model_key=KEY, phase="load"),
    LoadStarted(model_key=KEY, context_length=8192),
    LoadProgressed(model_key=KEY, context_length=8192, fraction=0.5),
    LoadFinished(model_key=KEY, context_length=8192, effective_context=7936),
    ProbeStarted(model_key=KEY, phase="search", length_tokens=4096, trials=4),
    TrialFinished(model_key=KEY, trial=sample_trial()),
    BracketChanged(model_key=KEY, low=4096, high=None),
    PrefillProgressed(model_key=KEY, length_tokens=4096, progress=READING),
)


def after(*events: Event) -> ProgressState:
    state = ProgressState()
    for event in events:
        state.hear(event)
    return state


def test_the_line_tells_phase_length_bracket_trials_and_speed() -> None:
    line = status_line(after(*COURSE), 10.0).plain
    expected = (
        "search",
        "at 4096",
        "trial 2/4",
        "1 correct",
        "reading 50%",
        "bracket 4096..?",
        "40 tok/s",
        "10 s",
    )
    assert all(part in line for part in expected)
    assert "\x1b" not in line
    assert line.startswith("[red]m")  # text, not markup


@pytest.mark.parametrize(
    ("pid", "key", "said"),
    [
        (1234, "x\x1b[2J", "waiting for process 1234 to measure x\\x1b[2J"),
        (None, "", "waiting for another process"),
    ],
)
def test_whom_it_waits_for_is_said(pid: int | None, key: str, said: str) -> None:
    waiting = WaitingForTurn(model_key=KEY, pid=pid, holder_key=key)
    assert event_line(waiting) == said
    assert said[:30] in status_line(after(waiting), 1.0).plain
    assert "waiting" not in status_line(after(waiting, *COURSE), 1.0).plain


@pytest.mark.parametrize("width", [59, 79])
def test_a_narrow_line_keeps_the_time(width: int) -> None:
    """A long name is shortened, and what is least missed goes."""
    events = [attrs.evolve(event, model_key="publisher/" + "name" * 20) for event in COURSE]
    state = after(*events)
    line = status_line(state, 700.0, width)
    assert line.cell_len <= width
    assert line.plain.startswith("publi...")
    assert "11 min 40 s" in line.plain
    assert "at 4096" in line.plain
    assert "tok/s" in status_line(state, 700.0, 200).plain


def test_a_log_gets_a_line_for_each_phase_load_and_probe() -> None:
    probe = ProbeFinished(
        model_key=KEY,
        phase="search",
        length_tokens=8192,
        passes=0,
        trials=0,
        verdict=Verdict.FAIL,
        failure=Cause.CRASHED_ON_FILL,
    )
    failed = LoadFinished(
        model_key=KEY, context_length=9000, effective_context=None, error="no\nmemory"
    )
    lines = [line for event in (*COURSE, probe, failed) if (line := event_line(event))]
    assert lines == [
        "measuring [red]m\\x1b[0m, continuing after 3 trials",
        "  load",
        "    asked for 8192, loaded 7936",
        "    8192: 0 of 0, failed (crashed on fill)",
        "    asked for 9000, failed: no\\x0amemory",
    ]


def test_a_live_line_is_one_line_and_leaves_nothing_behind() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=60, legacy_windows=False)
    progress = LiveProgress(console)
    with progress:
        for event in COURSE:
            progress(event)
    written = screen.getvalue()
    assert "continuing after 3 trials" in written
    assert "[red]...b[0m  search" in written  # shortened, and text, not markup
    assert written.count("\n") <= 3
    assert written.endswith("\x1b[2K")  # the line was taken away
    assert "\x1b[?25h" in written  # the cursor is back
