"""What an adapter, a strategy, a validator, a store and an observer must promise.

Protocols, and nothing else. Any object of the right
shape is a plug-in. `lmstrix.testing.contracts` holds a suite for each family.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from lmstrix.events import Event
from lmstrix.models import (
    ContextReport,
    Cost,
    Interval,
    Judgement,
    LoadProgress,
    MemoryEstimate,
    ModelInfo,
    Observation,
    PrefillProgress,
    Prompt,
    Question,
    Region,
    Reply,
    ReplyChunk,
    Status,
    StoredMeasurement,
    StoredReport,
    Trial,
)
from lmstrix.problem import Ask, Done, SearchProblem


@runtime_checkable
class LoadedModel(Protocol):
    """A model in the engine's memory, loaded by us at a context length."""

    @property
    def model(self) -> ModelInfo:
        """The model, including facts learned by loading it."""
        ...

    @property
    def effective_context(self) -> int:
        """The context length that the engine itself reports, in tokens; never the requested one."""
        ...

    async def count_tokens(self, text: str) -> int:
        """Number of tokens of plain `text`, without template and special tokens."""
        ...

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        """Number of tokens that `complete` would send for `prompt`."""
        ...

    async def complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        on_progress: Callable[[PrefillProgress], None] | None = None,
    ) -> Reply:
        """Greedy reply to `prompt`.

        Raises:
            ContextOverflow: the prompt does not fit; it was not shortened.
            EngineCrashed: the engine died.
            EngineTimeout: no progress before the deadline, which scales with the work.
            PromptTruncated: the engine read less than it was sent.
            ConnectionLost: the connection ended.
            EngineUnavailable: the engine does not answer as it should.

        Cancelling stops the engine's work too, within two seconds.
        """
        ...

    def stream(
        self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[ReplyChunk | Reply, None]:
        """The same reply piece by piece; the last item is the whole `Reply`.

        Whoever leaves early closes the generator, and that stops the engine's work.
        """
        ...


@runtime_checkable
class Adapter(Protocol):
    """Access to the models of one engine or server."""

    @property
    def name(self) -> str:
        """The name under which results of this adapter are stored."""
        ...

    async def list_models(self) -> Sequence[ModelInfo]:
        """Every model found, also those that cannot be measured, sorted by key.

        Raises `EngineUnavailable` if the place cannot be reached.
        """
        ...

    async def find_model(self, name: str) -> ModelInfo:
        """The model that `name` means.

        Raises `ModelNotFound`, `InvalidModel` (its file is broken) or `UnsupportedModel`
        (it cannot answer questions).
        """
        ...

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> MemoryEstimate | None:
        """What a load is expected to need, or None. An estimate is never a verdict."""
        ...

    def load(
        self,
        model: ModelInfo,
        context_length: int,
        *,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AbstractAsyncContextManager[LoadedModel]:
        """Load a new instance of ours; leaving the context releases it, cancelled or not.

        `on_progress` is called at each sign that the load goes on, with the same fraction again
        if no better one is known: a caller may cancel a load that shows none for too long.

        Touches no instance that it did not load. Raises `LoadRefused`, `LoadFailed`,
        `OutOfMemory`, `LoadHung`, `InvalidModel`, `UnsupportedModel` or an `InfrastructureError`.
        """
        ...

    async def status(self) -> Status:
        """What the engine is, whether it answers, and what is loaded. Never raises for an
        engine that is away: that is what `Status.available` says.
        """
        ...


@runtime_checkable
class NamesModels(Protocol):
    """An adapter may know models by their names alone. Then results belong to its server too: under
    the same name another one has another model.
    """

    @property
    def address(self) -> str:
        """The server's address, such as ``http://127.0.0.1:8000/v1``."""
        ...


@runtime_checkable
class TakesTurns(Protocol):
    """Optional for an adapter: measurements of it take turns."""

    @property
    def turn(self) -> str | None:
        """The shared resource that it uses, such as a machine's memory; None if there is none.

        Measurements with the same text wait for each other, across the user's processes.
        """
        ...


@runtime_checkable
class OwnsEngine(Protocol):
    """Optional for an adapter: a load of it may bring this machine down."""

    @property
    def owns_engine(self) -> bool:
        """Whether its engine is a child process of ours on this machine.

        Only then does the death of this process during a load say something about the load.
        """
        ...


@runtime_checkable
class FixesContext(Protocol):
    """Optional for an adapter: what a load gives does not depend on the size that was asked for."""

    @property
    def fixes_context(self) -> bool:
        """Whether the server alone decides the context, so that no smaller size can help."""
        ...


@runtime_checkable
class HasNotes(Protocol):
    """Optional for a loaded model: what the reader of a report should know about this load."""

    @property
    def notes(self) -> Sequence[str]:
        """One sentence each."""
        ...

    @property
    def counts_tokens(self) -> bool:
        """Whether prompts are counted; else lengths are estimated, and no result is certified."""
        ...


class QuestionSource(Protocol):
    """Questions on one document, for one loaded model."""

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        """Question number `index` about `region` at `length_tokens`; the same every time.

        `region` is one of `Validator.regions`, or None if that is empty. Indices count from 0 in
        each region. Ten questions in a row cover their region evenly, as far as it holds that
        many different answers.

        Prompt plus `Question.max_tokens` never exceed `length_tokens`, and fall short of it
        by less than two sentences. Questions at one length share everything but their end;
        a longer length extends the shorter one's document.
        """
        ...


@runtime_checkable
class SeveralSource(QuestionSource, Protocol):
    """A source that can also ask several questions in one request."""

    async def several(
        self, length_tokens: int, wanted: Sequence[tuple[Region | None, int]]
    ) -> Question:
        """One request for all `wanted` questions (region and index), in `Question.parts` in their
        order. The same rules as for `question` hold.
        """
        ...


@runtime_checkable
class DepthSource(QuestionSource, Protocol):
    """A source that can also be asked for a question about one depth, as a map does."""

    async def at_depth(self, length_tokens: int, depth: float, turn: int = 0) -> Question:
        """The question about what stands nearest to `depth`, from 0 to 1; each `turn` asks in other
        words. The same rules as for `question` hold.
        """
        ...


@runtime_checkable
class Validator(Protocol):
    """Builds the questions for a length, and judges one reply."""

    @property
    def name(self) -> str:
        """The name that the report shows and results are stored under."""
        ...

    @property
    def baseline_length(self) -> int:
        """The short length, in tokens, at which the model's own rate is measured."""
        ...

    @property
    def regions(self) -> Sequence[Region]:
        """The parts of the window that it asks about; empty if it asks about no one place."""
        ...

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        """Questions on the document that `seed` makes, sized with the model's tokenizer."""
        ...

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """Pass, wrong, gibberish, empty; or inconclusive, which is never a fail."""
        ...


@runtime_checkable
class SeveralValidator(Validator, Protocol):
    """A validator whose sources are `SeveralSource`."""

    @property
    def most_facts(self) -> int:
        """How many questions one request may hold, at most."""
        ...

    def judge_each(self, question: Question, reply: Reply) -> Sequence[Judgement]:
        """One judgement for each of `Question.parts`, each by itself, in their order."""
        ...


@runtime_checkable
class ComparingValidator(Validator, Protocol):
    """A validator that judges a reply by the model's own replies at short length."""

    def compare(self, question: Question, reply: Reply, own: str) -> Judgement:
        """Like `judge`; `own` is what the model wrote at the baseline's length to a question of the
        same `Question.kind`.
        """
        ...


@runtime_checkable
class GradedValidator(Validator, Protocol):
    """A validator that can also say how good a reply is."""

    def score(self, question: Question, reply: Reply) -> float:
        """From 0 (nothing is right) to 1 (all is)."""
        ...


@runtime_checkable
class SearchStrategy(Protocol):
    """Pure and synchronous: history in, next step out.

    The same history gives the same step, in whatever order its lengths came. It never asks
    for trials at a length whose verdict is settled and that has the evidence it wants,
    always terminates, and its bracket only shrinks while no verdict is revised.
    """

    @property
    def name(self) -> str:
        """The name that the report shows."""
        ...

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        """What to do after `history`, which holds each length once."""
        ...

    def bracket(
        self, problem: SearchProblem, history: Sequence[Observation]
    ) -> tuple[int, int | None]:
        """Largest length known to work and smallest known to fail so far."""
        ...

    def interval(self, problem: SearchProblem, history: Sequence[Observation]) -> Interval:
        """The interval that `history` supports, also while the search is not done."""
        ...


@runtime_checkable
class Store(Protocol):
    """Remembers trials as they happen, and reports for good.

    Safe under several tasks and several processes. Every `append_*` returns only when the
    fact survives a kill of this process. Raises `StoreError`.
    """

    @property
    def location(self) -> str:
        """The store's location, for display; empty if nothing is kept."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """Messages for the user about files and records that were set aside or skipped."""
        ...

    async def begin(self, key: str, model: ModelInfo) -> StoredMeasurement:
        """A new, empty measurement under `key`, which replaces an unfinished one."""
        ...

    async def unfinished(self, key: str) -> StoredMeasurement | None:
        """The interrupted measurement under `key`, with its trials in order, or None."""
        ...

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        """Remember the trials of one request: all of them or none.

        Returns the trials to count. For a trial whose name (see `lmstrix.models.Trial`) is there
        already, because another process asked the same question, that is the stored one.
        """
        ...

    async def append_failure(self, measurement_id: str, failure: Observation) -> None:
        """Remember that the engine failed at a length."""
        ...

    async def save_cost(self, measurement_id: str, cost: Cost) -> None:
        """Remember what the measurement has cost so far."""
        ...

    async def mark_load(self, measurement_id: str, context_length: int) -> None:
        """Remember that a load at `context_length` is about to be tried.

        A mark that nobody clears is an entry of `StoredMeasurement.deaths`: the process or the
        machine died while it loaded.
        """
        ...

    async def clear_load(self, measurement_id: str) -> None:
        """Remove the newest mark: the load has ended, in whatever way. No error without a mark."""
        ...

    async def finish(self, measurement_id: str, report: ContextReport) -> None:
        """Keep the report; the measurement is no longer unfinished.

        If it is `lmstrix.models.ContextReport.resumable`, the report is what is known so far: the
        measurement stays unfinished. If it was broken off (`lmstrix.models.RESUMABLE`), a quick
        result of the same measurement that ended stays in its place.
        """
        ...

    async def reports(self) -> Sequence[StoredReport]:
        """The newest report of each key, newest first: a full one, if there is one, else a quick
        one, else one of a measurement that was broken off.
        """
        ...

    async def unfinished_models(self) -> Sequence[ModelInfo]:
        """Models with an interrupted measurement."""
        ...

    async def aclose(self) -> None:
        """Close it. Idempotent."""
        ...


@runtime_checkable
class Observer(Protocol):
    """Receives every event of a measurement, in order, in the measuring task.

    It must return quickly and must not raise; what it raises is dropped.
    """

    def __call__(self, event: Event, /) -> None:
        """Hear one event."""
        ...
