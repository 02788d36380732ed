"""Simulated models with a known limit, measured by the whole measurement, certificate included.

No text is made: a question is the position of a needle as the documents plant it, and a model
answers by position and length. Everything else is the product's own code. Nothing here is run on
its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from math import exp, log
from random import Random
from statistics import NormalDist

import anyio
import attrs

from lmstrix import ContextReport, LMStrix, MeasureOptions
from lmstrix.errors import ModelNotFound
from lmstrix.models import (
    Judgement,
    LoadProgress,
    ModelInfo,
    Prompt,
    Question,
    Region,
    Reply,
    Status,
    StopReason,
)
from lmstrix.ports import LoadedModel, SearchStrategy
from lmstrix.validators.needles import choices, standing

FLOOR = 512
DECLARED = 131_072
RATIO = 0.85
QUESTION_TOKENS, ANSWER_TOKENS = 14, 6
"""Of a question about one fact beside the document; of an answer. As on the demo model."""
OVERHEAD_TOKENS = 40

FACTS_SPREAD = 0.35
"""Standard deviation of the log of the lengths at which facts are forgotten; an assumption."""
NEVER_KNOWN, SHORT = 0.015, 700
NORMAL = NormalDist()

Knows = Callable[[int, float, float], float]
"""From length, position and a random number that belongs to the needle, to the pass rate."""


@attrs.frozen(kw_only=True)
class Simulated:
    """A model by what it knows: its true context, and the pass rate of each question."""

    limit: float
    knows: Knows
    lapses: float = 0.0
    declared: int = DECLARED
    reuses: bool = True
    several: bool = True
    """Whether it answers several questions at once as well as single ones."""
    seed: int = 0

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(key="simulated", declared_context=self.declared)

    def passes(self, document: int, length: int, position: float, index: int) -> bool:
        """Whether one question is answered right: always the same for the same question."""
        rng = Random(f"{self.seed} {document} {length} {round(position)} {index}")
        rate = self.knows(length, position, Random(f"{self.seed} {document} {position}").random())
        return rng.random() < rate * (1 - self.lapses)


def limits(count: int, seed: int, low: float, high: float) -> list[float]:
    """Log-uniform, one in each of `count` equal parts, so that few of them show the mean."""
    rng = Random(seed)
    return [low * (high / low) ** ((i + rng.random()) / count) for i in range(count)]


def kept_last(window: float) -> Knows:
    """Knows only the last `window` tokens."""
    return lambda length, position, _: float(position >= length - window)


def kept_first(window: float) -> Knows:
    """Knows only the first `window` tokens, and the request."""
    return lambda length, position, _: float(length <= window or position < window)


def loses_middle(window: float) -> Knows:
    """Knows only the first and the last half of `window` tokens."""
    return lambda length, position, _: float(
        length <= window or position < window / 2 or position >= length - window / 2
    )


def loses_band(limit: float, begin: float, end: float) -> Knows:
    """Loses what stands between two shares of the window, at lengths above `limit`."""
    return lambda length, position, _: float(
        length <= limit or not begin <= position / length < end
    )


def cliff(limit: float) -> Knows:
    """Knows everything up to `limit`, and nothing above."""
    return lambda length, _, __: float(length <= limit)


def logistic(limit: float, slope: float) -> Knows:
    """Recalls less and less, everywhere alike: at `limit` it recalls `RATIO` of what it does at
    the floor. The curve is logistic in the logarithm of the length.
    """
    low, high = limit / 4, limit * 16
    middle = limit
    for _ in range(50):
        middle = (low * high) ** 0.5
        low, high = (
            (middle, high)
            if _rate(limit, middle, slope) < RATIO * _rate(FLOOR, middle, slope)
            else (low, middle)
        )
    return lambda length, _, __: _rate(length, middle, slope)


def fact_by_fact(limit: float) -> Knows:
    """Forgets each fact at a length of its own, log-normal: at `limit` it knows `RATIO` of them.
    A few are lost at any length above `SHORT`, as if the model had no words for them.
    """
    middle = log(limit) - FACTS_SPREAD * NORMAL.inv_cdf(1 - RATIO)
    return lambda length, _, fact: float(
        length <= SHORT
        or (
            fact >= NEVER_KNOWN
            and log(length) <= middle + FACTS_SPREAD * NORMAL.inv_cdf(max(fact, 1e-9))
        )
    )


def _rate(length: float, middle: float, slope: float) -> float:
    return 1 / (1 + exp(min(60.0, slope * log(length / middle))))


@lru_cache(maxsize=4096)
def _standing(seed: int, length: int) -> tuple[float, ...]:
    return tuple(standing(seed, length))


@lru_cache(maxsize=65536)
def _choices(seed: int, length: int, region: Region, questions: int) -> tuple[int | None, ...]:
    return choices(_standing(seed, length), length, region, questions)


@attrs.frozen
class Needles:
    """A validator that asks for needles by their positions, as `recall` does."""

    name = "recall"
    baseline_length = FLOOR
    regions = tuple(Region)
    most_facts = 8

    def questions(self, loaded: LoadedModel, seed: int) -> _Source:
        del loaded
        return _Source(seed)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        del question
        return Judgement.PASS if reply.text == "1" else Judgement.WRONG

    def judge_each(self, question: Question, reply: Reply) -> Sequence[Judgement]:
        del question
        return [Judgement.PASS if mark == "1" else Judgement.WRONG for mark in reply.text]


@attrs.frozen
class _Source:
    seed: int

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        region = region or Region.MIDDLE
        positions = _standing(self.seed, length_tokens)
        at = _choices(self.seed, length_tokens, region, (index // 10 + 1) * 10)[index]
        position = float(length_tokens - 90) if at is None else positions[at]
        return Question(
            prompt=Prompt(user=f"{self.seed} {length_tokens} {position} {index}"),
            expected=str(position),
            kind="number",
            depth=min(1.0, position / length_tokens),
            max_tokens=16,
            region=region,
        )

    async def several(
        self, length_tokens: int, wanted: Sequence[tuple[Region | None, int]]
    ) -> Question:
        parts = [await self.question(length_tokens, index, region) for region, index in wanted]
        return attrs.evolve(
            parts[0],
            prompt=Prompt(user="\n".join(part.prompt.user for part in parts)),
            parts=tuple(parts),
        )


@attrs.define
class _Loaded:
    simulated: Simulated
    effective_context: int
    cached: tuple[int, int] = (0, 0)
    """Seed and length of the document that was read last."""

    @property
    def model(self) -> ModelInfo:
        return self.simulated.info

    async def count_tokens(self, text: str) -> int:
        return len(text) // 4

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        return len(prompt.user) // 4

    async def complete(self, prompt: Prompt, **_: object) -> Reply:
        await anyio.lowlevel.checkpoint()
        questions = [line.split() for line in prompt.user.splitlines()]
        seed, length = int(questions[0][0]), int(questions[0][1])
        before, longest = self.cached
        shared = min(length, longest) - OVERHEAD_TOKENS if before == seed else 0
        self.cached = (seed, length)
        marks = [
            self.simulated.passes(seed, length, float(position), int(index))
            for _, _, position, index in questions
        ]
        if len(marks) > 1 and not self.simulated.several:
            marks = [False] * len(marks)
        text = "".join("1" if right else "0" for right in marks)
        read = length - OVERHEAD_TOKENS + QUESTION_TOKENS * len(marks)
        return Reply(
            text=text,
            stop_reason=StopReason.STOP_STRING,
            prompt_tokens=read,
            cached_tokens=max(0, shared) if self.simulated.reuses else 0,
            generated_tokens=ANSWER_TOKENS * len(marks),
        )

    async def stream(self, prompt: Prompt, **_: object) -> AsyncGenerator[Reply, None]:
        yield await self.complete(prompt)


@attrs.frozen
class _Engine:
    simulated: Simulated
    name = "simulated"

    async def list_models(self) -> Sequence[ModelInfo]:
        return [self.simulated.info]

    async def find_model(self, name: str) -> ModelInfo:
        if name != self.simulated.info.key:
            raise ModelNotFound(name)
        return self.simulated.info

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> None:
        del model, context_length

    @asynccontextmanager
    async def load(
        self,
        model: ModelInfo,
        context_length: int,
        *,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AsyncGenerator[_Loaded, None]:
        del model, on_progress
        await anyio.lowlevel.checkpoint()
        yield _Loaded(self.simulated, context_length)

    async def status(self) -> Status:
        return Status(adapter=self.name, engine="simulation", available=True)


def measure(
    simulated: Simulated,
    options: MeasureOptions | None = None,
    *,
    strategy: SearchStrategy | str = "bayes",
) -> ContextReport:
    """The report of one whole measurement."""

    async def run() -> ContextReport:
        async with LMStrix(
            adapter=_Engine(simulated),
            strategy=strategy,
            validator=Needles(),
            levels=(),
            store="memory",
        ) as client:
            return await client.find_true_context("simulated", options)

    return anyio.run(run)


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


def quantile(values: Sequence[float], level: float) -> float:
    """The smallest value that `level` of all do not exceed."""
    ascending = sorted(values)
    return ascending[min(len(ascending) - 1, int(level * len(ascending)))]
