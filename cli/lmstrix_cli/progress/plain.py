"""Short lines for logs and pipes: one for each phase, load and probe. And nothing at all."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from lmstrix.events import (
    BaselineMeasured,
    Event,
    LoadFinished,
    MeasurementStarted,
    PhaseStarted,
    ProbeFinished,
    ReplyTimed,
    Retrying,
    WaitingForTurn,
)
from lmstrix.reports.quantities import say_count, say_seconds
from lmstrix.reports.table import say_verdict
from lmstrix_cli import safe_text
from lmstrix_cli.progress.waiting import say_waiting

__all__ = ["PlainProgress", "Silence", "event_line"]


class Silence:
    """Hears everything and says nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def __call__(self, event: Event, /) -> None:
        """Hear one event."""


class PlainProgress(Silence):
    """One line on stderr for each event worth one."""

    def __call__(self, event: Event, /) -> None:
        """Hear one event."""
        line = event_line(event)
        if line:
            safe_text.note(line)


def event_line(event: Event) -> str:
    """The line for `event`, escaped; an empty string where it is worth none."""
    line = ""
    match event:
        case WaitingForTurn():
            line = say_waiting(event)
        case MeasurementStarted():
            line = f"measuring {safe_text.label(event.model_key)}"
            if event.resumed_trials:
                line += f", going on after {say_count(event.resumed_trials, 'trial')}"
        case PhaseStarted():
            line = f"  {safe_text.label(event.phase)}"
        case LoadFinished():
            line = _load_line(event)
        case ProbeFinished():
            line = _probe_line(event)
        case ReplyTimed():
            line = _timed_line(event)
        case BaselineMeasured():
            line = f"    baseline {event.baseline.passes} of {event.baseline.trials}"
        case Retrying():
            line = f"    attempt {event.attempt}: {safe_text.label(event.reason)}"
        case _:
            pass
    return line


def _timed_line(event: ReplyTimed) -> str:
    read = event.prompt_tokens - (event.cached_tokens or 0)
    ttft = "" if event.ttft_s is None else f", first token after {say_seconds(event.ttft_s)}"
    return f"    {event.length_tokens}: {read} tokens read{ttft}"


def _load_line(event: LoadFinished) -> str:
    if event.effective_context is not None:
        return f"    asked for {event.context_length}, loaded {event.effective_context}"
    return f"    asked for {event.context_length}, failed: {safe_text.label(event.error)}"


def _probe_line(event: ProbeFinished) -> str:
    failure = "" if event.failure is None else f" ({event.failure.replace('_', ' ')})"
    verdict = say_verdict(event.verdict, passes=event.passes, trials=event.trials)
    return f"    {event.length_tokens}: {event.passes} of {event.trials}, {verdict}{failure}"
