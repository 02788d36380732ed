"""The map: every depth at every length, on one document that is read once.

Lengths go upwards, so an engine that reuses prefixes reads each token of the document once, and
each cell costs its questions. Where the engine reads every prompt anew, the map says what it would
cost and stops, unless it is forced.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from statistics import median

import attrs

from lmstrix.errors import ConfigurationError, InfrastructureError, PredictionError
from lmstrix.measure.engine import Engine
from lmstrix.measure.loading import find_loadable
from lmstrix.measure.options import RetryPolicy
from lmstrix.measure.state import Announcer, its_turn
from lmstrix.measure.trials import attempts
from lmstrix.models import (
    ContextMap,
    Environment,
    Judgement,
    Layer,
    MapCost,
    ModelInfo,
    Observation,
    Reply,
    Verdict,
    cells_of,
)
from lmstrix.ports import Adapter, GradedValidator, Observer, Validator

__all__ = ["MapOptions", "MapRun"]

GRANULARITY = 256
SHORTEST = 512
"""The first length, as the baseline's."""

LONGEST = 32768
"""What is mapped unless told otherwise, at most: the time grows faster than the length."""

PHASE = "map"


@attrs.frozen(kw_only=True)
class MapOptions:
    """Settings of a map. `max_context` is the largest length in tokens (default: what the model
    declares, at most 32768); `lengths` how many, evenly spaced; `trials` the questions of each
    validator at each length; `force` maps where the engine reuses no prefix, too.

    Raises `ConfigurationError` for a value outside its range.
    """

    max_context: int | None = None
    lengths: int = 12
    trials: int = 10
    seed: int = 1
    ratio: float = 0.85
    force: bool = False
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)

    def __attrs_post_init__(self) -> None:
        if self.max_context is not None and self.max_context < SHORTEST:
            raise ConfigurationError(f"a map needs {SHORTEST} tokens or more")
        if self.lengths < 2 or self.trials < 1:
            raise ConfigurationError("a map needs two lengths and one question at each")
        if not 0 < self.ratio <= 1:
            raise ConfigurationError("ratio must lie above 0 and be at most 1")

    def grid(self, longest: int) -> list[int]:
        """The lengths: multiples of 256 from 512 on, and `longest` itself."""
        step = (longest - SHORTEST) / (self.lengths - 1)
        inner = (
            round((SHORTEST + step * i) / GRANULARITY) * GRANULARITY
            for i in range(1, self.lengths - 1)
        )
        return sorted({SHORTEST, *(n for n in inner if SHORTEST < n < longest), longest})


@attrs.define
class _Reading:
    """The tokens of every reply, told apart into document and question.

    The first question at a length reads what is new of the document, and itself; the others
    only themselves. What the first one read above the median of the others is the document.
    """

    document: int = 0
    question: int = 0
    cached: int = 0
    generated: int = 0
    replies: int = 0

    def add(self, at_one_length: Sequence[Reply]) -> None:
        read = [r.prompt_tokens - (r.cached_tokens or 0) for r in at_one_length]
        usual = round(median(read[1:])) if len(read) > 1 else 0
        new = max(0, read[0] - usual)
        self.document += new
        self.question += sum(read) - new
        self.cached += sum(r.cached_tokens or 0 for r in at_one_length)
        self.generated += sum(r.generated_tokens for r in at_one_length)
        self.replies += len(at_one_length)


class MapRun:
    """One map of one model. Run it once."""

    def __init__(
        self,
        *,
        adapter: Adapter,
        model: ModelInfo,
        validators: Sequence[Validator],
        options: MapOptions | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.model = model
        self.options = options or MapOptions()
        self._adapter = adapter
        self._validators = tuple(validators)
        self._announcer = Announcer(model.key, tuple(observers))
        self._answers: dict[str, list[tuple[int, float, bool, float]]] = {
            validator.name: [] for validator in validators
        }
        self._reading = _Reading()
        self._context = 0
        """What loads, in tokens."""

    async def run(self) -> ContextMap:
        """Wait for our turn, load once, ask everything, release.

        Raises what loading and asking raise: see `lmstrix.ports.Adapter`. Raises
        `ConfigurationError` with the price where the engine reuses no prefix.
        """
        async with its_turn(self._adapter, self._announcer):
            return await self._run()

    async def _run(self) -> ContextMap:
        started, clock = datetime.now(UTC), time.monotonic()
        status = await self._adapter.status()
        engine = Engine(self._adapter, self.model, self._announcer.emit, lambda: None)
        try:
            wanted = self._wanted()
            # With the memory guard of a measurement: `force` is about reading, not about loading.
            loadable = await find_loadable(
                self._adapter, self.model, engine, wanted=wanted, floor=SHORTEST, force=False
            )
            self._context = loadable.context_length
            if loadable.detail:
                self._announcer.note(loadable.detail)
            if self._context < SHORTEST:
                raise ConfigurationError(f"a map needs {SHORTEST} tokens; {self._context} loaded")
            lengths = self.options.grid(min(wanted, self._context))
            self._announcer.phase(PHASE)
            for at, length in enumerate(lengths):
                await self._ask(engine, length)
                if at == 0:
                    self._check_reuse(lengths)
        finally:
            await engine.release()
        return ContextMap(
            model=self.model,
            lengths=tuple(lengths),
            layers=tuple(
                Layer(name=name, cells=cells_of(found)) for name, found in self._answers.items()
            ),
            cost=self._cost(time.monotonic() - clock),
            environment=Environment(
                adapter=status.adapter, engine=status.engine, versions=dict(status.versions)
            ),
            seed=self.options.seed,
            ratio=self.options.ratio,
            started_at=started,
            finished_at=datetime.now(UTC),
            notes=tuple(self._announcer.notes),
        )

    def _wanted(self) -> int:
        declared = self.model.declared_context
        if self.options.max_context is None:
            return min(declared or LONGEST, LONGEST)
        return min(self.options.max_context, declared or self.options.max_context)

    async def _ask(self, engine: Engine, length: int) -> None:
        replies: list[Reply] = []
        for validator in self._validators:
            phase = f"{PHASE}: {validator.name}"
            self._announcer.probe(phase, length, self.options.trials)
            before = len(self._answers[validator.name])
            asking = partial(self._answer, engine, validator, length)
            replies += [await self._patiently(asking, i) for i in range(self.options.trials)]
            found = self._answers[validator.name][before:]
            passes = sum(passed for _, _, passed, _ in found)
            seen = Observation(length_tokens=length, passes=passes, trials=len(found))
            self._announcer.probed(phase, seen, Verdict.UNDECIDED)
        self._reading.add(replies)

    async def _patiently(self, ask: Callable[[int], Awaitable[Reply]], index: int) -> Reply:
        """With retries on a new engine."""
        retried = (InfrastructureError, PredictionError)
        async for attempt in attempts(self.options.retry, retried, self._announcer):
            with attempt:
                return await ask(index)
        raise AssertionError  # the last attempt returns or raises

    async def _answer(self, engine: Engine, validator: Validator, length: int, index: int) -> Reply:
        try:
            loaded = await engine.at_least(length, self._context)
            question = await engine.source(validator, self._seed).question(length, index)
            reply = await loaded.complete(
                question.prompt,
                max_tokens=question.max_tokens,
                stop=question.stop,
                on_progress=self._announcer.prefill(length),
            )
        except (InfrastructureError, PredictionError):
            await engine.release()
            raise
        judged = validator.judge(question, reply)
        if judged is not Judgement.INCONCLUSIVE and question.depth is not None:
            passed = judged is Judgement.PASS
            graded = isinstance(validator, GradedValidator)
            score = validator.score(question, reply) if graded else float(passed)
            self._answers[validator.name].append((length, question.depth, passed, score))
        return reply

    def _check_reuse(self, lengths: Sequence[int]) -> None:
        """After the first length: were its later questions read from the cache?"""
        if self._reading.cached or self._reading.replies < 2:
            return
        questions = self.options.trials * len(self._validators)
        price = f"about {questions * sum(lengths)} prompt tokens instead of {lengths[-1]}"
        if not self.options.force:
            raise ConfigurationError(
                f"this engine reads every prompt anew: the map would read {price}",
                hint="Ask for fewer lengths and questions, or use --force to read all that.",
            )
        self._announcer.note(f"this engine reads every prompt anew: {price}")

    def _cost(self, seconds: float) -> MapCost:
        read = self._reading
        return MapCost(
            document_tokens=read.document,
            question_tokens=read.question,
            cached_tokens=read.cached,
            generated_tokens=read.generated,
            questions=read.replies,
            seconds=seconds,
        )

    @property
    def _seed(self) -> int:
        """A document of the map's own: a measurement's have the numbers from 0 on."""
        return self.options.seed * 1000 + 500
