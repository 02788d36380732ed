"""The one loaded model of a measurement: loaded when needed, always released."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

import anyio

from lmstrix.errors import EngineTimeout, EngineUnavailable, LMStrixError, LoadHung
from lmstrix.events import Event, LoadFinished, LoadProgressed, LoadStarted
from lmstrix.models import LoadProgress, ModelInfo
from lmstrix.ports import Adapter, HasNotes, LoadedModel, OwnsEngine, QuestionSource, Validator

LOAD_TIMEOUT_S = 60.0
"""How long a load may make no progress before it counts as hung."""
PATIENCE_S_PER_GB = 5.0
"""Added for each gigabyte of the file, for engines that report nothing while they read it: a slow
disk reads 200 MB in a second."""
MARK_DEADLINE_S = 10.0
"""For telling the store that a load is over, also if it was cancelled."""
ANSWER_S = 10.0
"""How long an engine may take to answer another call while a load hangs."""
AWAY_S = 30.0
"""How long a server that crashed may take to answer again."""
CRASHES = 3
"""Failures at one length before they are a property of the length."""


def owns_engine(adapter: Adapter) -> bool:
    """Whether the engine is a child process of ours that could take this machine down."""
    return isinstance(adapter, OwnsEngine) and adapter.owns_engine


class Engine:
    """At most one instance of ours at a time, and the question sources that go with it.

    `mark` is told each size before its load and None after it, for an adapter that owns its
    engine (`lmstrix.ports.OwnsEngine`) only: the death of this process says nothing about a
    load in a server.
    """

    def __init__(
        self,
        adapter: Adapter,
        model: ModelInfo,
        emit: Callable[[Event], None],
        count_load: Callable[[], None],
        mark: Callable[[int | None], Awaitable[None]] | None = None,
    ) -> None:
        self._adapter = adapter
        self._model = model
        self._emit = emit
        self._count_load = count_load
        self._mark = mark if owns_engine(adapter) else None
        self.loads = 0
        """How many were begun."""
        self._stack = AsyncExitStack()
        self._loaded: LoadedModel | None = None
        self._last: LoadedModel | None = None
        """The same, also after its release."""
        self._given: dict[int, int] = {}
        """What each load gave, by what was asked for, in tokens."""
        self._sources: dict[tuple[str, int], QuestionSource] = {}
        self.load_timeout_s = LOAD_TIMEOUT_S
        """How long a load may make no progress, in seconds; large files get longer."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        # The adapter shields its own cleanup and gives it a deadline.
        await self.release()

    @property
    def notes(self) -> Sequence[str]:
        """What the model that was loaded last says about its load."""
        return tuple(self._last.notes) if isinstance(self._last, HasNotes) else ()

    @property
    def counts_tokens(self) -> bool:
        """Whether the lengths of the model that was loaded last are counted, not estimated."""
        return not isinstance(self._last, HasNotes) or self._last.counts_tokens

    async def load(self, context_length: int) -> LoadedModel:
        """Release the loaded model, then load at `context_length`.

        Call it and the `release` that follows from the same task, and leave no cancel scope
        between them that was entered before: the load's own scope stays open until the release.

        Raises:
            LoadHung: no progress for `load_timeout_s`, although the engine answers.
            EngineTimeout: no progress, and the engine does not answer either.
            LMStrixError: what the adapter raises.
        """
        await self.release()
        patience_s = self.load_timeout_s + PATIENCE_S_PER_GB * self._model.size_bytes / 1e9
        failure: LMStrixError | None = None
        try:
            async with self._marked(context_length), AsyncExitStack() as stack:
                started = LoadStarted(model_key=self._model.key, context_length=context_length)
                self._emit(started)
                self.loads += 1
                self._count_load()
                scope = stack.enter_context(anyio.move_on_after(patience_s))
                progress = self._progress(context_length, scope, patience_s)
                loaded = await stack.enter_async_context(
                    self._adapter.load(self._model, context_length, on_progress=progress)
                )
                # The adapter may hold scopes of its own, so this one ends after the release.
                scope.deadline = float("inf")
                if not scope.cancel_called:
                    self._stack, self._loaded = stack.pop_all(), loaded
                    self._last = loaded
        except LMStrixError as error:
            failure = error
        if self._loaded is None and (failure is None or isinstance(failure, LoadHung)):
            failure = await self._hung(context_length, patience_s, failure)
        effective = self._loaded.effective_context if self._loaded else None
        if effective is not None:
            self._given[context_length] = effective
        self._emit(
            LoadFinished(
                model_key=self._model.key,
                context_length=context_length,
                effective_context=effective,
                error=str(failure or ""),
            )
        )
        if self._loaded is None:
            raise failure or LoadHung("nothing was loaded")
        return self._loaded

    @asynccontextmanager
    async def _marked(self, context_length: int) -> AsyncGenerator[None]:
        if self._mark is None:
            yield
            return
        await self._mark(context_length)
        try:
            yield
        finally:
            with anyio.move_on_after(MARK_DEADLINE_S, shield=True):
                await self._mark(None)

    def _progress(
        self, context_length: int, scope: anyio.CancelScope, patience_s: float
    ) -> Callable[[LoadProgress], None]:
        """Puts off the end of the patience whenever the engine says that it is at work."""
        told = -1.0

        def tell(done: LoadProgress) -> None:
            nonlocal told
            scope.deadline = anyio.current_time() + patience_s
            if done.fraction > told:  # engines also report that they are still at work
                told = done.fraction
                self._emit(
                    LoadProgressed(
                        model_key=self._model.key,
                        context_length=context_length,
                        fraction=done.fraction,
                    )
                )

        return tell

    async def _hung(
        self, context_length: int, patience_s: float, hung: LMStrixError | None
    ) -> LMStrixError:
        """What a load without progress is: hung, or the engine is away."""
        hung = hung or LoadHung(
            f"the load of {context_length:,} tokens made no progress for {patience_s:.3g} s",
            hint="Some loads take longer: allow more with --load-timeout.",
        )
        if await self.answers_again(ANSWER_S):
            return hung
        return EngineTimeout(f"{hung}, and the engine does not answer")

    async def at_least(self, context_length: int, preferred: int) -> LoadedModel:
        """The loaded model if its context is large enough, else a fresh load at `preferred`.

        Raises what `load` raises, and `EngineUnavailable` if that gives less than
        `context_length`, which has been loaded before.
        """
        if self._loaded is not None and self._loaded.effective_context >= context_length:
            return self._loaded
        loaded = await self.load(max(context_length, preferred))
        if loaded.effective_context < context_length:
            # Some engines give less than they are asked for: ask as it was asked before.
            enough = [asked for asked, given in self._given.items() if given >= context_length]
            if enough:
                loaded = await self.load(min(enough))
        if loaded.effective_context < context_length:
            now = loaded.effective_context
            await self.release()
            raise EngineUnavailable(
                f"the engine loaded {context_length:,} tokens or more before, and only {now:,} now",
                hint="Another program may have taken memory. Close it, then run the same command.",
            )
        return loaded

    def source(self, validator: Validator, seed: int) -> QuestionSource:
        """A validator's questions on document `seed`, for the loaded model."""
        if self._loaded is None:
            raise RuntimeError("nothing is loaded")
        key = (validator.name, seed)
        if key not in self._sources:
            self._sources[key] = validator.questions(self._loaded, seed)
        return self._sources[key]

    async def answers_again(self, within_s: float = AWAY_S) -> bool:
        """Whether the engine answers a call on a new connection, or begins to within the time."""
        with anyio.move_on_after(within_s):
            wait_s = 0.1
            while not (await self._adapter.status()).available:
                await anyio.sleep(wait_s)
                wait_s = min(2 * wait_s, 2.0)
            return True
        return False

    async def release(self) -> None:
        """Release the loaded model. Safe to call at any time."""
        self._loaded = None
        self._sources.clear()
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()


class Crashes:
    """Tells a failure that comes with a length from trouble with the connection or the server.

    It is a lost connection, a crash, an error of the engine or a refusal in unknown words at one
    length, three times in a row, with an answer at a shorter length between each two and no failure
    there. A crash that the engine reports needs two, unless that length has been answered. Anything
    less says nothing about the length.
    """

    def __init__(self) -> None:
        self.longest = 0
        """The longest prompt that was answered, in tokens; 0 if none was."""
        self._losses: Counter[int] = Counter()
        self._unconfirmed: set[int] = set()

    def lost(self, length_tokens: int, *, certain: bool = False) -> None:
        """A prompt of this length got no answer; 0: it was a call without a prompt. If that is
        `certain` to be the prompt's fault, no shorter one has to be answered.
        """
        for longer in [n for n in self._losses if n > length_tokens]:
            del self._losses[longer]
        if length_tokens not in self._unconfirmed:
            self._losses[length_tokens] += 1
            if not certain:
                self._unconfirmed.add(length_tokens)

    def answered(self, length_tokens: int) -> None:
        """A prompt of this length was answered."""
        self.longest = max(self.longest, length_tokens)
        self._unconfirmed = {n for n in self._unconfirmed if n <= length_tokens}
        for length in [n for n in self._losses if n <= length_tokens]:
            del self._losses[length]  # it works at that length
            self._unconfirmed.discard(length)

    def needs_shorter(self, length_tokens: int) -> bool:
        """Whether a shorter prompt must be answered before another loss here counts."""
        return length_tokens in self._unconfirmed

    def is_crash(self, length_tokens: int, needed: int = CRASHES) -> bool:
        """Whether prompts of this length fail, after `needed` losses if none was answered. Ask only
        once the engine answers again.
        """
        if length_tokens <= self.longest:
            needed = CRASHES
        return self._losses[length_tokens] >= needed
