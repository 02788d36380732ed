"""What an observer hears while a measurement runs: frozen, keyword-only facts."""

from __future__ import annotations

import attrs

from lmstrix.errors import StoreError
from lmstrix.models import (
    Baseline,
    BenchSample,
    Cause,
    ContextMap,
    ContextReport,
    ModelInfo,
    PrefillProgress,
    SpeedBench,
    Trial,
    Verdict,
)


@attrs.frozen(kw_only=True)
class Event:
    """Root of all events; `model_key` says whose measurement it is (untrusted text)."""

    model_key: str


@attrs.frozen(kw_only=True)
class WaitingForTurn(Event):
    """Another measurement uses the same machine or server, and this one waits for its end.

    `pid` is its process, None if that is not known; `holder_key` its model, empty if that
    is not known (untrusted text, as both are told by a file).
    """

    pid: int | None
    holder_key: str


@attrs.frozen(kw_only=True)
class MeasurementStarted(Event):
    """The first event, except `WaitingForTurn`.

    `resumed_trials` were taken over from an interrupted measurement; `certifies` says whether a
    certificate follows the search.
    """

    model: ModelInfo
    resumed_trials: int = 0
    certifies: bool = True


@attrs.frozen(kw_only=True)
class PhaseStarted(Event):
    """The measurement goes into ``load``, ``baseline``, ``search``, ``levels`` or ``certify``."""

    phase: str


@attrs.frozen(kw_only=True)
class LoadStarted(Event):
    """A load at `context_length` tokens was asked for."""

    context_length: int


@attrs.frozen(kw_only=True)
class LoadProgressed(Event):
    """The engine says how far the load is, from 0 to 1."""

    context_length: int
    fraction: float


@attrs.frozen(kw_only=True)
class LoadFinished(Event):
    """The load ended: with an effective context, or with an error text (untrusted)."""

    context_length: int
    effective_context: int | None
    error: str = ""


@attrs.frozen(kw_only=True)
class ProbeStarted(Event):
    """`trials` questions at `length_tokens` come next."""

    phase: str
    length_tokens: int
    trials: int


@attrs.frozen(kw_only=True)
class PrefillProgressed(Event):
    """The engine says how far it has read the prompt at `length_tokens`."""

    length_tokens: int
    progress: PrefillProgress


@attrs.frozen(kw_only=True)
class TrialFinished(Event):
    """One question was asked and judged; the trial is already in the store."""

    trial: Trial


@attrs.frozen(kw_only=True)
class ProbeFinished(Event):
    """All that is known at this length so far, with its verdict."""

    phase: str
    length_tokens: int
    passes: int
    trials: int
    verdict: Verdict
    failure: Cause | None = None
    inconclusive: int = 0
    """Replies that could be judged neither way; `trials` is without them."""


@attrs.frozen(kw_only=True)
class BaselineMeasured(Event):
    """The model's own pass rate at short length."""

    baseline: Baseline


@attrs.frozen(kw_only=True)
class BracketChanged(Event):
    """The true context lies in [`low`, `high`); `high` is None while nothing has failed."""

    low: int
    high: int | None


@attrs.frozen(kw_only=True)
class ReplyTimed(Event):
    """A benchmark timed one reply."""

    length_tokens: int
    sample: BenchSample


@attrs.frozen(kw_only=True)
class Retrying(Event):
    """Something failed that is worth another attempt; `reason` is untrusted text."""

    attempt: int
    reason: str


@attrs.frozen(kw_only=True)
class Noted(Event):
    """A sentence that will also stand in the report's notes."""

    text: str


@attrs.frozen(kw_only=True)
class MeasurementFinished(Event):
    """Last event: the report, also if the measurement ended without a number or was cancelled.

    With `store_error` the store does not have everything that the report says.
    """

    report: ContextReport
    store_error: StoreError | None = None


@attrs.frozen(kw_only=True)
class MapFinished(Event):
    """Last event of a map."""

    map: ContextMap


@attrs.frozen(kw_only=True)
class BenchFinished(Event):
    """Last event of a benchmark, with what was measured, also if it was cancelled."""

    bench: SpeedBench
