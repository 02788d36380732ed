"""The current state of a measurement, from its events. The terminal and notebooks draw it.

Nothing is escaped here: names, reasons and errors in it are untrusted.
"""

from __future__ import annotations

import attrs

from lmstrix.events import (
    BracketChanged,
    Event,
    LoadFinished,
    LoadProgressed,
    LoadStarted,
    MeasurementFinished,
    MeasurementStarted,
    PhaseStarted,
    PrefillProgressed,
    ProbeFinished,
    ProbeStarted,
    ReplyTimed,
    Retrying,
    TrialFinished,
    WaitingForTurn,
)
from lmstrix.models import ContextReport, Trial

__all__ = ["ProgressState", "say_waiting"]

EARLIEST_ESTIMATE_S = 5.0
"""Before that, the reading speed is mostly that of starting up."""


def say_waiting(event: WaitingForTurn) -> str:
    """``waiting for process 1234 to measure MODEL``, as far as that is known."""
    who = "another process" if event.pid is None else f"process {event.pid}"
    what = f" to measure {event.holder_key}" if event.holder_key else ""
    return f"waiting for {who}{what}"


@attrs.define
class ProgressState:
    """The newest information of each kind, and the verdict at each length."""

    model_key: str = ""
    phase: str = "start"
    activity: str = ""
    """What is happening besides questions, in words: a load, a retry, waiting."""
    fraction: float | None = None
    """How much of the load or of the prompt's new tokens is done, from 0 to 1, if it is known."""
    length_tokens: int = 0
    trials_wanted: int = 0
    trials_done: int = 0
    judged: int = 0
    passes: int = 0
    tokens_per_second: float | None = None
    low: int = 0
    high: int | None = None
    ceiling: int | None = None
    read_tokens: int = 0
    """Prompt tokens that the engine read in this run, cached ones not counted."""
    reading_tokens: int = 0
    """The new tokens of the current prompt that are read already."""
    probes: dict[int, ProbeFinished] = attrs.field(factory=dict[int, ProbeFinished])
    """The newest probe at each length."""
    report: ContextReport | None = None
    """The result, once there is one."""

    def hear(self, event: Event) -> None:  # noqa: C901, PLR0912 - one case for each kind
        """Take over the information in `event`; events of other kinds change nothing."""
        self.model_key = event.model_key
        match event:
            case WaitingForTurn():
                self._start("turn", say_waiting(event))
            case MeasurementStarted():
                self._start("start")
                self.ceiling = event.model.declared_context
            case PhaseStarted():
                self._start(event.phase)
            case LoadStarted() | LoadProgressed() | LoadFinished():
                self._hear_load(event)
            case ProbeStarted():
                self._start(event.phase)
                self.length_tokens, self.trials_wanted = event.length_tokens, event.trials
                self.judged = self.passes = 0
            case PrefillProgressed():
                seen = event.progress
                self.reading_tokens = max(0, seen.processed_tokens - seen.cached_tokens)
                new = max(1, seen.prompt_tokens - seen.cached_tokens)
                self.fraction = min(1.0, self.reading_tokens / new)
            case TrialFinished():
                self._hear_reply(event.trial)
            case ReplyTimed():
                self._hear_reply(event)
            case ProbeFinished():
                self.probes[event.length_tokens] = event
            case BracketChanged():
                self.low, self.high = event.low, event.high
            case Retrying():
                self.activity = f"attempt {event.attempt}: {event.reason}"
            case MeasurementFinished():
                self._start("end")
                self.report = event.report
                self.low, self.high = event.report.bracket
            case _:
                pass

    def _start(self, phase: str, activity: str = "") -> None:
        self.phase, self.activity, self.fraction = phase, activity, None
        self.trials_done = 0

    def _hear_load(self, event: LoadStarted | LoadProgressed | LoadFinished) -> None:
        self.activity, self.fraction = f"loading {event.context_length} tokens", None
        if isinstance(event, LoadProgressed):
            self.fraction = event.fraction
        elif isinstance(event, LoadFinished):
            failed = event.effective_context is None
            self.activity = f"{event.context_length} tokens did not load" if failed else ""
            self.ceiling = event.effective_context or self.ceiling

    def _hear_reply(self, reply: Trial | ReplyTimed) -> None:
        self.trials_done += 1
        if isinstance(reply, Trial):
            self.judged += 1
            self.passes += reply.judgement == "pass"
        self.tokens_per_second = reply.tokens_per_second or self.tokens_per_second
        self.read_tokens += reply.prompt_tokens - (reply.cached_tokens or 0)
        self.reading_tokens, self.fraction, self.activity = 0, None, ""

    def seconds_left(self, elapsed_s: float) -> float | None:
        """A rough estimate: the tokens still to be read, at the speed so far.

        It counts the tokens from here to the end of the bracket, and one more reading of the whole
        window to certify. None if there is too little information: the baseline, maps and
        benchmarks spend their time otherwise.
        """
        read = self.read_tokens + self.reading_tokens
        end = self.high or self.ceiling
        mostly_reads = self.phase in {"search", "certify"}
        if elapsed_s < EARLIEST_ESTIMATE_S or not mostly_reads or read < 1 or not end:
            return None
        if self.phase == "certify":
            todo = end * (1 - (self.fraction or 0))
        else:
            todo = max(0, end - self.length_tokens) + end
        return todo * elapsed_s / read
