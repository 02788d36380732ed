"""Frozen facts: models, replies, trials, measurements, maps, benchmarks and engines.

Units are in the names: ``_tokens``, ``_s`` (seconds), ``_bytes``. A *length* is always
the prompt plus the reserved reply, in the model's own tokens.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from statistics import median

import attrs

from lmstrix.stats import Proportion, fisher_tail, isotonic_fall, wilson


class StopReason(enum.StrEnum):
    """Why the engine stopped generating."""

    END = "end"
    STOP_STRING = "stop_string"
    MAX_TOKENS = "max_tokens"
    CONTEXT_LENGTH = "context_length"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"


class Judgement(enum.StrEnum):
    """A validator's judgement of one reply. ``INCONCLUSIVE`` does not count."""

    PASS = "pass"
    WRONG = "wrong"
    GIBBERISH = "gibberish"
    EMPTY = "empty"
    INCONCLUSIVE = "inconclusive"


class Verdict(enum.StrEnum):
    """The verdict of all trials at one length."""

    PASS = "pass"
    FAIL = "fail"
    UNDECIDED = "undecided"


class Cause(enum.StrEnum):
    """Why the true context is not larger, or why there is none."""

    DECLARED_MAXIMUM = "declared_maximum"
    """Nothing failed up to the declared context, so the answer is at least that."""
    MAX_CONTEXT = "max_context"
    """Nothing failed up to the largest context that the user asked to try."""
    NOTHING_FAILED = "nothing_failed"
    """Nothing failed in the text that was read, so the answer is at least that long."""
    LOAD_REFUSED = "load_refused"
    LOAD_FAILED = "load_failed"
    LOAD_HUNG = "load_hung"
    """A load made no progress, while the server answered other calls."""
    CLAMPED = "clamped"
    CRASHED_ON_FILL = "crashed_on_fill"
    OVERFLOW = "overflow"
    TRUNCATED = "truncated"
    """The server dropped part of the prompt and did not say so."""
    GIBBERISH = "gibberish"
    FORGETS = "forgets"
    TOO_SLOW = "too_slow"
    NOT_MEASURABLE = "not_measurable"
    """The model cannot do the validator's task even at the baseline's short length."""
    INVALID_MODEL = "invalid_model"
    UNSUPPORTED_MODEL = "unsupported_model"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_IN_USE = "model_in_use"
    """Loading it would have replaced what the user has loaded."""
    BUDGET_SPENT = "budget_spent"
    INTERRUPTED = "interrupted"
    INFRASTRUCTURE = "infrastructure"
    """The engine was unreachable or silent. Says nothing about the model."""
    INCONCLUSIVE = "inconclusive"
    """Too many replies could be judged neither way."""


UNFINISHED = frozenset(
    {
        Cause.NOT_MEASURABLE,
        Cause.INVALID_MODEL,
        Cause.UNSUPPORTED_MODEL,
        Cause.MODEL_NOT_FOUND,
        Cause.MODEL_IN_USE,
        Cause.BUDGET_SPENT,
        Cause.INTERRUPTED,
        Cause.INFRASTRUCTURE,
        Cause.INCONCLUSIVE,
    }
)
"""Causes of measurements that did not end with a verdict."""
RESUMABLE = frozenset({Cause.BUDGET_SPENT, Cause.INTERRUPTED, Cause.INFRASTRUCTURE})
"""Causes after which a later run continues; the report holds the results so far. A full measurement
also continues a quick one: see `ContextReport.resumable`."""


@attrs.frozen(kw_only=True)
class MemoryEstimate:
    """The expected memory of a load at `context_length`, in bytes."""

    context_length: int
    model_bytes: int
    context_bytes: int
    available_bytes: int | None = None
    """Free memory of the machine now; None if unknown."""

    @property
    def total_bytes(self) -> int:
        """Weights and context together."""
        return self.model_bytes + self.context_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the machine has that much now; None if unknown."""
        return None if self.available_bytes is None else self.total_bytes <= self.available_bytes


@attrs.frozen(kw_only=True)
class LoadProgress:
    """The progress of a load, from 0 to 1."""

    fraction: float


@attrs.frozen(kw_only=True)
class PrefillProgress:
    """The progress of reading one prompt, in tokens."""

    prompt_tokens: int
    cached_tokens: int
    processed_tokens: int
    """Tokens read so far, including cached ones."""


@attrs.frozen(kw_only=True)
class LoadedInstance:
    """A model that is in the engine's memory now."""

    key: str
    identifier: str
    context_length: int | None = None
    ours: bool = False


@attrs.frozen(kw_only=True)
class Status:
    """The state of an adapter's engine."""

    adapter: str
    engine: str
    available: bool
    detail: str = ""
    hint: str = ""
    versions: Mapping[str, str] = attrs.field(factory=dict[str, str])
    load_config: Mapping[str, str] = attrs.field(factory=dict[str, str])
    """The settings, besides the context, with which models are loaded: results depend on them."""
    loaded: tuple[LoadedInstance, ...] = ()
    model_folders: tuple[str, ...] = ()


UNDECLARED_CONTEXT = 131072
"""What is tried at most if a model declares nothing, in tokens."""

SCHEMA_VERSION = 1
"""Version of the JSON form of `ContextReport`. Raised when a key changes its meaning."""


class Region(enum.StrEnum):
    """A part of the window. Each has its own limit; the smallest is the true context."""

    HEAD = "head"
    """The first tenth, with the system prompt and the task."""
    EARLY = "early"
    MIDDLE = "middle"
    LATE = "late"
    TAIL = "tail"
    """The last tenth, up to the question."""

    @property
    def span(self) -> tuple[float, float]:
        """Its beginning and end, as shares of the window."""
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

    Users type `key`; the adapter finds the model at `path`. Both are untrusted text.
    `declared_context` is the claim of the model's metadata, in tokens, None without one. `digest`
    identifies the content as well as the adapter can cheaply, so that a replaced file is a
    different model; empty if it cannot.
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
    load_config: Mapping[str, str] = attrs.field(factory=dict[str, str], hash=False)
    """The engine's settings for this model, besides the context: results depend on them."""

    @property
    def generates_text(self) -> bool:
        """Whether it can be asked questions, as an embedding model cannot."""
        return self.type in ("llm", "vlm")

    @property
    def identity(self) -> str:
        """The identity to which results belong: the content if it is known, else the key."""
        return self.digest or self.key


class ModelList(tuple[ModelInfo, ...]):
    """Models, sorted by key, which notebooks show as a table. Slices are plain tuples."""

    __slots__ = ()


@attrs.frozen(kw_only=True)
class Prompt:
    """One user message, the first words of the answer, and a system message.

    The adapter wraps them in the model's chat template. Without a template `system`, an empty line,
    `user` and `answer_prefix` follow each other as plain text. With an answer prefix, a model that
    thinks first is given a closed thought.
    """

    user: str
    answer_prefix: str = ""
    system: str = ""
    """The template's system message; none is sent if it is empty."""


@attrs.frozen(kw_only=True)
class Question:
    """One question: its prompt, and what a validator needs to judge the reply."""

    prompt: Prompt
    expected: str
    kind: str
    depth: float | None
    max_tokens: int
    stop: tuple[str, ...] = ()
    region: Region | None = None
    """The part of the window that holds the answer; None if the answer is not in one place."""
    parts: tuple[Question, ...] = ()
    """The single questions, if this request asks several at once. The prompt of a part holds its
    own answer prefix and no document."""


@attrs.frozen(kw_only=True)
class ReplyChunk:
    """A piece of a reply while it is being generated."""

    text: str
    is_reasoning: bool = False


_THOUGHT = re.compile(
    r"\A\s*(?:<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)"
    r"|<\|channel\|>analysis<\|message\|>.*?(?:<\|end\|>|\Z))",
    re.DOTALL | re.IGNORECASE,
)
"""A thought that the engine did not set apart."""


@attrs.frozen(kw_only=True)
class Reply:
    """A reply, in the engine's own numbers."""

    text: str
    reasoning: str = ""
    stop_reason: StopReason = StopReason.UNKNOWN
    prompt_tokens: int
    """The whole prompt, including cached tokens."""
    cached_tokens: int | None = None
    """Prompt tokens that were not read again; None if the engine does not report them."""
    generated_tokens: int = 0
    ttft_s: float | None = None
    tokens_per_second: float | None = None

    @property
    def answer(self) -> str | None:
        """The text without a thought in it; None if cancelled, or cut off inside a thought."""
        if self.stop_reason is StopReason.CANCELLED:
            return None
        said, thoughts = _THOUGHT.subn("", self.text)
        ran_out = self.stop_reason in {StopReason.MAX_TOKENS, StopReason.CONTEXT_LENGTH}
        thought = bool(thoughts) or bool(self.reasoning)
        return None if thought and ran_out and not said.strip() else said


@attrs.frozen(kw_only=True)
class Trial:
    """One question asked at one length, and its result.

    `phase` is ``baseline``, ``search``, ``certify`` or another of `lmstrix.measure.state`.
    (`level`, `phase`, `length_tokens`, `seed`, `region`, `index`) identifies the trial in its
    measurement. If one request asked several questions, its first trial holds the tokens and
    times, and the others 0 tokens and no times.
    """

    phase: str
    length_tokens: int
    seed: int
    index: int
    depth: float | None
    """The place of the answer in the prompt: 0 is the first token, 1 the last."""
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
    """The level of the question; empty for the measurement's own validator."""
    region: Region | None = None
    """See `Question.region`."""


@attrs.frozen(kw_only=True)
class DepthTally:
    """Passes of the questions about one region at one length."""

    region: Region
    passes: int
    trials: int
    inconclusive: int = 0
    """Replies that were judged neither way: none of the trials."""
    lost_facts: int | None = None
    """How many different facts were answered wrong at least as often as right; None if unknown. A
    fact that a model dislikes is missed every time."""


@attrs.frozen(kw_only=True)
class Observation:
    """The evidence at one length: answers, or a hard failure with its cause."""

    length_tokens: int
    passes: int = 0
    trials: int = 0
    """Passes and fails, without the inconclusive ones."""
    inconclusive: int = 0
    failure: Cause | None = None
    """Set if the engine itself failed, so that nothing counts."""
    regions: tuple[DepthTally, ...] = ()
    """The same passes and trials by region, without regions that have none; empty for questions
    that are not about one place."""


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
    inconclusive: int = 0
    """Replies that were judged neither way: none of the trials."""

    @property
    def rate(self) -> float:
        """Passes per trial, 0 if there was no trial."""
        return self.passes / self.trials if self.trials else 0.0


@attrs.frozen(kw_only=True)
class CurvePoint:
    """The results at one length."""

    length_tokens: int
    trials: int
    passes: int
    verdict: Verdict
    wilson: Proportion
    ttft_s: float | None = None
    """Longest time to first token at this length: that of the reply that read the new tokens."""
    tokens_per_second: float | None = None
    """Median generation speed."""
    full_ttft_s: float | None = None
    """Expected time to first token of a fresh prompt of this length (see `lmstrix.speed`)."""
    inconclusive: int = 0
    depths: tuple[DepthTally, ...] = ()
    failure: Cause | None = None


@attrs.frozen(kw_only=True)
class Cost:
    """The cost of a measurement, in the engine's own numbers."""

    loads: int = 0
    prompt_tokens: int = 0
    """Prompt tokens that the engine read, without cached ones."""
    cached_tokens: int = 0
    """Prompt tokens that it did not read again."""
    generated_tokens: int = 0
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class Method:
    """The settings needed to ask the same questions again."""

    strategy: str
    validator: str
    tolerance: float
    ratio: float
    seed: int
    max_context: int | None = None
    absolute: bool = False
    """Whether `ratio` is a pass rate, not a part of the baseline's."""
    levels: tuple[str, ...] = ()
    """Other questions asked, besides the validator's own."""
    average: bool = False
    """Whether the pass rate is averaged over the window, as published benchmarks do, and not
    required in each region."""
    quick: bool = False
    """Whether the search ended with a wider bracket and without a certificate. A full measurement
    of the same kind continues from it."""


@attrs.frozen(kw_only=True)
class Environment:
    """The engine and its settings."""

    adapter: str
    engine: str = ""
    versions: Mapping[str, str] = attrs.field(factory=dict[str, str])
    load_config: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(kw_only=True)
class LevelReport:
    """The limit of one level: coherence, recall, or another validator.

    `limit_tokens` is the largest length that passed, None if the model cannot do it even at a short
    length; `bracket` is (that length, the smallest that failed or None). `cause` explains why the
    limit is not larger.
    """

    name: str
    limit_tokens: int | None
    bracket: tuple[int, int | None]
    cause: Cause
    baseline: Baseline
    curve: tuple[CurvePoint, ...] = ()


@attrs.frozen(kw_only=True)
class RegionReport:
    """The limit of one region of the window.

    `limit_tokens` is the largest length at which the region passed, at least the length of the
    baseline, None if it is not known; `bracket` is (that length or 0, the smallest length at which
    it failed or None). `cause` explains why the limit is not larger.
    """

    region: Region
    limit_tokens: int | None
    bracket: tuple[int, int | None]
    cause: Cause


@attrs.frozen(kw_only=True)
class Usable:
    """The usable context: `limit_tokens` is the largest measured length, up to the true context,
    that is also fast enough; None if none is.
    """

    limit_tokens: int | None
    min_tokens_per_second: float | None = None
    max_ttft_s: float | None = None


WIDEST_CERTIFIED = 2
"""See `ContextReport.vague`. Simulated models that answer one question in five wrong at any length
had right results with intervals below a factor of 1.5 and wrong ones mostly above 3."""
FEWEST_BEYOND, CLEARLY_WORSE = 20, 1 / 1000
"""See `ContextReport.vague`. A search compares some hundred regions of lengths, so that one is
worse than the rest by chance less often than this is common."""


@attrs.frozen(kw_only=True)
class ContextReport:
    """The result of one measurement: declared, loadable and true context, with evidence.

    `true_context` is None if nothing could be measured. `cause` explains why it is not larger.
    `bracket` is (largest length that passed, smallest that failed or None).
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
    """The limit of each region of the window, from the head to the tail; empty if the questions are
    not about one place, or if the pass rate is averaged over the window. Without an engine failure
    or a failing level, the smallest limit is the true context."""
    levels: tuple[LevelReport, ...] = ()
    """The limit of each level, including the validator's own; empty if only the validator's
    questions were asked."""
    estimate: int | None = None
    """The best single guess of the threshold, in tokens, if the strategy makes one. With noisy
    answers it is nearer than either end of the bracket, but nothing was tried there."""
    usable: Usable | None = None
    """The usable context, if the user set a least speed or a longest wait."""
    notes: tuple[str, ...] = ()
    """Notes for the reader, one sentence each."""
    schema_version: int = SCHEMA_VERSION

    def __str__(self) -> str:
        known = "unknown" if self.true_context is None else f"{self.true_context:,} tokens"
        certified = "certified" if self.certified else "not certified"
        return f"{self.model.key}: true context {known} ({self.cause}), {certified}"

    @property
    def resumable(self) -> bool:
        """Whether a later measurement of the same kind continues from these results."""
        return self.cause in RESUMABLE or self.method.quick

    @property
    def measured(self) -> bool:
        """Whether there is a true context that the evidence supports."""
        return self.true_context is not None and self.cause not in UNFINISHED

    @property
    def vague(self) -> bool:
        """Whether a length failed, but the limit may be more than twice the true context: the
        interval reaches so far, or the answers up to there are as right as at passing lengths. They
        vary too much. Such a result is not certified.
        """
        # What a server that loads nothing has loaded is not known.
        loaded = self.loadable_context or self.declared_context
        tried = [n for n in (loaded, self.method.max_context) if n is not None]
        high = self.interval.high or min(tried, default=0)
        failed = self.bracket[1] is not None and bool(self.true_context)
        wide = high > WIDEST_CERTIFIED * (self.true_context or 0)
        return failed and (wide or self._answered_beyond())

    def _answered_beyond(self) -> bool:
        """Whether the answers beyond the length that failed pass together, up to twice that length
        or more, and that length is not clearly worse.
        """
        end = self.bracket[1]
        failed = next((p for p in self.curve if p.length_tokens == end), None)
        if end is None or failed is None or failed.verdict is not Verdict.FAIL:
            return False
        if failed.failure not in {None, Cause.FORGETS, Cause.GIBBERISH}:
            return False
        ratio = self.method.ratio * (1 if self.method.absolute else self.baseline.rate)
        found = [(d.passes, d.trials) for d in failed.depths if d.trials]
        few, of = min(found or [(failed.passes, failed.trials)], key=lambda t: t[0] / max(1, t[1]))
        if few >= ratio * of:
            return False  # a level failed there, not these answers
        passes = trials = 0
        for point in sorted(self.curve, key=lambda p: p.length_tokens):
            if point.length_tokens <= end:
                continue
            passes, trials = passes + point.passes, trials + point.trials
            if (
                point.length_tokens >= WIDEST_CERTIFIED * end
                and trials >= FEWEST_BEYOND
                and passes >= ratio * trials
                and fisher_tail(few, of, few + passes, of + trials) >= CLEARLY_WORSE
            ):
                return True
        return False


@attrs.frozen(kw_only=True)
class StoredMeasurement:
    """An unfinished measurement as a store returns it."""

    id: str
    key: str
    started_at: datetime
    trials: tuple[Trial, ...]
    failures: tuple[Observation, ...] = ()
    cost: Cost = attrs.field(factory=Cost)
    deaths: tuple[int, ...] = ()
    """Context lengths, in tokens, of loads that never ended because their process died: one entry
    for each death, in order."""


@attrs.frozen(kw_only=True)
class StoredReport:
    """A finished measurement as a store returns it."""

    id: str
    key: str
    report: ContextReport


CHECK_SCHEMA_VERSION = 1
"""Version of the JSON form of `SizeCheck`."""

_FAILING = frozenset(
    {
        Cause.LOAD_REFUSED,
        Cause.LOAD_FAILED,
        Cause.LOAD_HUNG,
        Cause.CLAMPED,
        Cause.CRASHED_ON_FILL,
        Cause.OVERFLOW,
        Cause.TRUNCATED,
        Cause.TOO_SLOW,
    }
)
"""Causes that make a check fail, even if no question at its length was answered."""


class Outcome(enum.StrEnum):
    """The answer of a check."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@attrs.frozen(kw_only=True)
class SizeCheck:
    """Whether `model` works at `length_tokens` as it does at a short length, with evidence.

    A check is not a measurement of the true context: it says nothing about other lengths, and
    no store keeps it. `cause` is the reason for a fail or an inconclusive check, None for a pass.
    """

    model: ModelInfo
    length_tokens: int
    outcome: Outcome
    cause: Cause | None
    passes: int
    trials: int
    """Passes and fails, without the inconclusive answers."""
    wilson: Proportion
    """Of the pass rate, 95 %."""
    inconclusive: int
    ttft_s: float | None
    tokens_per_second: float | None
    baseline: Baseline
    levels: tuple[LevelReport, ...]
    cost: Cost
    method: Method
    environment: Environment
    started_at: datetime
    finished_at: datetime
    notes: tuple[str, ...] = ()
    schema_version: int = CHECK_SCHEMA_VERSION


def check_of(report: ContextReport, length_tokens: int) -> SizeCheck:
    """The check of a length, from the report of a measurement with `only_at`."""
    point = next((p for p in report.curve if p.length_tokens == length_tokens), None)
    outcome = _outcome(report, point)
    passes, trials = (point.passes, point.trials) if point else (0, 0)
    return SizeCheck(
        model=report.model,
        length_tokens=length_tokens,
        outcome=outcome,
        cause=None if outcome is Outcome.PASS else report.cause,
        passes=passes,
        trials=trials,
        wilson=wilson(passes, trials),
        inconclusive=point.inconclusive if point else 0,
        ttft_s=point.ttft_s if point else None,
        tokens_per_second=point.tokens_per_second if point else None,
        baseline=report.baseline,
        levels=report.levels,
        cost=report.cost,
        method=report.method,
        environment=report.environment,
        started_at=report.started_at,
        finished_at=report.finished_at,
        notes=report.notes,
    )


def _outcome(report: ContextReport, point: CurvePoint | None) -> Outcome:
    if point is not None and point.verdict is Verdict.FAIL:
        return Outcome.FAIL
    if report.cause in _FAILING or (point is None and report.cause is Cause.DECLARED_MAXIMUM):
        return Outcome.FAIL
    # If it was cut short, the answers so far are not a verdict.
    finished = report.cause in {Cause.DECLARED_MAXIMUM, Cause.MAX_CONTEXT}
    passed = point is not None and point.verdict is Verdict.PASS
    return Outcome.PASS if passed and finished else Outcome.INCONCLUSIVE


MAP_SCHEMA_VERSION = 1
"""Version of the JSON form of `ContextMap`."""

DEPTH_BINS = 10
"""Cells from the head to the tail; each is a tenth of the prompt."""


@attrs.frozen(kw_only=True)
class MapCell:
    """The answers about one tenth of the prompt at one length.

    `score` is the mean of the graded replies, from 0 to 1; for a validator that does not grade,
    the share of passes. `trials` counts the replies that could be judged.
    """

    length_tokens: int
    depth_bin: int
    trials: int
    passes: int
    score: float


@attrs.frozen(kw_only=True)
class Layer:
    """One validator's cells, in ascending order of length and depth, without empty ones."""

    name: str
    cells: tuple[MapCell, ...]

    def rate(self, length_tokens: int) -> float | None:
        """The mean score at a length; None if nothing was asked."""
        cells = [cell for cell in self.cells if cell.length_tokens == length_tokens]
        trials = sum(cell.trials for cell in cells)
        return sum(cell.score * cell.trials for cell in cells) / trials if trials else None

    def scores(self, length_tokens: int) -> tuple[float | None, ...]:
        """The score in each tenth of the prompt, then that of all; None if nothing was asked."""
        known = {c.depth_bin: c.score for c in self.cells if c.length_tokens == length_tokens}
        return *(known.get(depth) for depth in range(DEPTH_BINS)), self.rate(length_tokens)

    def limit(self, ratio: float) -> int | None:
        """The largest length up to which the score keeps `ratio` of its value at the shortest.

        Scores are first made to fall with the length (`lmstrix.stats.isotonic_fall`), so that one
        lucky length beyond the limit, or an unlucky one below, does not decide. None if nothing
        was asked.
        """
        weights: Counter[int] = Counter()
        for cell in self.cells:
            weights[cell.length_tokens] += cell.trials
        asked = [(n, rate, weights[n]) for n in weights if (rate := self.rate(n)) is not None]
        if not asked:
            return None
        fit = isotonic_fall([rate for _, rate, _ in asked], [float(w) for *_, w in asked])
        kept = [n for (n, _, _), rate in zip(asked, fit, strict=True) if rate >= ratio * fit[0]]
        return max(kept, default=None)  # a file may ask for a ratio above 1


@attrs.frozen(kw_only=True)
class MapCost:
    """The cost of a map, in the engine's own numbers. Tokens of the document, and tokens of
    questions, are counted apart.
    """

    document_tokens: int = 0
    question_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    questions: int = 0
    loads: int = 1
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class ContextMap:
    """Scores by length and depth, for the price of one climb."""

    model: ModelInfo
    lengths: tuple[int, ...]
    layers: tuple[Layer, ...]
    cost: MapCost
    environment: Environment
    seed: int
    ratio: float
    started_at: datetime
    finished_at: datetime
    notes: tuple[str, ...] = ()
    schema_version: int = MAP_SCHEMA_VERSION

    def layer(self, name: str) -> Layer:
        """The cells of one validator; raises `KeyError` if it was not asked."""
        return {layer.name: layer for layer in self.layers}[name]


def cells_of(
    answers: Sequence[tuple[int, float, bool, float]],
) -> tuple[MapCell, ...]:
    """Cells from (length, depth from 0 to 1, passed, score)."""
    binned = sorted(
        (length, min(DEPTH_BINS - 1, int(depth * DEPTH_BINS)), passed, score)
        for length, depth, passed, score in answers
    )
    cells: list[MapCell] = []
    for (length, depth_bin), group in groupby(binned, key=lambda answer: answer[:2]):
        answered = list(group)
        cells.append(
            MapCell(
                length_tokens=length,
                depth_bin=depth_bin,
                trials=len(answered),
                passes=sum(passed for *_, passed, _ in answered),
                score=sum(score for *_, score in answered) / len(answered),
            )
        )
    return tuple(cells)


BENCH_SCHEMA_VERSION = 1
"""Version of the JSON form of `SpeedBench`."""


@attrs.frozen(kw_only=True)
class BenchSample:
    """One reply, in the engine's own numbers.

    If `warm` is false the prompt is a text that the engine has never seen; if it is true, it is
    the same text with another request at its end.
    """

    warm: bool
    prompt_tokens: int
    """The whole prompt, including cached tokens."""
    cached_tokens: int | None
    """Prompt tokens that were not read again; None if the engine does not report them."""
    generated_tokens: int
    ttft_s: float | None
    tokens_per_second: float | None
    seconds: float
    """From the request to the whole reply, by our clock."""

    @property
    def read_tokens(self) -> int:
        """Prompt tokens that were read."""
        return self.prompt_tokens - (self.cached_tokens or 0)

    @property
    def prefill_tokens_per_second(self) -> float | None:
        """Tokens read per second until the first token of the reply; None if unknown."""
        return self.read_tokens / self.ttft_s if self.ttft_s else None

    @property
    def reused(self) -> float | None:
        """The share of the prompt that came from the KV cache, from 0 to 1; None if unknown."""
        if self.cached_tokens is None or not self.prompt_tokens:
            return None
        return self.cached_tokens / self.prompt_tokens


@attrs.frozen(kw_only=True)
class BenchPoint:
    """The results at one length: medians, None if unknown, and the samples behind them."""

    length_tokens: int
    """Prompt and reserved reply."""
    prefill_tokens_per_second: float | None
    """Reading a prompt that was never seen."""
    ttft_s: float | None
    """Time to first token of such a prompt."""
    tokens_per_second: float | None
    """Generation after a prompt of this length."""
    warm_ttft_s: float | None
    """Time to first token if only the request at the end is new."""
    reused: float | None
    """The share of that prompt that came from the KV cache, from 0 to 1."""
    samples: tuple[BenchSample, ...]


@attrs.frozen(kw_only=True)
class SpeedBench:
    """Speeds by context length. `complete` is false if it ended before the longest length."""

    model: ModelInfo
    context_length: int
    """The loaded context as the engine reports it, in tokens."""
    points: tuple[BenchPoint, ...]
    complete: bool
    environment: Environment
    rounds: int
    seed: int
    seconds: float
    started_at: datetime
    finished_at: datetime
    notes: tuple[str, ...] = ()
    schema_version: int = BENCH_SCHEMA_VERSION


def point_of(length_tokens: int, samples: Sequence[BenchSample]) -> BenchPoint:
    """The medians of `samples`, of which some may be missing."""
    cold = [sample for sample in samples if not sample.warm]
    warm = [sample for sample in samples if sample.warm]
    return BenchPoint(
        length_tokens=length_tokens,
        prefill_tokens_per_second=_median(cold, lambda s: s.prefill_tokens_per_second),
        ttft_s=_median(cold, lambda s: s.ttft_s),
        tokens_per_second=_median(samples, lambda s: s.tokens_per_second),
        warm_ttft_s=_median(warm, lambda s: s.ttft_s),
        reused=_median(warm, lambda s: s.reused),
        samples=tuple(samples),
    )


def _median(
    samples: Sequence[BenchSample], value: Callable[[BenchSample], float | None]
) -> float | None:
    known = [found for sample in samples if (found := value(sample)) is not None]
    return median(known) if known else None
