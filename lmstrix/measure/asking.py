"""Asks questions at a length: retries what is worth it, and remembers before it goes on."""

from __future__ import annotations

from collections import Counter

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
)
from lmstrix.events import TrialFinished
from lmstrix.measure.announcing import Announcer
from lmstrix.measure.engine import Crashes, Engine
from lmstrix.measure.keeping import Keeper
from lmstrix.measure.ledger import BASELINE, Ledger
from lmstrix.measure.level import Level
from lmstrix.measure.options import RetryPolicy
from lmstrix.measure.retrying import with_retries
from lmstrix.models import Cause, Judgement, Observation, Question, Reply, Trial
from lmstrix.ports import ComparingValidator, LoadedModel, Validator

__all__ = ["Asker", "HardFailure"]


class HardFailure(Exception):
    """The engine itself failed at a length, and would again."""

    def __init__(self, cause: Cause, detail: str) -> None:
        super().__init__(detail)
        self.cause = cause


class Asker:
    """Turns (level, phase, length, document seed, how many) into stored trials."""

    def __init__(
        self,
        *,
        instance: Engine,
        ledger: Ledger,
        keeper: Keeper,
        retry: RetryPolicy,
        announcer: Announcer,
    ) -> None:
        self._instance = instance
        self._ledger = ledger
        self._keeper = keeper
        self._retry = retry
        self._announcer = announcer
        self._crashes: Counter[int] = Counter()
        self._lost = Crashes()
        self.context_length = 0
        """What to load when nothing is loaded, in tokens."""

    async def ask(
        self, level: Level, phase: str, length_tokens: int, seed: int, trials: int
    ) -> None:
        """Ask `trials` more questions. An engine's own failure ends the length, remembered.

        Raises `InfrastructureError` once the retry policy is exhausted.
        """
        try:
            for _ in range(trials):
                await self._ask_one(level, phase, length_tokens, seed)
        except HardFailure as failure:
            if failure.cause is Cause.TRUNCATED:
                self._announcer.note(str(failure))
            await self.record_failure(length_tokens, failure.cause)

    async def record_failure(self, length_tokens: int, cause: Cause) -> None:
        """Remember that nothing more is to be learnt at this length."""
        self._ledger.add_failure(length_tokens, cause)
        await self._keeper.append_failure(Observation(length_tokens=length_tokens, failure=cause))

    async def _ask_one(self, level: Level, phase: str, length_tokens: int, seed: int) -> None:
        index = self._ledger.asked(phase, length_tokens, seed, level.key)
        question, reply = await self._reply(level.validator, length_tokens, seed, index)
        trial = Trial(
            level=level.key,
            phase=phase,
            length_tokens=length_tokens,
            seed=seed,
            index=index,
            depth=question.depth,
            kind=question.kind,
            judgement=self._judge(level, phase, question, reply, index),
            prompt_tokens=reply.prompt_tokens,
            cached_tokens=reply.cached_tokens,
            generated_tokens=reply.generated_tokens,
            ttft_s=reply.ttft_s,
            tokens_per_second=reply.tokens_per_second,
            stop_reason=reply.stop_reason,
            expected=question.expected,
            reply=reply.text,
        )
        self._ledger.add_reply(reply)
        self._ledger.add_trial(trial)
        await self._keeper.append_trial(trial)
        self._announcer.emit(TrialFinished(model_key=self._announcer.model_key, trial=trial))

    def _judge(
        self, level: Level, phase: str, question: Question, reply: Reply, index: int
    ) -> Judgement:
        """By the model's own short reply to the same kind of question, where the validator can do
        that. Short replies are not compared: what is broken there is a miss.
        """
        validator = level.validator
        if phase == BASELINE or not isinstance(validator, ComparingValidator):
            return validator.judge(question, reply)
        own = self._ledger.baseline_replies(level.key, question.kind)
        if not own:
            return validator.judge(question, reply)
        return validator.compare(question, reply, own[index % len(own)])

    async def _reply(
        self, validator: Validator, length_tokens: int, seed: int, index: int
    ) -> tuple[Question, Reply]:
        """One question and its reply, with retries on a new engine."""
        return await with_retries(
            self._retry,
            lambda: self._reply_once(validator, length_tokens, seed, index),
            on=(InfrastructureError, PredictionError),
            announce=self._announcer.retry,
        )

    async def _reply_once(
        self, validator: Validator, length_tokens: int, seed: int, index: int
    ) -> tuple[Question, Reply]:
        try:
            shortest = validator.baseline_length
            if self._lost.needs_shorter(length_tokens) and length_tokens > shortest:
                await self._complete(validator, shortest, seed, index)
            question, reply = await self._complete(validator, length_tokens, seed, index)
        except PromptTruncated as error:
            raise HardFailure(
                Cause.TRUNCATED,
                f"the server read {error.read_tokens} of {error.sent_tokens} prompt tokens: it "
                "dropped the rest of the prompt",
            ) from error
        except ContextOverflow as error:
            raise HardFailure(Cause.OVERFLOW, str(error)) from error
        except PredictionTooSlow as error:
            raise HardFailure(Cause.TOO_SLOW, str(error)) from error
        except EngineCrashed as error:
            await self._instance.release()
            self._crashes[length_tokens] += 1
            if self._crashes[length_tokens] > self._retry.crashes:
                raise HardFailure(Cause.CRASHED_ON_FILL, str(error)) from error
            raise
        except (InfrastructureError, PredictionError):
            await self._instance.release()
            raise
        return question, reply

    async def _complete(
        self, validator: Validator, length_tokens: int, seed: int, index: int
    ) -> tuple[Question, Reply]:
        """One question and its reply. A lost connection is remembered: see `Crashes`."""
        loaded = await self._loaded(length_tokens)
        question = await self._instance.source(validator, seed).question(length_tokens, index)
        try:
            reply = await loaded.complete(
                question.prompt,
                max_tokens=question.max_tokens,
                stop=question.stop,
                on_progress=self._announcer.prefill(length_tokens),
            )
        except ConnectionLost as error:
            self._lost.lost(length_tokens)
            await self._instance.release()
            if await self._instance.answers_again() and self._lost.is_crash(length_tokens):
                raise HardFailure(Cause.CRASHED_ON_FILL, str(error)) from error
            raise
        self._lost.answered(length_tokens)
        return question, reply

    async def _loaded(self, length_tokens: int) -> LoadedModel:
        """A model that holds `length_tokens`. What loaded before and does not load now is
        trouble with the machine, not a limit of the model.
        """
        try:
            return await self._instance.at_least(length_tokens, self.context_length)
        except LoadError as error:
            message = f"the model loaded before, and does not any more: {error}"
            raise EngineUnavailable(message, hint=error.hint) from error
