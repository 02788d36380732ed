"""What is shown while a measurement runs."""

from __future__ import annotations

import attrs
import pytest

from lmstrix.events import (
    BaselineMeasured,
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
from lmstrix.models import PrefillProgress, Verdict
from lmstrix.progress import ProgressState
from lmstrix.testing.samples import sample_model, sample_report, sample_trial
from lmstrix_cli.progress import event_line, status_line

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


def probe(length: int, passes: int) -> ProbeFinished:
    verdict = Verdict.FAIL
    return ProbeFinished(
        model_key=KEY,
        phase="search",
        length_tokens=length,
        passes=passes,
        trials=2,
        verdict=verdict,
        failure=None,
    )


def after(*events: Event) -> ProgressState:
    state = ProgressState()
    for event in events:
        state.hear(event)
    return state


def test_while_nothing_failed_the_line_tells_the_longest_clean_length() -> None:
    """The bracket begins at a verdict; a clean length has too few answers for one."""
    state = after(*COURSE, *(probe(length, passes) for length, passes in ((5120, 2), (6144, 1))))
    assert "correct to 5,120" in status_line(state, 1.0).plain
    state.hear(BaselineMeasured(model_key=KEY, baseline=sample_report().baseline))
    state.hear(BracketChanged(model_key=KEY, low=512, high=6144))  # nothing more than the baseline
    assert "fails at 6,144" in status_line(state, 1.0).plain
    assert "512" not in status_line(state, 1.0).plain
    state.hear(BracketChanged(model_key=KEY, low=5120, high=6144))
    assert "bracket 5,120..6,144" in status_line(state, 1.0).plain


def test_levels_are_told_in_words() -> None:
    state = after(ProbeStarted(model_key=KEY, phase="coherence", length_tokens=4096, trials=2))
    assert "checking coherence" in status_line(state, 1.0).plain


@pytest.mark.parametrize("width", [79, 159])
def test_the_line_fits_the_usual_terminals(width: int) -> None:
    """A measurement that is well under way, of a file with a long path."""
    state = ProgressState()
    start = attrs.evolve(COURSE[0], model_key="/home/somebody/models/publisher/SmolLM2-Q4_1.gguf")
    for number, event in enumerate((start, *COURSE[1:6], *COURSE[6:7] * 12, *COURSE[7:])):
        state.hear(attrs.evolve(event, model_key=start.model_key), 10.0 * number)
    state.hear(BracketChanged(model_key=start.model_key, low=6144, high=6656))
    line = status_line(state, 3680.0, width)
    assert line.cell_len <= width
    for part in ("searching", "6,144..6,656", "12 of 12 correct", "elapsed 1:01:20 · about "):
        assert part in line.plain
    assert "/home" not in line.plain
    whole = ("SmolLM2-Q4_1.gguf", "searching for the limit", "40 tok/s")
    assert all(part in line.plain for part in whole) == (width == 159)


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
