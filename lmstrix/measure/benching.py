"""The benchmark: reading and writing speed at lengths that double, on one load.

At each length a text that the engine has never seen is read (cold), and then the same text with
another request behind it (warm): the first gives the reading speed and the time to first token,
the second what the KV cache saves, both the speed of writing.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

import attrs

from lmstrix.errors import ConfigurationError, InfrastructureError, PredictionError
from lmstrix.events import ReplyTimed
from lmstrix.measure.engine import Engine
from lmstrix.measure.loading import find_loadable
from lmstrix.measure.options import RetryPolicy
from lmstrix.measure.state import Announcer, its_turn
from lmstrix.measure.trials import attempts
from lmstrix.models import (
    BenchPoint,
    BenchSample,
    Environment,
    ModelInfo,
    SpeedBench,
    Status,
    point_of,
)
from lmstrix.ports import Adapter, Observer, Validator

__all__ = ["BenchOptions", "BenchRun"]

SHORTEST = 512
"""The first length in tokens, as the baseline's."""
LONGEST = 8192
"""Where the true context is not known: each length is read anew several times, so that a
longer one takes minutes on a processor."""
PHASE = "bench"


@attrs.frozen(kw_only=True)
class BenchOptions:
    """Settings of a benchmark.

    `max_context` is the largest length in tokens (default: what the model declares, at most
    8192); `rounds` how often each length is measured, each time on another text.

    Raises `ConfigurationError` for a value outside its range.
    """

    max_context: int | None = None
    rounds: int = 3
    seed: int = 1
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)

    def __attrs_post_init__(self) -> None:
        if self.max_context is not None and self.max_context < SHORTEST:
            raise ConfigurationError(f"a benchmark needs {SHORTEST} tokens or more")
        if self.rounds < 1:
            raise ConfigurationError("a benchmark needs one round at least")

    def lengths(self, longest: int) -> list[int]:
        """Doubling from 512 on, and `longest` itself.

        >>> BenchOptions().lengths(3000)
        [512, 1024, 2048, 3000]
        """
        found = [SHORTEST]
        while found[-1] * 2 < longest:
            found.append(found[-1] * 2)
        return [*found, longest] if longest > SHORTEST else found


class BenchRun:
    """One benchmark of one model. Run it once.

    `writing` gives the prompts: a validator whose requests are answered at some length.
    """

    def __init__(
        self,
        *,
        adapter: Adapter,
        model: ModelInfo,
        writing: Validator,
        options: BenchOptions | None = None,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self.model = model
        self.options = options or BenchOptions()
        self._adapter = adapter
        self._writing = writing
        self._announcer = Announcer(model.key, observers)
        self._points: list[BenchPoint] = []
        self._texts = 0
        self._context = 0
        self._complete = False
        self._status: Status | None = None
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()

    async def run(self) -> SpeedBench:
        """Wait for our turn; load once, within what memory is expected to hold; measure; release.

        Where the engine fails at a length, what was measured below is the result, with a note.

        Raises:
            PredictionError: the engine fails at the shortest length already.
            ConfigurationError: less than 512 tokens can be loaded.
            LMStrixError: what loading raises, see `lmstrix.ports.Adapter`; an
                `InfrastructureError` also where the engine went away.
        """
        async with its_turn(self._adapter, self._announcer):
            self._started, self._clock = datetime.now(UTC), time.monotonic()
            return await self._run()

    async def _run(self) -> SpeedBench:
        self._status = await self._adapter.status()
        engine = Engine(self._adapter, self.model, self._announcer.emit, lambda: None)
        try:
            lengths = self.options.lengths(await self._load(engine))
            self._announcer.phase(PHASE)
            self._complete = await self._measure(engine, lengths)
        finally:
            await engine.release()
        return self.result()

    def result(self) -> SpeedBench:
        """What is known now, also after `run` was cancelled."""
        status = self._status or Status(adapter=self._adapter.name, engine="", available=False)
        return SpeedBench(
            model=self.model,
            context_length=self._context,
            points=tuple(self._points),
            complete=self._complete,
            environment=Environment(
                adapter=status.adapter, engine=status.engine, versions=dict(status.versions)
            ),
            rounds=self.options.rounds,
            seed=self.options.seed,
            seconds=time.monotonic() - self._clock,
            started_at=self._started,
            finished_at=datetime.now(UTC),
            notes=tuple(self._announcer.notes),
        )

    async def _load(self, engine: Engine) -> int:
        """The longest length: what was wanted, or what could be loaded of it."""
        wanted = self.options.max_context or LONGEST
        wanted = min(wanted, self.model.declared_context or wanted)
        floor = min(SHORTEST, wanted)
        loadable = await find_loadable(
            self._adapter, self.model, engine, wanted=wanted, floor=floor, force=False
        )
        self._context = loadable.context_length
        if loadable.detail:
            self._announcer.note(loadable.detail)
        if self._context < SHORTEST:
            raise ConfigurationError(f"a benchmark needs {SHORTEST} tokens; {self._context} loaded")
        return min(wanted, self._context)

    async def _measure(self, engine: Engine, lengths: list[int]) -> bool:
        """Whether every length could be measured."""
        for length in lengths:
            samples: list[BenchSample] = []
            self._announcer.probe(PHASE, length, 2 * self.options.rounds)
            try:
                for _ in range(self.options.rounds):
                    samples += await self._round(engine, length)
            except PredictionError as error:
                if not self._points and not samples:
                    raise
                self._announcer.note(f"at {length} tokens: {error}")
                return False
            finally:
                if samples:
                    self._points.append(point_of(length, samples))
        return True

    async def _round(self, engine: Engine, length: int) -> list[BenchSample]:
        """A new text, and the same one again; both again on a new engine if that fails."""
        retried = (InfrastructureError, PredictionError)
        async for attempt in attempts(self.options.retry, retried, self._announcer):
            with attempt:
                self._texts += 1
                try:
                    return [await self._timed(engine, length, warm=warm) for warm in (False, True)]
                except (InfrastructureError, PredictionError):
                    await engine.release()
                    raise
        raise AssertionError  # the last attempt returns or raises

    async def _timed(self, engine: Engine, length: int, *, warm: bool) -> BenchSample:
        loaded = await engine.at_least(length, self._context)
        # Texts of its own: a measurement's have the numbers from 0 on, a map's is number 500.
        source = engine.source(self._writing, self.options.seed * 1000 + 500 + self._texts)
        question = await source.question(length, int(warm))
        clock = time.monotonic()
        reply = await loaded.complete(
            question.prompt,
            max_tokens=question.max_tokens,
            stop=question.stop,
            on_progress=self._announcer.prefill(length),
        )
        sample = BenchSample(
            warm=warm,
            prompt_tokens=reply.prompt_tokens,
            cached_tokens=reply.cached_tokens,
            generated_tokens=reply.generated_tokens,
            ttft_s=reply.ttft_s,
            tokens_per_second=reply.tokens_per_second,
            seconds=time.monotonic() - clock,
        )
        self._tell(length, sample)
        return sample

    def _tell(self, length: int, sample: BenchSample) -> None:
        self._announcer.emit(
            ReplyTimed(
                model_key=self.model.key,
                length_tokens=length,
                prompt_tokens=sample.prompt_tokens,
                cached_tokens=sample.cached_tokens,
                ttft_s=sample.ttft_s,
                tokens_per_second=sample.tokens_per_second,
            )
        )
