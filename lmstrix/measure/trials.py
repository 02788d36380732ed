"""Ask questions at a length: retry what is worth it, store, announce, before going on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import contextmanager

import anyio
import attrs
import tenacity

from lmstrix.errors import (
    ConnectionLost,
    ContextOverflow,
    EngineCrashed,
    EngineUnavailable,
    InfrastructureError,
    LoadError,
    PredictionError,
    PredictionTooSlow,
    PromptTruncated,
    StoreError,
)
from lmstrix.events import TrialFinished
from lmstrix.measure.engine import CRASHES, Crashes, Engine
from lmstrix.measure.options import RetryPolicy
from lmstrix.measure.state import BASELINE, Announcer, Level, State
from lmstrix.models import (
    Cause,
    ContextReport,
    Judgement,
    Observation,
    Question,
    Region,
    Reply,
    StopReason,
    StoredMeasurement,
    Trial,
)
from lmstrix.ports import (
    ComparingValidator,
    LoadedModel,
    SeveralSource,
    SeveralValidator,
    Store,
)

WRITE_DEADLINE_S = 15.0
"""For one write, also when the measurement is being cancelled. Stores wait ten seconds for one
another."""

Asked = tuple[Region | None, int]
"""The region of a question and its number in there."""


def attempts(
    policy: RetryPolicy, on: tuple[type[Exception], ...], announcer: Announcer
) -> AsyncIterator[tenacity.AttemptManager]:
    """Attempts at something, for ``async for`` and ``with``: another one follows the errors `on`.

    Observers hear that another attempt comes, and why. The last attempt's error propagates.
    """

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        announcer.retry(state.attempt_number + 1, str(error))

    return aiter(
        tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(on),
            stop=tenacity.stop_after_attempt(policy.attempts),
            wait=tenacity.wait_exponential(
                multiplier=policy.first_wait_s, max=policy.longest_wait_s
            )
            + tenacity.wait_random(0, policy.first_wait_s),
            sleep=anyio.sleep,
            before_sleep=before_sleep,
            reraise=True,
        )
    )


class _EngineFailed(Exception):
    """The engine itself failed at a length, and would again: it has failed there repeatedly."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


class Keeper:
    """Writes for one measurement. After the first `StoreError` nothing more is written: the
    measurement goes on, and `error` says why it is not kept.
    """

    def __init__(self, store: Store, state: State) -> None:
        self.error: StoreError | None = None
        self._store = store
        self._state = state
        self._id = ""
        self._kept = 0
        self._marked = False

    async def begin(self, key: str) -> StoredMeasurement:
        """Open the measurement: an interrupted one with this key, or else a new one.

        Raises `StoreError`.
        """
        fresh = self._state.options.fresh
        found = None if fresh else await self._store.unfinished(key)
        found = found or await self._store.begin(key, self._state.model)
        self._id, self._kept = found.id, len(found.trials)
        return found

    async def append_trials(self, trials: Sequence[Trial]) -> Sequence[Trial]:
        """Remember the trials of one request; the trials to count, see `Store.append_trials`."""
        counted = trials
        if self.error is None:
            with self._writing(to_the_end=True):
                counted = await self._store.append_trials(self._id, trials)
                self._kept += len(trials)
        return counted

    async def append_failure(self, failure: Observation) -> None:
        """Remember that the engine failed at a length."""
        if self.error is None:
            with self._writing(to_the_end=True):
                await self._store.append_failure(self._id, failure)

    async def save_cost(self) -> None:
        """Remember what the measurement has cost so far."""
        if self.error is None:
            with self._writing():
                await self._store.save_cost(self._id, self._state.total_cost())

    async def finish(self, report: ContextReport) -> None:
        """Keep the report."""
        if self.error is None:
            with self._writing():
                await self._store.finish(self._id, report)

    async def mark(self, context_length: int | None) -> None:
        """Remember that a load is about to be tried; None: that it has ended."""
        if context_length is None:
            await self.clear_load()
        elif self.error is None:
            self._marked = True
            with self._writing():
                await self._store.mark_load(self._id, context_length)

    async def clear_load(self) -> None:
        """Remember that no load is under way.

        A mark that was left because the store failed is tried once more: the next run would take
        it for a death.
        """
        if self._marked:
            with self._writing():
                await self._store.clear_load(self._id)
                self._marked = False

    @contextmanager
    def _writing(self, *, to_the_end: bool = False) -> Generator[None]:
        """A write to the store; the first `StoreError` is noted, and none is raised.

        `to_the_end` goes on if the measurement is cancelled: an answer may have taken minutes to
        get. Other writes end with it, so that an interruption waits for no locked store.
        """
        failure: StoreError | None = None
        try:
            with anyio.move_on_after(WRITE_DEADLINE_S, shield=to_the_end) as scope:
                yield
            if scope.cancelled_caught:
                failure = StoreError(f"the store took more than {WRITE_DEADLINE_S:.0f} seconds")
        except StoreError as error:
            failure = error
        if failure is not None and self.error is None:
            self.error = failure
            self._state.announcer.note(
                f"the results after {self._kept} answers could not be stored: {failure}"
            )


TOKENS_PER_FACT = 256
"""Length of a prompt for each question in it. One and its answer take some 40 tokens."""


class ShortAnswers:
    """Asks a loaded model for short answers, which end at stop strings.

    Some models begin with an empty line or an empty thought, and a server ends their replies right
    there. So an empty reply is asked for once more without stop strings, and everything after it
    too if that helps. An empty reply to several questions is asked for once more in any case: it
    would count as so many misses. `on_empty` hears of the reply that was in vain.
    """

    def __init__(self, announcer: Announcer, on_empty: Callable[[Reply], None]) -> None:
        self._announcer = announcer
        self._on_empty = on_empty
        self._ends_here: dict[str, bool] = {}
        """By level, once a reply was empty: whether its replies are ended here, not by the
        server."""

    async def ask(
        self, loaded: LoadedModel, question: Question, level: str, length_tokens: int
    ) -> Reply:
        """The reply to `question`; raises what `loaded` raises."""
        progress = self._announcer.prefill(length_tokens)
        prompt, room = question.prompt, question.max_tokens
        stop = () if self._ends_here.get(level) else question.stop
        reply = await loaded.complete(prompt, max_tokens=room, stop=stop, on_progress=progress)
        empty = not (reply.text.strip() or reply.reasoning)
        stopped = reply.stop_reason is StopReason.STOP_STRING and not (reply.answer or "").strip()
        if stop and stopped and level not in self._ends_here:
            self._on_empty(reply)
            reply = await loaded.complete(prompt, max_tokens=room, on_progress=progress)
            self._ends_here[level] = bool(reply.text.strip() or reply.reasoning)
        elif question.parts and empty:
            self._on_empty(reply)
            reply = await loaded.complete(prompt, max_tokens=room, stop=stop, on_progress=progress)
        said = reply.answer
        if self._ends_here.get(level) and said is not None:
            begun = said.lstrip()
            ends = [at for mark in question.stop if (at := begun.find(mark)) >= 0]
            reply = attrs.evolve(reply, text=begun[: min(ends, default=None)])
        if reply.stop_reason is StopReason.MAX_TOKENS and said is None:
            self._announcer.note(
                "the model is still thinking when its reply ends, because a question leaves room "
                "for a short answer only: turn off thinking in the server's settings"
            )
        elif reply.reasoning and not (said or "").strip():
            self._announcer.note(
                "the server returned a whole reply as reasoning, so there was no answer: turn off "
                "its reasoning parser, or thinking"
            )
        return reply


def _known(value: float | None) -> float | None:
    """A time or a speed, unless an adapter gives what is none."""
    return value if value is not None and 0 <= value < float("inf") else None


class Asker:
    """Turns (level, phase, length, document seed, regions) into stored trials."""

    def __init__(self, engine: Engine, state: State, keeper: Keeper) -> None:
        self._engine = engine
        self._state = state
        self._keeper = keeper
        self._lost = Crashes()
        self._answers = ShortAnswers(state.announcer, lambda reply: state.add_reply(reply, ()))

    def resume(self) -> None:
        """Take over what an interrupted run has found out."""
        self._lost.answered(self._state.largest_loaded())

    async def ask(
        self,
        level: Level,
        phase: str,
        length_tokens: int,
        seed: int,
        regions: Sequence[Region | None],
        facts: int | None = None,
    ) -> None:
        """One more question about each of `regions`, several in one request if `facts` says so
        (default: what the measurement found out). A failure of the engine itself ends the length
        and is stored.

        Raises `InfrastructureError` once the retry policy is exhausted.
        """
        several = self._state.facts if level.is_main and phase != BASELINE else 1
        # With more, so little of a short document is left that no fact stands in a late region.
        facts = facts or min(several, max(1, length_tokens // TOKENS_PER_FACT))
        try:
            for start in range(0, len(regions), facts):
                await self._request(
                    level, phase, length_tokens, seed, regions[start : start + facts]
                )
        except _EngineFailed as failure:
            if str(failure):
                self._state.announcer.note(str(failure))
            if level.is_main or (level.required and phase != BASELINE):
                await self.record_failure(length_tokens, failure.cause)
            else:
                self._state.announcer.note(
                    f"{level.key}: the engine failed at {length_tokens:,} tokens"
                    f" ({failure.cause.replace('_', ' ')})"
                )

    async def record_failure(self, length_tokens: int, cause: Cause) -> None:
        """Remember that nothing more is to be learnt at this length."""
        self._state.failures[length_tokens] = cause
        await self._keeper.append_failure(Observation(length_tokens=length_tokens, failure=cause))

    async def _request(
        self,
        level: Level,
        phase: str,
        length_tokens: int,
        seed: int,
        regions: Sequence[Region | None],
    ) -> None:
        """One request, and its trials stored."""
        known = self._state.asked(phase, length_tokens, seed, level.key)
        wanted: list[Asked] = []
        for region in regions:
            wanted.append((region, known[region]))
            known[region] += 1
        question, reply = await self._reply(level, length_tokens, seed, wanted)
        parts = question.parts or (question,)
        judgements = self._judge(level, phase, question, reply)
        for judgement in judgements:
            if not isinstance(judgement, Judgement):  # pyright: ignore[reportUnnecessaryIsInstance] - a plug-in
                raise TypeError(
                    f"the validator {level.validator.name!r} gave {judgement!r:.50}, which is no"
                    " Judgement"
                )
        trials = [
            Trial(
                level=level.key,
                phase=phase,
                length_tokens=length_tokens,
                seed=seed,
                region=region,
                index=index,
                depth=part.depth,
                kind=part.kind,
                judgement=judgement,
                prompt_tokens=0 if at else reply.prompt_tokens,
                cached_tokens=0 if at else reply.cached_tokens,
                generated_tokens=0 if at else reply.generated_tokens,
                ttft_s=None if at else _known(reply.ttft_s),
                tokens_per_second=None if at else _known(reply.tokens_per_second),
                stop_reason=reply.stop_reason,
                expected=part.expected,
                reply="" if at else reply.text,
            )
            for at, ((region, index), part, judgement) in enumerate(
                zip(wanted, parts, judgements, strict=True)
            )
        ]
        counted = await self._keeper.append_trials(trials)
        self._state.add_reply(reply, counted)
        for trial in counted:
            self._state.announcer.emit(TrialFinished(model_key=self._state.model.key, trial=trial))

    def _judge(
        self, level: Level, phase: str, question: Question, reply: Reply
    ) -> Sequence[Judgement]:
        """By the model's own short reply to the same kind of question, if the validator can do
        that. Short replies are not compared: a broken one there is a miss.
        """
        validator = level.validator
        if question.parts and isinstance(validator, SeveralValidator):
            return validator.judge_each(question, reply)
        if phase != BASELINE and isinstance(validator, ComparingValidator):
            own = self._state.baseline_replies(level.key, question.kind)
            if own:
                at = sum(1 for t in self._state.of(level.key) if t.phase != BASELINE)
                return [validator.compare(question, reply, own[at % len(own)])]
        return [validator.judge(question, reply)]

    async def _reply(
        self, level: Level, length_tokens: int, seed: int, wanted: Sequence[Asked]
    ) -> tuple[Question, Reply]:
        """One request and its reply, with retries on a new engine. An engine that crashes at
        every length now, although it has answered before, is trouble with the machine.
        """
        retried = (InfrastructureError, PredictionError)
        retry, announcer = self._state.options.retry, self._state.announcer
        try:
            async for attempt in attempts(retry, retried, announcer):
                with attempt:
                    return await self._confirmed(level, length_tokens, seed, wanted)
        except EngineCrashed as error:
            raise EngineUnavailable(f"it fails again and again: {error}") from error
        raise AssertionError  # the last attempt returns or raises

    async def _confirmed(
        self, level: Level, length_tokens: int, seed: int, wanted: Sequence[Asked]
    ) -> tuple[Question, Reply]:
        """One request and its reply. A limit that the engine reports counts if a fresh load reports
        it again: a server may say so once for another reason.
        """
        try:
            return await self._reply_once(level, length_tokens, seed, wanted)
        except (ContextOverflow, PredictionTooSlow) as error:
            await self._engine.release()
            self._state.announcer.retry(2, str(error))
        try:
            return await self._reply_once(level, length_tokens, seed, wanted)
        except PromptTruncated as error:
            raise _EngineFailed(
                Cause.TRUNCATED,
                f"the server read {error.read_tokens:,} of {error.sent_tokens:,} prompt tokens: it "
                "dropped the rest of the prompt",
            ) from error
        except ContextOverflow as error:
            raise _EngineFailed(Cause.OVERFLOW, "") from error
        except PredictionTooSlow as error:
            raise _EngineFailed(Cause.TOO_SLOW, "") from error

    async def _reply_once(
        self, level: Level, length_tokens: int, seed: int, wanted: Sequence[Asked]
    ) -> tuple[Question, Reply]:
        try:
            shortest = level.validator.baseline_length
            if self._lost.needs_shorter(length_tokens) and length_tokens > shortest:
                # On another text: in the cache it would make the longer prompt cheaper to read.
                await self._complete(level, shortest, self._state.document(-1), wanted[:1])
            return await self._complete(level, length_tokens, seed, wanted)
        except (ContextOverflow, PredictionTooSlow):
            raise
        except (InfrastructureError, PredictionError):
            await self._engine.release()
            raise

    async def _complete(
        self, level: Level, length_tokens: int, seed: int, wanted: Sequence[Asked]
    ) -> tuple[Question, Reply]:
        """One request and its reply. A loss, an error or a refusal is remembered: see `Crashes`."""
        loaded = await self._loaded(length_tokens)
        # Sizing a prompt sends it only to a server without a tokeniser.
        sent = 0 if getattr(loaded, "has_tokenizer", True) else length_tokens
        try:
            question = await self._question(level, length_tokens, seed, wanted)
            sent = length_tokens
            reply = await self._answers.ask(loaded, question, level.key, length_tokens)
        except (ContextOverflow, PredictionTooSlow):
            raise
        except (ConnectionLost, PredictionError) as error:
            crashed = isinstance(error, EngineCrashed)
            # There is no shorter prompt than the first of all, or than a level's first.
            shortest = length_tokens <= level.validator.baseline_length
            first = shortest and not (level.is_main and self._lost.longest)
            self._lost.lost(sent, certain=crashed and first)
            await self._engine.release()
            needed = self._state.options.retry.crashes + 1 if crashed else CRASHES
            fails = self._lost.is_crash(length_tokens, needed)
            if await self._engine.answers_again() and fails:
                refused = isinstance(error, PredictionError) and error.refused
                cause = Cause.OVERFLOW if refused else Cause.CRASHED_ON_FILL
                said = f"it fails at this length, but answers shorter prompts: {error}"
                raise _EngineFailed(cause, "" if crashed else said) from error
            raise
        self._lost.answered(length_tokens)
        return question, reply

    async def _question(
        self, level: Level, length_tokens: int, seed: int, wanted: Sequence[Asked]
    ) -> Question:
        source = self._engine.source(level.validator, seed)
        if len(wanted) > 1 and isinstance(source, SeveralSource):
            return await source.several(length_tokens, wanted)
        region, index = wanted[0]
        return await source.question(length_tokens, index, region)

    async def _loaded(self, length_tokens: int) -> LoadedModel:
        """A model that holds `length_tokens`. If it loaded before and does not load now, or with
        less, that is trouble with the machine, not a limit of the model.
        """
        try:
            return await self._engine.at_least(length_tokens, self._state.context_length)
        except (LoadError, EngineCrashed) as error:
            message = f"the model loaded earlier, but no longer does: {error}"
            raise EngineUnavailable(message, hint=error.hint) from error
