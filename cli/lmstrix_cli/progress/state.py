"""Where a measurement stands, gathered from its events. Pure: the time is passed in."""

from __future__ import annotations

import attrs

from lmstrix.events import (
    BracketChanged,
    Event,
    LoadFinished,
    LoadProgressed,
    LoadStarted,
    MeasurementStarted,
    PhaseStarted,
    PrefillProgressed,
    ProbeStarted,
    ReplyTimed,
    Retrying,
    TrialFinished,
    WaitingForTurn,
)
from lmstrix.models import Trial
from lmstrix.reports.quantities import say_percent
from lmstrix_cli.progress.waiting import say_waiting

__all__ = ["ProgressState"]

EARLIEST_ESTIMATE_S = 5.0
"""Before that, the reading speed is mostly that of starting up."""
_ESTIMATED = frozenset({"search", "certify"})
"""Phases whose time is mostly that of reading."""


@attrs.define
class ProgressState:
    """The last thing heard of each kind."""

    started_s: float
    model_key: str = ""
    phase: str = "start"
    activity: str = ""
    length_tokens: int = 0
    trials_wanted: int = 0
    trials_done: int = 0
    judged: int = 0
    passes: int = 0
    prefill: float | None = None
    tokens_per_second: float | None = None
    low: int = 0
    high: int | None = None
    ceiling: int | None = None
    read_tokens: int = 0
    """Prompt tokens that the engine really read in this run."""
    reading_tokens: int = 0
    """Of the prompt being read now, the new ones."""

    def hear(self, event: Event) -> None:
        """Take over what `event` says; events of other kinds change nothing."""
        self.model_key = event.model_key
        match event:
            case WaitingForTurn():
                self.phase, self.activity = "turn", say_waiting(event)
            case MeasurementStarted():
                self.phase, self.activity = "start", ""
                self.ceiling = event.model.declared_context
            case PhaseStarted():
                self.phase, self.activity = event.phase, ""
                self.trials_done = 0
            case LoadStarted() | LoadProgressed() | LoadFinished():
                self._hear_load(event)
            case ProbeStarted():
                self.phase, self.activity = event.phase, ""
                self.length_tokens, self.trials_wanted = event.length_tokens, event.trials
                self.trials_done = self.judged = self.passes = 0
                self.prefill = None
            case PrefillProgressed() | TrialFinished() | ReplyTimed():
                self._hear_trial(event)
            case BracketChanged():
                self.low, self.high = event.low, event.high
            case Retrying():
                self.activity = f"attempt {event.attempt}: {event.reason}"
            case _:
                pass

    def _hear_load(self, event: LoadStarted | LoadProgressed | LoadFinished) -> None:
        match event:
            case LoadStarted():
                self.activity = f"loading {event.context_length}"
            case LoadProgressed():
                self.activity = f"loading {event.context_length} {say_percent(event.fraction)}"
            case LoadFinished():
                self.activity = ""
                if event.effective_context is not None:
                    self.ceiling = event.effective_context

    def _hear_trial(self, event: PrefillProgressed | TrialFinished | ReplyTimed) -> None:
        if isinstance(event, PrefillProgressed):
            seen = event.progress
            new = max(1, seen.prompt_tokens - seen.cached_tokens)
            self.reading_tokens = max(0, seen.processed_tokens - seen.cached_tokens)
            self.prefill = min(1.0, self.reading_tokens / new)
            return
        trial = event.trial if isinstance(event, TrialFinished) else event
        self.trials_done += 1
        if isinstance(trial, Trial):
            self.judged += 1
            self.passes += trial.judgement == "pass"
        self.tokens_per_second = trial.tokens_per_second or self.tokens_per_second
        self.read_tokens += trial.prompt_tokens - (trial.cached_tokens or 0)
        self.reading_tokens, self.prefill, self.activity = 0, None, ""

    def seconds_left(self, now_s: float) -> float | None:
        """A rough guess: the tokens still to be read at the speed seen so far.

        Counts what lies between here and the end of the bracket, and one more reading of the
        whole window for certifying. None while there is nothing to go by: the baseline, maps and
        benchmarks spend their time otherwise.
        """
        elapsed = now_s - self.started_s
        read = self.read_tokens + self.reading_tokens
        end = self.high or self.ceiling
        known = self.phase in _ESTIMATED and read >= 1 and end
        if elapsed < EARLIEST_ESTIMATE_S or not known or not end:
            return None
        if self.phase == "certify":
            todo = end * (1 - (self.prefill or 0))
        else:
            todo = max(0, end - self.length_tokens) + end
        return todo * elapsed / read
