"""Simulated models: their truth is known, so a measurement of them can be marked.

A `SimulatedModel` says what the model does; `SimulatedAdapter` serves it through the same
port as a real engine, with a prefix cache that behaves like llama-server's (only the common
prefix with the previous prompt survives) and with counters for what was spent.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import attrs

from lmstrix.errors import (
    ContextOverflow,
    LoadRefused,
    ModelNotFound,
    OutOfMemory,
)
from lmstrix.models import (
    LoadProgress,
    MemoryEstimate,
    ModelInfo,
    PrefillProgress,
    Prompt,
    Reply,
    ReplyChunk,
    Status,
    StopReason,
)
from lmstrix.testing.simulated_model import (
    TEMPLATE_TOKENS,
    Beyond,
    SimulatedModel,
    count,
    prompt_tokens,
)
from lmstrix.testing.simulated_replies import answer

__all__ = ["TEMPLATE_TOKENS", "Beyond", "Counters", "SimulatedAdapter", "SimulatedModel"]


@attrs.define(kw_only=True)
class Counters:
    """What a simulated engine was made to do."""

    loads: int = 0
    released: int = 0
    replies: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    most_prompt_tokens: int = 0

    @property
    def left_behind(self) -> int:
        """Instances that nobody released."""
        return self.loads - self.released


class _SimulatedLoaded:
    """One loaded instance."""

    def __init__(self, model: SimulatedModel, context: int, engine: SimulatedAdapter) -> None:
        self._simulated = model
        self._context = context
        self._engine = engine
        self._reuses = model.reuses_prefixes
        self._cached: list[str] = []

    @property
    def model(self) -> ModelInfo:
        return self._simulated.info

    @property
    def effective_context(self) -> int:
        return self._context

    async def count_tokens(self, text: str) -> int:
        return count(text)

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        return len(prompt_tokens(prompt))

    async def complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        on_progress: Callable[[PrefillProgress], None] | None = None,
    ) -> Reply:
        tokens = prompt_tokens(prompt)
        if len(tokens) + max_tokens > self._context:
            raise ContextOverflow(
                f"{len(tokens)} prompt tokens and {max_tokens} for the reply exceed "
                f"{self._context}",
                prompt_tokens=len(tokens),
                context_length=self._context,
            )
        cached = self._read(tokens)
        if on_progress:
            on_progress(
                PrefillProgress(
                    prompt_tokens=len(tokens), cached_tokens=cached, processed_tokens=len(tokens)
                )
            )
        await self._engine.before_reply(len(tokens))
        text, cut_off = answer(
            self._simulated,
            prompt,
            length=len(tokens),
            max_tokens=max_tokens,
            seed=self._engine.seed,
        )
        for mark in stop:
            text = text.split(mark)[0]
        reasoning = "" if prompt.answer_prefix else self._simulated.reasoning
        generated = count(reasoning) + count(text)
        return Reply(
            text=text,
            reasoning=reasoning,
            stop_reason=_stop_reason(cut_off=cut_off, stop=stop),
            prompt_tokens=len(tokens),
            cached_tokens=cached,
            generated_tokens=generated,
            ttft_s=0.0,
            tokens_per_second=100.0,
        )

    async def stream(
        self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[ReplyChunk | Reply, None]:
        reply = await self.complete(prompt, max_tokens=max_tokens, stop=stop)
        for piece in re.findall(r"\s*\S+", reply.reasoning):
            yield ReplyChunk(text=piece, is_reasoning=True)
        for piece in re.findall(r"\s*\S+", reply.text):
            yield ReplyChunk(text=piece)
        yield reply

    def _read(self, tokens: list[str]) -> int:
        """Bring the prefix cache up to date; returns the tokens that it saved."""
        cached = _common_prefix(tokens[:-1], self._cached) if self._reuses else 0
        self._cached = tokens
        counters = self._engine.counters
        counters.replies += 1
        counters.cached_tokens += cached
        counters.prompt_tokens += len(tokens) - cached
        counters.most_prompt_tokens = max(counters.most_prompt_tokens, len(tokens))
        return cached


class SimulatedAdapter:
    """Serves simulated models. `faults` are errors that the next replies raise, in order.

    `owns_engine` says that a load may take this machine down: see `lmstrix.ports.OwnsEngine`.
    """

    name = "simulated"

    def __init__(
        self,
        *models: SimulatedModel,
        memory_bytes: int | None = None,
        faults: Sequence[Exception] = (),
        reply_seconds: float = 0.0,
        seed: int = 0,
        owns_engine: bool = False,
    ) -> None:
        self._models = {m.key: m for m in models or (SimulatedModel(),)}
        self._memory_bytes = memory_bytes
        self.faults = list(faults)
        self.counters = Counters()
        self.seed = seed
        self.owns_engine = owns_engine
        self._reply_seconds = reply_seconds

    async def list_models(self) -> Sequence[ModelInfo]:
        """See `lmstrix.ports.Adapter`."""
        return [self._models[key].info for key in sorted(self._models)]

    async def find_model(self, name: str) -> ModelInfo:
        """See `lmstrix.ports.Adapter`."""
        if name not in self._models:
            raise ModelNotFound(f"there is no simulated model {name!r}")
        return self._models[name].info

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> MemoryEstimate | None:
        """None unless the simulation was given a memory size."""
        if self._memory_bytes is None:
            return None
        return MemoryEstimate(
            context_length=context_length,
            model_bytes=model.size_bytes,
            context_bytes=context_length * self._models[model.key].bytes_per_token,
            available_bytes=self._memory_bytes,
        )

    @asynccontextmanager
    async def load(
        self,
        model: ModelInfo,
        context_length: int,
        *,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AsyncGenerator[_SimulatedLoaded, None]:
        """See `lmstrix.ports.Adapter`."""
        simulated = self._models[model.key]
        await anyio.lowlevel.checkpoint()
        if simulated.refused_above is not None and context_length > simulated.refused_above:
            raise LoadRefused(f"a guardrail refuses {context_length} tokens (simulated)")
        if simulated.loadable is not None and context_length > simulated.loadable:
            raise OutOfMemory(f"{context_length} tokens do not fit (simulated)")
        self.counters.loads += 1
        if on_progress:
            on_progress(LoadProgress(fraction=1.0))
        limit = simulated.clamped_to
        try:
            effective = context_length if limit is None else min(context_length, limit)
            yield _SimulatedLoaded(simulated, effective, self)
        finally:
            self.counters.released += 1

    async def status(self) -> Status:
        """See `lmstrix.ports.Adapter`."""
        return Status(adapter=self.name, engine="simulation", available=True)

    async def before_reply(self, prompt_tokens: int) -> None:
        """Take the time a reply takes, and raise the next fault if there is one."""
        del prompt_tokens
        await anyio.sleep(self._reply_seconds)
        if self.faults:
            raise self.faults.pop(0)


def _stop_reason(*, cut_off: bool, stop: Sequence[str]) -> StopReason:
    if cut_off:
        return StopReason.MAX_TOKENS
    return StopReason.STOP_STRING if stop else StopReason.END


def _common_prefix(tokens: list[str], cached: list[str]) -> int:
    """How many tokens at the beginning are the same; by bisection, which compares in C."""
    same, differs = 0, min(len(tokens), len(cached)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        if tokens[same:middle] == cached[same:middle]:
            same = middle
        else:
            differs = middle
    return same
