"""Frozen facts: what is known about models, replies, trials and measurements.

Units are in the names: ``_tokens``, ``_s`` (seconds), ``_bytes``. A *length* is always
the prompt plus the reserved reply, in the model's own tokens.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import datetime

import attrs

from lmstrix.causes import UNFINISHED, Cause, Judgement, StopReason, Verdict
from lmstrix.engines import LoadedInstance, LoadProgress, MemoryEstimate, PrefillProgress, Status

__all__ = [
    "SCHEMA_VERSION",
    "Baseline",
    "Cause",
    "ContextReport",
    "Cost",
    "CurvePoint",
    "DepthTally",
    "Environment",
    "Interval",
    "Judgement",
    "LevelReport",
    "LoadProgress",
    "LoadedInstance",
    "MemoryEstimate",
    "Method",
    "ModelInfo",
    "Observation",
    "PrefillProgress",
    "Probe",
    "Prompt",
    "Proportion",
    "Question",
    "Region",
    "RegionReport",
    "Reply",
    "ReplyChunk",
    "Status",
    "StopReason",
    "StoredMeasurement",
    "StoredReport",
    "Trial",
    "Usable",
    "Verdict",
]

SCHEMA_VERSION = 1
"""Version of the JSON form of `ContextReport`. Raised when a key changes its meaning."""


class Region(enum.StrEnum):
    """A part of the window. Each has a limit of its own; the smallest is the true context."""

    HEAD = "head"
    """The first tenth: the system prompt and the task stand there."""
    EARLY = "early"
    MIDDLE = "middle"
    LATE = "late"
    TAIL = "tail"
    """The last tenth, up to the question."""

    @property
    def span(self) -> tuple[float, float]:
        """Where it begins and ends, as shares of the window."""
        return _SPANS[self]

    @classmethod
    def at(cls, depth: float) -> Region:
        """The region in which `depth`, from 0 to 1, lies."""
        return next((region for region, (_, end) in _SPANS.items() if depth < end), cls.TAIL)


_SPANS = {
    Region.HEAD: (0.0, 0.1),
    Region.EARLY: (0.1, 0.35),
    Region.MIDDLE: (0.35, 0.65),
    Region.LATE: (0.65, 0.9),
    Region.TAIL: (0.9, 1.0),
}


@attrs.frozen(kw_only=True)
class ModelInfo:
    """A model as its adapter knows it before loading.

    `key` is what a user types; `path` is where the adapter finds it. Both are untrusted
    text. `declared_context` is the model's own claim, in tokens, or None where it makes none.
    `digest` identifies the content as well as the adapter can tell cheaply, so that a
    replaced file is a different model; an empty string where it cannot tell.
    """

    key: str
    path: str = ""
    format: str = ""
    architecture: str = ""
    size_bytes: int = 0
    declared_context: int | None = None
    parameters: str = ""
    quantization: str = ""
    type: str = "llm"
    digest: str = ""


@attrs.frozen(kw_only=True)
class Prompt:
    """One user message, the first words of the answer, and what stands before both.

    The adapter wraps them in the model's chat template; where a model has none, `system` with an
    empty line behind it, `user` and `answer_prefix` follow each other as plain text. A model that
    would think first is given an already closed thought whenever there is an answer prefix.
    """

    user: str
    answer_prefix: str = ""
    system: str = ""
    """Instructions for the whole chat, as the template's system message; empty: none are sent."""


@attrs.frozen(kw_only=True)
class Question:
    """One question: what to send, and what a validator needs to judge the reply."""

    prompt: Prompt
    expected: str
    kind: str
    depth: float | None
    max_tokens: int
    stop: tuple[str, ...] = ()
    region: Region | None = None
    """The part of the window that holds the answer; None if the question is about no one place."""
    parts: tuple[Question, ...] = ()
    """The single questions, if this request asks several at once. They share `prompt`: the prompt
    of a part holds its own answer prefix and no document."""


@attrs.frozen(kw_only=True)
class ReplyChunk:
    """A piece of a reply while it is being generated."""

    text: str
    is_reasoning: bool = False


@attrs.frozen(kw_only=True)
class Reply:
    """What the engine answered, in its own numbers."""

    text: str
    reasoning: str = ""
    stop_reason: StopReason = StopReason.UNKNOWN
    prompt_tokens: int
    """The whole prompt, cached tokens included."""
    cached_tokens: int | None = None
    """Prompt tokens that were not read again; None where the engine does not tell."""
    generated_tokens: int = 0
    ttft_s: float | None = None
    tokens_per_second: float | None = None


@attrs.frozen(kw_only=True)
class Trial:
    """One question asked at one length, and what came of it.

    `phase` is ``baseline``, ``search`` or ``certify``; (`level`, `phase`, `length_tokens`,
    `seed`, `region`, `index`) names the trial within its measurement.

    If one request asked several questions, its first trial holds the tokens and the times, and
    the others hold 0 tokens and no times.
    """

    phase: str
    length_tokens: int
    seed: int
    index: int
    depth: float | None
    """Where the answer stood in the prompt: 0 is the first token, 1 the last."""
    kind: str
    judgement: Judgement
    prompt_tokens: int
    cached_tokens: int | None
    generated_tokens: int
    ttft_s: float | None = None
    tokens_per_second: float | None = None
    stop_reason: StopReason = StopReason.UNKNOWN
    expected: str = ""
    reply: str = ""
    level: str = ""
    """The level that it was asked for; empty for the measurement's own validator."""
    region: Region | None = None
    """The part of the window that held the answer; None for a question about no one place."""


@attrs.frozen(kw_only=True)
class DepthTally:
    """Passes of the questions about one region at one length."""

    region: Region
    passes: int
    trials: int
    lost_facts: int | None = None
    """How many different facts were answered wrong at least as often as right; None if that is not
    known. A fact that a model dislikes is missed however often it is asked for."""


@attrs.frozen(kw_only=True)
class Observation:
    """All that is known at one length: answers, or a hard failure with its cause."""

    length_tokens: int
    passes: int = 0
    trials: int = 0
    """Trials that count: passes and fails, without the inconclusive ones."""
    inconclusive: int = 0
    failure: Cause | None = None
    """Set if the engine itself failed, so that there is nothing to count."""
    regions: tuple[DepthTally, ...] = ()
    """The same passes and trials by region, those with trials only; empty for questions about no
    one place."""


@attrs.frozen(kw_only=True)
class Probe:
    """An observation with its verdict."""

    observation: Observation
    verdict: Verdict


@attrs.frozen(kw_only=True)
class Proportion:
    """Lower and upper end of an interval for a proportion (Wilson, 95 %)."""

    low: float
    high: float


@attrs.frozen(kw_only=True)
class Interval:
    """An interval for the true context, in tokens, at a confidence level."""

    low: int
    high: int | None
    level: float


@attrs.frozen(kw_only=True)
class Baseline:
    """The model's own pass rate at a short length."""

    passes: int
    trials: int
    length_tokens: int = 0

    @property
    def rate(self) -> float:
        """Passes per trial, 0 where there was no trial."""
        return self.passes / self.trials if self.trials else 0.0


@attrs.frozen(kw_only=True)
class CurvePoint:
    """All that was measured at one length."""

    length_tokens: int
    trials: int
    passes: int
    verdict: Verdict
    wilson: Proportion
    ttft_s: float | None = None
    """Longest time to first token at this length: the one that read the new tokens."""
    tokens_per_second: float | None = None
    """Median generation speed."""
    full_ttft_s: float | None = None
    """Expected time to first token of a fresh prompt of this length (see `lmstrix.speed`)."""
    inconclusive: int = 0
    depths: tuple[DepthTally, ...] = ()
    failure: Cause | None = None


@attrs.frozen(kw_only=True)
class Cost:
    """What a measurement cost, in the engine's own numbers."""

    loads: int = 0
    prompt_tokens: int = 0
    """Prompt tokens that the engine really read, cached ones not counted."""
    cached_tokens: int = 0
    """Prompt tokens that it did not have to read again."""
    generated_tokens: int = 0
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class Method:
    """How the number was found: all that a second person needs to ask the same questions."""

    strategy: str
    validator: str
    tolerance: float
    ratio: float
    seed: int
    max_context: int | None = None
    absolute: bool = False
    """Whether `ratio` is a pass rate, instead of a part of the baseline's."""
    levels: tuple[str, ...] = ()
    """What else was asked, beside the validator's own questions."""
    average: bool = False
    """Whether the pass rate is averaged over the window, as published benchmarks do, instead of
    required in each region."""


@attrs.frozen(kw_only=True)
class Environment:
    """Where the number was found."""

    adapter: str
    engine: str = ""
    versions: Mapping[str, str] = attrs.field(factory=dict[str, str])
    load_config: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class LevelReport:
    """How far one kind of use reaches: loading, writing language, recall, and deeper ones.

    `limit_tokens` is the largest length that passed, None where the model cannot do it at
    short length either; `bracket` is (that length, the smallest that failed or None: nothing
    that was read failed). `cause` says why it is not larger.
    """

    name: str
    limit_tokens: int | None
    bracket: tuple[int, int | None]
    cause: Cause
    baseline: Baseline
    curve: tuple[CurvePoint, ...] = ()


@attrs.frozen(kw_only=True)
class RegionReport:
    """How far one region of the window is kept.

    `limit_tokens` is the largest length at which the region passed, None if it never did;
    `bracket` is (that length or 0, the smallest length at which the region failed, or None if it
    never failed). `cause` says why the limit is not larger.
    """

    region: Region
    limit_tokens: int | None
    bracket: tuple[int, int | None]
    cause: Cause


@attrs.frozen(kw_only=True)
class Usable:
    """What is fast enough as well: `limit_tokens` is the largest measured length, up to the true
    context, that meets both wishes (None: none does).
    """

    limit_tokens: int | None
    min_tokens_per_second: float | None = None
    max_ttft_s: float | None = None


@attrs.frozen(kw_only=True)
class ContextReport:
    """The result of one measurement: declared, loadable and true context, with evidence.

    `true_context` is None where nothing could be measured. `cause` says why it is not
    larger. `bracket` is (largest length that passed, smallest that failed or None).
    """

    model: ModelInfo
    declared_context: int | None
    loadable_context: int | None
    true_context: int | None
    cause: Cause
    certified: bool
    bracket: tuple[int, int | None]
    interval: Interval
    monotone: bool
    baseline: Baseline
    curve: tuple[CurvePoint, ...]
    cost: Cost
    method: Method
    environment: Environment
    started_at: datetime
    finished_at: datetime
    regions: tuple[RegionReport, ...] = ()
    """The limit of each region of the window, from the head to the tail; empty if the validator's
    questions are about no one place, or if the average over the window was asked for. Without an
    engine failure or a failing level, the smallest limit is the true context."""
    levels: tuple[LevelReport, ...] = ()
    """Each kind of use with a limit of its own, the validator's among them; empty where only
    the validator's questions were asked."""
    estimate: int | None = None
    """The best single guess of where the threshold lies, in tokens, where the strategy makes one.
    With noisy answers it is nearer than either end of the bracket, but nothing was tried there."""
    usable: Usable | None = None
    """What is fast enough, where that was asked for."""
    notes: tuple[str, ...] = ()
    """What a reader should know beside the numbers, one sentence each."""
    schema_version: int = SCHEMA_VERSION

    @property
    def measured(self) -> bool:
        """Whether there is a true context that the evidence carries."""
        return self.true_context is not None and self.cause not in UNFINISHED


@attrs.frozen(kw_only=True)
class StoredMeasurement:
    """An unfinished measurement as a store gives it back."""

    id: str
    key: str
    started_at: datetime
    trials: tuple[Trial, ...]
    failures: tuple[Observation, ...] = ()
    cost: Cost = attrs.field(factory=Cost)
    deaths: tuple[int, ...] = ()
    """Context lengths, in tokens, whose load began and never ended: whoever tried it died there.
    One entry for each death, in order."""


@attrs.frozen(kw_only=True)
class StoredReport:
    """A finished measurement as a store gives it back."""

    id: str
    key: str
    report: ContextReport
