"""Simulated models: their truth is known, so a measurement of them can be marked.

A `SimulatedModel` says what the model does; `SimulatedAdapter` serves it through the same
port as a real engine, with a prefix cache that behaves like llama-server's (only the common
prefix with the previous prompt survives) and with counters for what was spent.
"""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random

import anyio
import anyio.lowlevel
import attrs

from lmstrix.errors import (
    ContextOverflow,
    EngineCrashed,
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

__all__ = ["TEMPLATE_TOKENS", "Beyond", "Counters", "SimulatedAdapter", "SimulatedModel"]

TEMPLATE_TOKENS = 8
"""What the simulated chat template adds to every prompt."""

_TOKEN = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"\.(?:\s|$)")


class Beyond(enum.StrEnum):
    """What a simulated model does with a prompt that is longer than its true limit."""

    FORGETS_HEAD = "forgets_head"
    """Knows only the last `true_context` tokens of the prompt."""
    FORGETS_ALL = "forgets_all"
    GIBBERISH = "gibberish"
    EMPTY = "empty"
    CRASHES = "crashes"


@attrs.frozen(kw_only=True)
class SimulatedModel:
    """A model with a known truth. Lengths are tokens.

    `true_context` is the longest prompt plus reply that it handles; `loadable` the largest
    context that loads; `refused_above` a guardrail; `clamped_to` what the engine gives
    instead of more; `lapses` the share of questions that it misses at any length.
    """

    key: str = "simulated"
    declared: int | None = 32768
    true_context: int = 8192
    loadable: int | None = None
    refused_above: int | None = None
    clamped_to: int | None = None
    beyond: Beyond = Beyond.FORGETS_HEAD
    lapses: float = 0.0
    knows: bool = True
    """False: it cannot do the task at any length."""
    reuses_prefixes: bool = True
    bytes_per_token: int = 1024

    @property
    def info(self) -> ModelInfo:
        """The model as an adapter lists it."""
        return ModelInfo(
            key=self.key,
            path=f"simulated:{self.key}",
            format="simulated",
            architecture="simulated",
            size_bytes=1024,
            declared_context=self.declared,
            digest=f"simulated {self.key}",
        )


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
        return len(_TOKEN.findall(text))

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        return len(_tokens(prompt))

    async def complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        on_progress: Callable[[PrefillProgress], None] | None = None,
    ) -> Reply:
        tokens = _tokens(prompt)
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
        text = self._answer(prompt, tokens, max_tokens)
        for mark in stop:
            text = text.split(mark)[0]
        generated = len(_TOKEN.findall(text))
        return Reply(
            text=text,
            stop_reason=StopReason.STOP_STRING if stop else StopReason.END,
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

    def _answer(self, prompt: Prompt, tokens: list[str], max_tokens: int) -> str:
        model = self._simulated
        if not model.knows or self._lapses(prompt, tokens):
            return " nothing that I know of."
        visible = prompt.user
        if len(tokens) + max_tokens > model.true_context:
            if model.beyond is Beyond.CRASHES:
                raise EngineCrashed("the engine died (simulated)")
            if model.beyond is not Beyond.FORGETS_HEAD:
                return {
                    Beyond.GIBBERISH: " the the the the the the",
                    Beyond.EMPTY: "",
                    Beyond.FORGETS_ALL: " something else.",
                }[model.beyond]
            visible = _last_tokens(prompt.user, model.true_context - TEMPLATE_TOKENS - max_tokens)
        return _recall(visible, prompt.answer_prefix)

    def _lapses(self, prompt: Prompt, tokens: list[str]) -> bool:
        """The same question on the same text always lapses, or never: decoding is greedy."""
        seed = f"{self._engine.seed} {len(tokens)} {prompt.user[-200:]}"
        return Random(seed).random() < self._simulated.lapses  # noqa: S311 - reproducible


class SimulatedAdapter:
    """Serves simulated models. `faults` are errors that the next replies raise, in order."""

    name = "simulated"

    def __init__(
        self,
        *models: SimulatedModel,
        memory_bytes: int | None = None,
        faults: Sequence[Exception] = (),
        reply_seconds: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._models = {m.key: m for m in models or (SimulatedModel(),)}
        self._memory_bytes = memory_bytes
        self.faults = list(faults)
        self.counters = Counters()
        self.seed = seed
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


def _tokens(prompt: Prompt) -> list[str]:
    head = ["<s>"] * (TEMPLATE_TOKENS // 2)
    tail = ["</s>"] * (TEMPLATE_TOKENS // 2)
    return head + _TOKEN.findall(prompt.user) + tail + _TOKEN.findall(prompt.answer_prefix)


def _common_prefix(tokens: list[str], cached: list[str]) -> int:
    pairs = zip(tokens, cached, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(tokens), len(cached)))


def _last_tokens(text: str, count: int) -> str:
    """The part of `text` that holds its last `count` tokens."""
    spans = [match.start() for match in _TOKEN.finditer(text)]
    return text[spans[-count] :] if 0 < count < len(spans) else text


def _recall(visible: str, stem: str) -> str:
    """What stands behind `stem` in the text, as a model with perfect memory would copy it."""
    at = visible.rfind(stem) if stem else -1
    if at < 0:
        return " something else."
    rest = visible[at + len(stem) :]
    end = _SENTENCE_END.search(rest)
    return rest[: end.end()] if end else rest
