"""Where a measurement stands, as a notebook shows it. Pure: gathered from events alone."""

from __future__ import annotations

import attrs

from lmstrix.events import (
    BracketChanged,
    Event,
    LoadFinished,
    LoadProgressed,
    LoadStarted,
    MeasurementFinished,
    PhaseStarted,
    PrefillProgressed,
    ProbeFinished,
    ProbeStarted,
    Retrying,
    WaitingForTurn,
)
from lmstrix.reports.table import say_verdict

__all__ = ["Course", "Row"]


@attrs.frozen
class Row:
    """What is known at one length so far."""

    length_tokens: int
    passes: int
    trials: int
    verdict: str


@attrs.define
class Course:
    """The last thing heard of each kind, and a row for each length."""

    model_key: str = ""
    phase: str = "start"
    activity: str = ""
    """What is being done right now, in words; untrusted."""
    fraction: float | None = None
    """How far that is, from 0 to 1; None where it is not known."""
    low: int = 0
    high: int | None = None
    answer: str = ""
    """The end of it, in words; an empty string until then."""
    probes: dict[int, Row] = attrs.field(factory=dict[int, Row])

    @property
    def rows(self) -> list[Row]:
        """In ascending order of length."""
        return [self.probes[length] for length in sorted(self.probes)]

    @property
    def bracket(self) -> str:
        """What works and what does not, as far as it is known."""
        return f"{self.low} works, {self.high or 'nothing'} fails" if self.low else ""

    @property
    def line(self) -> str:
        """All of it in one line of text."""
        doing = self.answer or f"{self.phase} {self.activity}".strip()
        return ", ".join(part for part in (self.model_key, doing, self.bracket) if part)

    def hear(self, event: Event) -> None:
        """Take over what `event` says; events of other kinds change nothing."""
        self.model_key = event.model_key
        match event:
            case PhaseStarted():
                self._do(event.phase)
            case LoadStarted() | LoadProgressed() | LoadFinished():
                self._hear_load(event)
            case ProbeStarted():
                self._do(event.phase, f"at {event.length_tokens} tokens")
            case PrefillProgressed():
                done, whole = event.progress.processed_tokens, event.progress.prompt_tokens
                self.fraction = min(1.0, done / whole) if whole else None
            case ProbeFinished():
                self._hear_probe(event)
            case BracketChanged():
                self.low, self.high = event.low, event.high
            case WaitingForTurn():
                self._do("waiting", f"for the measurement of {event.holder_key or 'another model'}")
            case Retrying():
                self._do(self.phase, f"attempt {event.attempt}: {event.reason}")
            case MeasurementFinished():
                self._hear_end(event)
            case _:
                pass

    def _do(self, phase: str, activity: str = "", fraction: float | None = None) -> None:
        self.phase, self.activity, self.fraction = phase, activity, fraction

    def _hear_load(self, event: LoadStarted | LoadProgressed | LoadFinished) -> None:
        asked = f"{event.context_length} tokens"
        match event:
            case LoadStarted():
                self._do(self.phase, f"loading {asked}")
            case LoadProgressed():
                self._do(self.phase, f"loading {asked}", event.fraction)
            case LoadFinished():
                failed = event.effective_context is None
                self._do(self.phase, f"{asked} did not load" if failed else "")

    def _hear_probe(self, event: ProbeFinished) -> None:
        verdict = say_verdict(event.verdict, passes=event.passes, trials=event.trials)
        if event.failure is not None:
            verdict = event.failure.replace("_", " ")
        length = event.length_tokens
        self.probes[length] = Row(length, event.passes, event.trials, verdict)

    def _hear_end(self, event: MeasurementFinished) -> None:
        report = event.report
        true = "unknown" if report.true_context is None else str(report.true_context)
        self.answer = f"true context {true}: {report.cause}".replace("_", " ")
        self.low, self.high = report.bracket
        self._do("end")
