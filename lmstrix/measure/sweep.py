"""The map and the benchmark: a few lengths, upwards, on one load. Nothing is stored.

Both load once, ask at each length with retries on a new engine, and release. The map asks about
every depth of one document that is read once, on an engine that reuses prefixes: each cell costs
its questions. The benchmark reads a text that the engine has never seen (cold), and then the same
text with another request behind it (warm): the first gives the reading speed and the time to first
token, the second what the KV cache saves, both the speed of writing.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import TypeVar

import anyio
import attrs

from lmstrix.errors import ConfigurationError, InfrastructureError, LoadError, PredictionError
from lmstrix.events import BenchFinished, MapFinished, ReplyTimed
from lmstrix.measure.engine import Engine
from lmstrix.measure.loading import find_loadable
from lmstrix.measure.options import SHORTEST, BenchOptions, MapOptions, RetryPolicy
from lmstrix.measure.report import environment_of
from lmstrix.measure.state import Announcer, its_turn
from lmstrix.measure.trials import ShortAnswers, attempts
from lmstrix.models import (
    BenchPoint,
    BenchSample,
    ContextMap,
    Judgement,
    Layer,
    MapCost,
    ModelInfo,
    Observation,
    Question,
    Reply,
    SpeedBench,
    Status,
    Verdict,
    cells_of,
    point_of,
)
from lmstrix.ports import Adapter, DepthSource, GradedValidator, Observer, Validator
from lmstrix.problem import NO_FASTER

LONGEST_MAP = 32768
"""What is mapped unless told otherwise, at most: the time grows faster than the length."""
LONGEST_BENCH = 8192
"""If the true context is not known: each length is read anew several times, so that a longer one
takes minutes on a processor."""
OWN_DOCUMENT = 500
"""A map's document, and the number before a benchmark's first text: a measurement counts its
documents from 0."""

T = TypeVar("T")


@attrs.define(kw_only=True)
class _Sweep:
    """What a map and a benchmark share: one model, loaded once, and a way to ask it."""

    model: ModelInfo
    engine: Engine
    announcer: Announcer
    answers: ShortAnswers
    retry: RetryPolicy
    seed: int
    status: Status
    started_at: datetime = attrs.field(factory=lambda: datetime.now(UTC))
    clock: float = attrs.field(factory=time.monotonic)
    context: int = 0
    """What was loaded, in tokens."""
    longest: int = 0
    """The longest length to ask at: what was wanted, or what could be loaded of it."""

    async def again(self, ask: Callable[[], Awaitable[T]]) -> T:
        """`ask`, with retries on a new engine."""
        retried = (InfrastructureError, PredictionError)
        async for attempt in attempts(self.retry, retried, self.announcer):
            with attempt:
                try:
                    return await ask()
                except retried:
                    await self.engine.release()
                    raise
        raise AssertionError  # the last attempt returns or raises

    async def reply(
        self,
        validator: Validator,
        document: int,
        length: int,
        index: int,
        depth: float | None = None,
    ) -> tuple[Question, Reply, float]:
        """One question at a length, at a depth if the validator knows depths, the model's reply,
        and the seconds it took.
        """
        loaded = await self.engine.at_least(length, self.context)
        source = self.engine.source(validator, self.seed * 1000 + document)
        if depth is not None and isinstance(source, DepthSource):
            question = await source.at_depth(length, depth, index)
        else:
            question = await source.question(length, index)
        asked = time.monotonic()
        reply = await self.answers.ask(loaded, question, validator.name, length)
        return question, reply, time.monotonic() - asked


@asynccontextmanager
async def _swept(
    adapter: Adapter,
    model: ModelInfo,
    options: MapOptions | BenchOptions,
    observers: Sequence[Observer],
    longest: int,
) -> AsyncGenerator[_Sweep]:
    """Wait for our turn and load once, with the memory guard of a measurement; release at the end.

    Raises `ConfigurationError` if less than 512 tokens can be loaded, and what loading raises.
    """
    announcer = Announcer(model.key, tuple(observers))
    async with (
        its_turn(adapter, announcer),
        Engine(adapter, model, announcer.emit, lambda: None) as engine,
    ):
        sweep = _Sweep(
            model=model,
            engine=engine,
            announcer=announcer,
            answers=ShortAnswers(announcer, lambda _: None),
            retry=options.retry,
            seed=options.seed,
            status=await adapter.status(),
        )
        announcer.phase("load")
        wanted = options.max_context or longest
        if options.max_context and options.max_context > (model.declared_context or wanted):
            announcer.note(
                f"the model declares {model.declared_context:,} tokens: no more is tried"
            )
        wanted = min(wanted, model.declared_context or wanted)
        loadable = await find_loadable(
            adapter, model, engine, wanted=wanted, floor=min(SHORTEST, wanted), force=False
        )
        sweep.context = loadable.context_length
        sweep.longest = min(wanted, sweep.context)
        if loadable.detail:
            announcer.note(loadable.detail)
        if sweep.context < SHORTEST:
            raise ConfigurationError(
                f"the questions need {SHORTEST:,} tokens; {sweep.context:,} are loaded"
            )
        yield sweep


# The map.


def _with(cost: MapCost, at_one_length: Sequence[Reply]) -> MapCost:
    """`cost` and that of the replies at one length.

    The first question at a length reads what is new of the document, and itself; the others
    only themselves. What the first one read above the median of the others is the document.
    """
    read = [r.prompt_tokens - (r.cached_tokens or 0) for r in at_one_length]
    usual = round(median(read[1:])) if len(read) > 1 else 0
    new = max(0, read[0] - usual)
    return attrs.evolve(
        cost,
        document_tokens=cost.document_tokens + new,
        question_tokens=cost.question_tokens + sum(read) - new,
        cached_tokens=cost.cached_tokens + sum(r.cached_tokens or 0 for r in at_one_length),
        generated_tokens=cost.generated_tokens + sum(r.generated_tokens for r in at_one_length),
        questions=cost.questions + len(at_one_length),
    )


Answer = tuple[int, float, bool, float]
"""A length, a depth, whether the answer passed, and its score."""


async def map_context(
    adapter: Adapter,
    model: ModelInfo,
    validators: Sequence[Validator],
    options: MapOptions,
    observers: Sequence[Observer] = (),
) -> ContextMap:
    """Every validator at every length, on one document; load once, ask everything, release.

    If the engine fails at a length, what was asked below is the result, with a note.

    Raises what loading and asking at the shortest length raise: see `lmstrix.ports.Adapter`.
    Raises `ConfigurationError` with the price if the engine reuses no prefix, unless
    `MapOptions.force`.
    """
    answers: dict[str, list[Answer]] = {validator.name: [] for validator in validators}
    cost = MapCost()
    async with _swept(adapter, model, options, observers, LONGEST_MAP) as sweep:
        lengths = options.grid(sweep.longest)
        sweep.announcer.phase("map")
        for length in lengths:
            replies: list[Reply] = []
            try:
                for validator in validators:
                    replies += await _map_row(
                        sweep, validator, length, options.trials, answers[validator.name]
                    )
            except (LoadError, InfrastructureError, PredictionError) as error:
                if length == lengths[0]:
                    raise
                sweep.announcer.note(f"at {length:,} tokens: {error}")
                if replies:
                    cost = _with(cost, replies)
                lengths = [shorter for shorter in lengths if shorter < length]
                break
            cost = _with(cost, replies)
            if length == lengths[0]:
                _check_reuse(sweep, replies, lengths, options)
    found = ContextMap(
        model=model,
        lengths=tuple(lengths),
        layers=tuple(
            Layer(name=name, cells=cells_of([one for one in seen if one[0] in lengths]))
            for name, seen in answers.items()
        ),
        cost=attrs.evolve(cost, loads=sweep.engine.loads, seconds=time.monotonic() - sweep.clock),
        environment=environment_of(sweep.status, model),
        seed=options.seed,
        ratio=options.ratio,
        started_at=sweep.started_at,
        finished_at=datetime.now(UTC),
        notes=tuple(sweep.announcer.notes),
    )
    sweep.announcer.emit(MapFinished(model_key=model.key, map=found))
    return found


async def _map_row(
    sweep: _Sweep, validator: Validator, length: int, trials: int, answers: list[Answer]
) -> list[Reply]:
    """The replies to one validator's questions at one length; `answers` gets the judged ones."""
    phase = f"map: {validator.name}"
    sweep.announcer.probe(phase, length, trials)
    replies: list[Reply] = []
    before = len(answers)
    for index in range(trials):
        depth = (index + 0.5) / trials
        ask = partial(sweep.reply, validator, OWN_DOCUMENT, length, index, depth)
        question, reply, _ = await sweep.again(ask)
        replies.append(reply)
        judged = validator.judge(question, reply)
        if judged is not Judgement.INCONCLUSIVE and question.depth is not None:
            passed = judged is Judgement.PASS
            graded = isinstance(validator, GradedValidator)
            score = validator.score(question, reply) if graded else float(passed)
            answers.append((length, question.depth, passed, score))
    passes = sum(passed for _, _, passed, _ in answers[before:])
    seen = Observation(length_tokens=length, passes=passes, trials=len(answers) - before)
    sweep.announcer.probed(phase, seen, Verdict.UNDECIDED)
    return replies


def _check_reuse(
    sweep: _Sweep, replies: Sequence[Reply], lengths: Sequence[int], options: MapOptions
) -> None:
    """After the first length: were its later questions read from the cache?"""
    if _reuses(replies):
        return
    price = f"about {len(replies) * sum(lengths):,} prompt tokens instead of {lengths[-1]:,}"
    if not options.force:
        raise ConfigurationError(
            f"this engine reads every prompt from the start: the map would read {price}",
            hint="Ask for fewer lengths and questions, or use --force to read all that.",
        )
    sweep.announcer.note(f"this engine reads every prompt from the start: {price}")


def _reuses(at_one_length: Sequence[Reply]) -> bool:
    """Whether the engine reuses prefixes: its counts tell, or else its times, or else it does."""
    counts = [reply.cached_tokens for reply in at_one_length if reply.cached_tokens is not None]
    if counts:
        return any(counts) or len(counts) == 1
    first, *later = [reply.ttft_s or 0.0 for reply in at_one_length]
    return not (first and later) or median(later) <= NO_FASTER * first


# The benchmark.


async def bench(
    adapter: Adapter,
    model: ModelInfo,
    writing: Validator,
    options: BenchOptions,
    observers: Sequence[Observer] = (),
) -> SpeedBench:
    """Reading and writing speed at lengths that double, on one load.

    `writing` gives the prompts: a validator whose requests are answered at some length. If the
    engine fails at a length, what was measured below is the result, with a note. Cancelling
    announces what was measured, and propagates.

    Raises:
        PredictionError, InfrastructureError: the engine fails at the shortest length already.
        ConfigurationError: less than 512 tokens can be loaded.
        LMStrixError: what loading raises, see `lmstrix.ports.Adapter`.
    """
    points: list[BenchPoint] = []
    complete = False
    async with _swept(adapter, model, options, observers, LONGEST_BENCH) as sweep:

        def finish() -> SpeedBench:
            found = SpeedBench(
                model=model,
                context_length=sweep.context,
                points=tuple(points),
                complete=complete,
                environment=environment_of(sweep.status, model),
                rounds=options.rounds,
                seed=options.seed,
                seconds=time.monotonic() - sweep.clock,
                started_at=sweep.started_at,
                finished_at=datetime.now(UTC),
                notes=tuple(sweep.announcer.notes),
            )
            sweep.announcer.emit(BenchFinished(model_key=model.key, bench=found))
            return found

        sweep.announcer.phase("bench")
        try:
            complete = await _time_lengths(sweep, writing, options, points)
        except anyio.get_cancelled_exc_class():
            finish()
            raise
    return finish()


async def _time_lengths(
    sweep: _Sweep, writing: Validator, options: BenchOptions, points: list[BenchPoint]
) -> bool:
    """Whether every length could be measured; `points` gets those that were."""
    texts = 0
    for length in options.lengths(sweep.longest):
        samples: list[BenchSample] = []
        sweep.announcer.probe("bench", length, 2 * options.rounds)

        async def a_round(length: int = length) -> list[BenchSample]:
            """A new text, and the same one again."""
            nonlocal texts
            texts += 1
            return [await _timed(sweep, writing, texts, length, warm=w) for w in (False, True)]

        try:
            for _ in range(options.rounds):
                samples += await sweep.again(a_round)
        except (LoadError, InfrastructureError, PredictionError) as error:
            if not points and not samples:
                raise
            sweep.announcer.note(f"at {length:,} tokens: {error}")
            return False
        finally:
            if samples:
                points.append(point_of(length, samples))
    return True


async def _timed(
    sweep: _Sweep, writing: Validator, text: int, length: int, *, warm: bool
) -> BenchSample:
    _, reply, seconds = await sweep.reply(writing, OWN_DOCUMENT + text, length, int(warm))
    sample = BenchSample(
        warm=warm,
        prompt_tokens=reply.prompt_tokens,
        cached_tokens=reply.cached_tokens,
        generated_tokens=reply.generated_tokens,
        ttft_s=reply.ttft_s,
        tokens_per_second=reply.tokens_per_second,
        seconds=seconds,
    )
    sweep.announcer.emit(ReplyTimed(model_key=sweep.model.key, length_tokens=length, sample=sample))
    return sample
