"""Measures simulated models, on engines and in stores that fail where a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, TypeVar

import attrs
import pytest

from lmstrix import LMStrix, MeasureOptions, RetryPolicy
from lmstrix.events import Event
from lmstrix.models import (
    ContextReport,
    Judgement,
    LoadProgress,
    ModelInfo,
    Question,
    Region,
    Reply,
    StoredMeasurement,
    Trial,
)
from lmstrix.ports import Adapter, LoadedModel, QuestionSource
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators.needles import SPARE_FACTS, deck
from lmstrix.validators.recall import Recall

E = TypeVar("E", bound=Event)

BOTH_LOOPS = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
AT_ONCE = RetryPolicy(first_wait_s=0.001, longest_wait_s=0.002)


async def measure(
    subject: SimulatedModel | Adapter,
    options: MeasureOptions | None = None,
    *,
    seed: int = 0,
    name: str = "m",
    **parts: Any,
) -> ContextReport:
    """The report of a simulated model, whose adapter has `seed`, or of the model `name` of an
    adapter. `parts` are those of the client; without a store nothing is kept.
    """
    if isinstance(subject, SimulatedModel):
        adapter, name = SimulatedAdapter(subject, seed=seed), subject.key
    else:
        adapter = subject
    parts.setdefault("store", "memory")
    async with LMStrix(adapter=adapter, **parts) as client:
        return await client.find_true_context(name, options)


def ends(report: ContextReport) -> tuple[int, int]:
    """The bracket of a report that has an upper end."""
    low, high = report.bracket
    assert high is not None
    assert low < high
    return low, high


def is_near(report: ContextReport, truth: int, part: float = 1 / 16) -> bool:
    """Whether the true context lies within so large a part of the truth."""
    assert report.true_context is not None
    return abs(report.true_context - truth) <= part * truth


def only(kind: type[E], events: Iterable[Event]) -> list[E]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


class Failing(SimulatedAdapter):
    """Instead of a reply it raises `error`, if `fails` says so of it and the prompt's tokens."""

    def __init__(
        self, model: SimulatedModel, error: Exception, fails: Callable[[Failing, int], bool]
    ) -> None:
        super().__init__(model)
        self._error = error
        self._fails = fails

    async def before_reply(self, prompt_tokens: int) -> None:
        if self._fails(self, prompt_tokens):
            raise self._error.with_traceback(None)


class Giving(SimulatedAdapter):
    """Loads as many tokens as `gives` says of it and of what was asked for."""

    def __init__(
        self, model: SimulatedModel, gives: Callable[[Giving, int], int], **more: Any
    ) -> None:
        super().__init__(model, **more)
        self._gives = gives

    async def before_load(
        self, context_length: int, on_progress: Callable[[LoadProgress], None]
    ) -> int:
        return self._gives(self, context_length)


class Killed(Exception):
    """Stands for the end of the process."""


class Requests(SqliteStore):
    """A store in memory that knows what each request brought. At the request `at` it raises
    `error`, after it has kept the request or instead.
    """

    def __init__(self, at: int = 0, *, error: Exception | None = None, keeps: bool = True) -> None:
        super().__init__(":memory:")
        self.key = ""
        self.requests: list[Sequence[Trial]] = []
        self._at = at
        self._error = error or Killed()
        self._keeps = keeps

    @property
    def asked(self) -> list[tuple[object, ...]]:
        """What tells each question from all others."""
        return [which(trial) for request in self.requests for trial in request]

    async def begin(self, key: str, model: ModelInfo) -> StoredMeasurement:
        self.key = key
        return await super().begin(key, model)

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        self.requests.append(trials)
        fails = len(self.requests) == self._at
        if fails and not self._keeps:
            raise self._error
        counted = await super().append_trials(measurement_id, trials)
        if fails:
            raise self._error
        return counted


def which(trial: Trial) -> tuple[object, ...]:
    """What tells a question from all others of its measurement."""
    t = trial
    return t.level, t.phase, t.length_tokens, t.seed, t.region, t.index


class FadesEarly(Recall):
    """Above 5,000 tokens, 28 % of the facts of the early region are forgotten."""

    def judge(self, question: Question, reply: Reply) -> Judgement:
        long = len(question.prompt.user) > 5_000 * 4.6
        if question.region is Region.EARLY and long and Random(question.expected).random() < 0.28:
            return Judgement.WRONG
        return super().judge(question, reply)


FIRST_FACT = deck(MeasureOptions().seed * 1000 + 1)[SPARE_FACTS].value


class DislikesTheFirst(Recall):
    """Above 600 tokens, the first fact of the search's text is always missed."""

    def judge(self, question: Question, reply: Reply) -> Judgement:
        long = len(question.prompt.user) > 600 * 4.6
        if long and question.expected == FIRST_FACT:
            return Judgement.WRONG
        return super().judge(question, reply)


@attrs.frozen
class _Marked:
    """Each question has its document's number, and its length, as its kind."""

    inner: QuestionSource
    seed: int

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        question = await self.inner.question(length_tokens, index, region)
        return attrs.evolve(question, kind=f"{self.seed} {length_tokens}")


@attrs.frozen
class Judging:
    """Recall's questions; `judged` is told the question, its document and the whole length."""

    judged: Callable[[Question, int, int], Judgement]
    name: str = "judging"
    baseline_length: int = 512
    regions: tuple[Region, ...] = tuple(Region)

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        return _Marked(Recall().questions(loaded, seed), seed)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        seed = int(question.kind.split()[0])
        return self.judged(question, seed, reply.prompt_tokens + question.max_tokens)


def up_to(limit: int, length: int) -> Judgement:
    return Judgement.PASS if length <= limit else Judgement.WRONG
