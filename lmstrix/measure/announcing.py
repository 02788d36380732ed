"""Tells observers. By contract none of them can hurt what is being measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from lmstrix.events import (
    Event,
    Noted,
    PhaseStarted,
    PrefillProgressed,
    ProbeFinished,
    ProbeStarted,
    Retrying,
)
from lmstrix.models import Cause, PrefillProgress, Verdict
from lmstrix.ports import Observer

__all__ = ["Announcer"]


@attrs.frozen
class Announcer:
    """Says what happens to one model, and keeps the notes that its result will have.

    `observers` hear every event in the order of events; what one of them raises is dropped.
    """

    model_key: str
    observers: Sequence[Observer]
    notes: list[str] = attrs.field(factory=list[str])

    def emit(self, event: Event) -> None:
        """Let every observer hear `event`."""
        for observer in self.observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001, S112 - by contract an observer cannot hurt
                continue

    def phase(self, name: str) -> None:
        """Something new begins."""
        self.emit(PhaseStarted(model_key=self.model_key, phase=name))

    def note(self, text: str) -> None:
        """A sentence for the user, now and in the result."""
        self.notes.append(text)
        self.emit(Noted(model_key=self.model_key, text=text))

    def retry(self, attempt: int, reason: str) -> None:
        """Attempt number `attempt` comes next, because of `reason`."""
        self.emit(Retrying(model_key=self.model_key, attempt=attempt, reason=reason))

    def prefill(self, length_tokens: int) -> Callable[[PrefillProgress], None]:
        """What tells how far the engine has read a prompt of `length_tokens`."""

        def tell(progress: PrefillProgress) -> None:
            self.emit(
                PrefillProgressed(
                    model_key=self.model_key, length_tokens=length_tokens, progress=progress
                )
            )

        return tell

    def probe(self, phase: str, length_tokens: int, trials: int) -> None:
        """`trials` questions at `length_tokens` come next."""
        self.emit(
            ProbeStarted(
                model_key=self.model_key, phase=phase, length_tokens=length_tokens, trials=trials
            )
        )

    def probed(
        self,
        phase: str,
        length_tokens: int,
        tally: tuple[int, int],
        verdict: Verdict,
        failure: Cause | None = None,
    ) -> None:
        """What is known at `length_tokens`; `tally` are the passes and the trials."""
        passes, trials = tally
        self.emit(
            ProbeFinished(
                model_key=self.model_key,
                phase=phase,
                length_tokens=length_tokens,
                passes=passes,
                trials=trials,
                verdict=verdict,
                failure=failure,
            )
        )
