"""One line on a terminal that is drawn again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from lmstrix.events import Event, MeasurementStarted
from lmstrix.reports.quantities import say_count, say_percent, say_seconds
from lmstrix_cli.progress.state import ProgressState
from lmstrix_cli.safe_text import label

__all__ = ["LiveProgress", "status_line"]

NAME_CELLS = 32
ACTIVITY_CELLS = 48
REFRESH_PER_SECOND = 4


class LiveProgress:
    """Shows `status_line`, refreshed by rich's own thread, so that the clock goes on ticking."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._state = ProgressState(started_s=time.monotonic())
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._state = ProgressState(started_s=time.monotonic())
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __call__(self, event: Event, /) -> None:
        """Hear one event; the next refresh shows it."""
        if isinstance(event, MeasurementStarted) and event.resumed_trials:
            self._console.print(Text(f"going on after {say_count(event.resumed_trials, 'trial')}"))
        self._state.hear(event)

    def _line(self) -> Text:
        # One line, never wrapped: a second line would be left behind on the screen.
        width = max(1, self._console.width - 1)
        text = status_line(self._state, time.monotonic(), width)
        text.truncate(width, overflow="ellipsis")
        return text


def status_line(state: ProgressState, now_s: float, width: int | None = None) -> Text:
    """Model, phase, length, bracket, trials, prefill, speed, time. Text, never markup.

    Where it would be wider than `width` cells, the name is shortened first, then what is least
    missed is left out: how long it takes is what people look for.
    """
    parts = dict(_parts(state, now_s))
    line = _line(state, NAME_CELLS, parts)
    if width is None:
        return line
    for cells in _SHORTER:
        if line.cell_len > width:
            line = _line(state, cells, parts)
    for spared in _SPARED:
        if line.cell_len > width:
            parts.pop(spared, None)
            line = _line(state, _SHORTER[-1], parts)
    return line


_SHORTER = (24, 18, 12)
"""How many cells the name gets, try by try."""
_SPARED = ("speed", "right", "bracket", "reading", "trial", "phase")
"""What is left out, the first of them first."""


def _line(state: ProgressState, cells: int, parts: Mapping[str, str]) -> Text:
    name = label(state.model_key, cells)
    return Text("  ".join(filter(None, (name, *parts.values()))), no_wrap=True)


def _parts(state: ProgressState, now_s: float) -> Iterator[tuple[str, str]]:
    if not (state.activity and state.phase in {"load", "start"}):
        yield "phase", label(state.phase)
    if state.activity:
        yield "activity", label(state.activity, ACTIVITY_CELLS)
    elif state.length_tokens:
        yield "length", f"at {state.length_tokens}"
        done = min(state.trials_done + 1, state.trials_wanted)
        yield "trial", f"trial {done}/{state.trials_wanted}"
        if state.judged:
            yield "right", f"{state.passes} right"
    elif state.phase == "baseline":
        yield "trial", f"trial {state.trials_done + 1}"
    if state.prefill is not None and state.prefill < 1:
        yield "reading", f"reading {say_percent(state.prefill)}"
    if state.low or state.high:
        yield "bracket", f"bracket {state.low}..{'?' if state.high is None else state.high}"
    if state.tokens_per_second:
        yield "speed", f"{state.tokens_per_second:.0f} tok/s"
    yield "time", say_seconds(round(now_s - state.started_s)).replace(".00", "").replace(".0", "")
    left = state.seconds_left(now_s)
    if left is not None:
        yield "left", f"about {say_seconds(max(10, round(left, -1))).replace('.0 s', ' s')} left"
