"""One line on a terminal that is drawn again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator
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
        text = status_line(self._state, time.monotonic())
        # One line, never wrapped: a second line would be left behind on the screen.
        text.truncate(max(1, self._console.width - 1), overflow="ellipsis")
        return text


def status_line(state: ProgressState, now_s: float) -> Text:
    """Model, phase, length, bracket, trials, prefill, speed, time. Text, never markup."""
    return Text("  ".join(_parts(state, now_s)), no_wrap=True)


def _parts(state: ProgressState, now_s: float) -> Iterator[str]:
    yield label(state.model_key, NAME_CELLS) or "..."
    yield label(state.phase)
    if state.activity:
        yield label(state.activity, ACTIVITY_CELLS)
    elif state.length_tokens:
        yield f"at {state.length_tokens}"
        yield f"trial {min(state.trials_done + 1, state.trials_wanted)}/{state.trials_wanted}"
        if state.judged:
            yield f"{state.passes} right"
    if state.prefill is not None and state.prefill < 1:
        yield f"reading {say_percent(state.prefill)}"
    if state.low or state.high:
        yield f"bracket {state.low}..{'?' if state.high is None else state.high}"
    if state.tokens_per_second:
        yield f"{state.tokens_per_second:.0f} tok/s"
    yield say_seconds(round(now_s - state.started_s)).replace(".00", "").replace(".0", "")
    left = state.seconds_left(now_s)
    if left is not None:
        yield f"about {say_seconds(max(10, round(left, -1))).replace('.0 s', ' s')} left"
