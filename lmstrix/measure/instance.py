"""The one loaded model of a measurement: loaded when needed, always released."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import anyio

from lmstrix.errors import LMStrixError
from lmstrix.events import Event, LoadFinished, LoadProgressed, LoadStarted
from lmstrix.models import LoadProgress, ModelInfo
from lmstrix.ports import Adapter, LoadedModel, QuestionSource, Validator

__all__ = ["Instance"]

MARK_DEADLINE_S = 10.0
"""For telling the store that a load is over, also when it was cancelled."""


class Instance:
    """At most one instance of ours at a time, and the question sources that go with it."""

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
        self._mark = mark
        self._stack = AsyncExitStack()
        self._loaded: LoadedModel | None = None
        self._sources: dict[tuple[str, int], QuestionSource] = {}

    @property
    def effective_context(self) -> int | None:
        """What is loaded now, in tokens."""
        return self._loaded.effective_context if self._loaded else None

    async def load(self, context_length: int) -> LoadedModel:
        """Release what is loaded, then load at `context_length`. Raises what the adapter raises.

        While it loads, the size is marked as being tried: where the process or the machine
        dies of it, the mark stays.
        """
        await self.release()
        if self._mark is None:
            return await self._load(context_length)
        await self._mark(context_length)
        try:
            return await self._load(context_length)
        finally:
            with anyio.move_on_after(MARK_DEADLINE_S, shield=True):
                await self._mark(None)

    async def _load(self, context_length: int) -> LoadedModel:
        key = self._model.key
        self._emit(LoadStarted(model_key=key, context_length=context_length))
        self._count_load()

        def progress(done: LoadProgress) -> None:
            self._emit(
                LoadProgressed(model_key=key, context_length=context_length, fraction=done.fraction)
            )

        try:
            loaded = await self._stack.enter_async_context(
                self._adapter.load(self._model, context_length, on_progress=progress)
            )
        except LMStrixError as error:
            self._emit(self._finished(context_length, None, str(error)))
            raise
        self._loaded = loaded
        self._emit(self._finished(context_length, loaded.effective_context, ""))
        return loaded

    def _finished(self, context_length: int, effective: int | None, error: str) -> LoadFinished:
        return LoadFinished(
            model_key=self._model.key,
            context_length=context_length,
            effective_context=effective,
            error=error,
        )

    async def at_least(self, context_length: int, preferred: int) -> LoadedModel:
        """What is loaded if it is large enough, else a fresh load at `preferred`."""
        if self._loaded is not None and self._loaded.effective_context >= context_length:
            return self._loaded
        return await self.load(max(context_length, preferred))

    def source(self, validator: Validator, seed: int) -> QuestionSource:
        """A validator's questions on document `seed`, for what is loaded now."""
        if self._loaded is None:
            raise RuntimeError("nothing is loaded")
        key = (validator.name, seed)
        if key not in self._sources:
            self._sources[key] = validator.questions(self._loaded, seed)
        return self._sources[key]

    async def release(self) -> None:
        """Release what is loaded. Safe to call at any time."""
        self._loaded = None
        self._sources.clear()
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()
