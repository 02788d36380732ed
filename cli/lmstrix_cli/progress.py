"""What a person sees on stderr while a measurement runs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from lmstrix import (
    BaselineMeasured,
    Event,
    LoadFinished,
    MeasurementStarted,
    PhaseStarted,
    ProbeFinished,
    ReplyTimed,
    Retrying,
    Verdict,
    WaitingForTurn,
)
from lmstrix.progress import PHASES, ProgressState, say_phase, say_waiting
from lmstrix.reports.words import (
    base_name,
    say_cause,
    say_count,
    say_percent,
    say_seconds,
    say_verdict,
)
from lmstrix_cli import output
from lmstrix_cli.output import label
from lmstrix_cli.settings import is_quiet

ACTIVITY_CELLS = 64
REFRESH_PER_SECOND = 4
_NAME_CELLS = (32, 24, 18, 12)
"""The room for the model's name, from a wide line to a narrow one."""
_SPARED = ("reading", "speed", "words", "length", "word", "name", "correct", "phase", "activity")
"""The parts that a narrow line shortens or leaves out, the first of them first."""


EXPLAINED = {
    "load": "Loading the model at the context that it declares.",
    "baseline": "Asking about a short text. Answers about long texts are compared with these.",
    "search": "Filling the window with text and asking about it, until answers go wrong.",
    "levels": "Letting the model write, to find the length up to which its text makes sense.",
    "certify": "Loading the model again, to confirm the result on a fresh text.",
}
"""A sentence for each phase, for those who see the first measurement of their life."""


class Progress:
    """An observer that is shown between entering and leaving it; this one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __call__(self, event: Event, /) -> None:
        """Hear one event."""


def choose_progress(*, explains: bool = False) -> Progress:
    """A live line on a terminal, plain lines in a log, nothing with ``--quiet``.

    A terminal that calls itself dumb cannot redraw a line. With `explains`, a sentence tells about
    each phase.
    """
    if is_quiet():
        return Progress()
    redraws = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return LiveProgress(explains=explains) if redraws else PlainProgress(explains=explains)


class _Explains(Progress):
    """Tells about each phase once, in a sentence, if it `explains`."""

    def __init__(self, *, explains: bool = False) -> None:
        self._untold = dict(EXPLAINED) if explains else {}

    def explanation(self, event: Event) -> str:
        """The sentence for the phase that begins; empty for a phase that was explained."""
        return self._untold.pop(event.phase, "") if isinstance(event, PhaseStarted) else ""


class PlainProgress(_Explains):
    """One line on stderr for each phase, load and probe."""

    def __call__(self, event: Event, /) -> None:
        """Hear one event."""
        line = self.explanation(event) or event_line(event)
        if line:
            output.note(line)


def event_line(event: Event) -> str:
    """The line for `event`, escaped; an empty string for events of other kinds."""
    match event:
        case WaitingForTurn():
            line = say_waiting(event)
        case MeasurementStarted():
            resumed = say_count(event.resumed_trials, "answer")
            line = f"measuring {base_name(event.model_key)}"
            line += f", continuing after {resumed}" if event.resumed_trials else ""
        case PhaseStarted():
            line = f"  {say_phase(event.phase)}"
        case LoadFinished(effective_context=None):
            line = f"    asked for {event.context_length:,}, failed: {event.error}"
        case LoadFinished():
            line = f"    asked for {event.context_length:,}, loaded {event.effective_context:,}"
        case ProbeFinished():
            # A map and the other levels name the validator that asks, coherence too.
            asked = event.phase.removeprefix("map: ")
            level = "" if asked in PHASES and asked != "coherence" else f" {asked}"
            line = f"    {event.length_tokens:,}{level}: {_probe_words(event)}"
        case ReplyTimed():
            sample = event.sample
            text = "the same text again" if sample.warm else "a new text"
            line = f"    {event.length_tokens:,}, {text}: {sample.read_tokens:,} tokens read"
            wait = sample.ttft_s
            line += "" if wait is None else f", first token after {say_seconds(wait)}"
        case BaselineMeasured():
            line = f"    baseline {event.baseline.passes} of {event.baseline.trials}"
        case Retrying():
            line = f"    attempt {event.attempt}: {event.reason}"
        case _:
            line = ""
    return label(line)


def _probe_words(event: ProbeFinished) -> str:
    """The answers, and the verdict once there is one."""
    words = [f"{event.passes} of {event.trials} correct"] if event.trials else []
    if event.inconclusive:
        words.append(f"{event.inconclusive:,} could not be judged")
    if event.verdict is not Verdict.UNDECIDED:
        cause = f" ({say_cause(event.failure)})" if event.failure else ""
        words.append(f"{say_verdict(event.verdict)}{cause}")
    return ", ".join(words)


class LiveProgress(_Explains):
    """Shows `status_line`. rich's own thread redraws it, so the clock keeps running."""

    def __init__(self, *, explains: bool = False) -> None:
        super().__init__(explains=explains)
        self._console = Console(stderr=True)
        self._state = ProgressState()
        self._started_s = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._state, self._started_s = ProgressState(), time.monotonic()
        self._live = Live(
            console=self._console,
            get_renderable=self._line,
            refresh_per_second=REFRESH_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event, /) -> None:
        """Hear one event; the next refresh shows it."""
        if isinstance(event, MeasurementStarted) and event.resumed_trials:
            self._console.print(
                Text(f"continuing after {say_count(event.resumed_trials, 'answer')}")
            )
        if sentence := self.explanation(event):
            self._console.print(Text(sentence))
        self._state.hear(event)

    def _line(self) -> Text:
        # One line, never wrapped: a second line would be left behind on the screen.
        width = max(1, self._console.width - 1)
        text = status_line(self._state, time.monotonic() - self._started_s, width)
        if not self._console.encoding.startswith("utf"):
            text = Text(text.plain.replace(" · ", ", "))
        text.truncate(width, overflow="ellipsis")
        return text


def status_line(state: ProgressState, elapsed_s: float, width: int | None = None) -> Text:
    """Model, phase, length, bracket, answers, speed, time. Text, never markup.

    A line wider than `width` cells gets a shorter name first; then the least important parts are
    left out. The bracket and the time stay.
    """
    parts = dict(_parts(state, elapsed_s))
    name = label(base_name(state.model_key))
    line = _joined(label(name, _NAME_CELLS[0]), parts)
    if width is None:
        return line
    for cells in _NAME_CELLS[1:]:
        if line.cell_len > width:
            line = _joined(label(name, cells), parts)
    for spared in _SPARED:
        if line.cell_len > width:
            parts.pop(spared, None)
            if spared == "name":
                name = ""
            elif spared == "words" and "phase" in parts:
                parts["phase"] = parts["phase"].split()[0]
            elif spared == "word" and "bracket" in parts:
                parts["bracket"] = parts["bracket"].removeprefix("bracket ")
            line = _joined(label(name, _NAME_CELLS[-1]), parts)
    return line


def _joined(name: str, parts: dict[str, str]) -> Text:
    return Text("  ".join(filter(None, (name, *parts.values()))), no_wrap=True)


def _parts(state: ProgressState, elapsed_s: float) -> Iterator[tuple[str, str]]:
    done = "" if state.fraction is None else say_percent(state.fraction)
    if not (state.activity and state.phase in {"load", "start", "turn"}):
        yield "phase", label(say_phase(state.phase))
    if state.activity:
        yield "activity", f"{label(state.activity, ACTIVITY_CELLS)} {done}".rstrip()
    elif state.length_tokens:
        yield "length", f"at {state.length_tokens:,}"
    if done and not state.activity and state.fraction != 1:
        yield "reading", f"reading {done}"
    clean = state.longest_clean()
    if state.high is not None and (state.low > state.floor or state.report is not None):
        yield "bracket", f"bracket {state.low:,}..{state.high:,}"
    elif state.high is not None:  # so far only the baseline passed
        yield "bracket", f"fails at {state.high:,}"
    elif clean:
        yield "bracket", f"correct to {clean:,}"
    if state.judged:
        yield "correct", f"{state.passes} of {state.judged} correct"
    if state.tokens_per_second:
        yield "speed", f"{state.tokens_per_second:.0f} tok/s"
    left = state.seconds_left()
    yield (
        "time",
        f"elapsed {str(timedelta(seconds=int(elapsed_s))).removeprefix('0:').removeprefix('0')}"
        + ("" if left is None else f" · {_say_left(left)}"),
    )


def _say_left(seconds: float) -> str:
    """An estimate with no more digits than it deserves."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} s left"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"about {hours} h {minutes:02} min left" if hours else f"about {minutes} min left"
