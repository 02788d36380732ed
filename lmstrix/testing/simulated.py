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
from functools import lru_cache
from itertools import islice
from random import Random

import anyio
import anyio.lowlevel
import attrs

from lmstrix.adapters.streaming import Items, StreamedModel, require_room
from lmstrix.adapters.token_counts import common_length
from lmstrix.errors import (
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
from lmstrix.validators.haystack import filler_sentences
from lmstrix.validators.needles import answer_from

TEMPLATE_TOKENS = 8
"""What the simulated chat template adds to every prompt."""

TOKEN = re.compile(r"\w+|[^\w\s]")


class Beyond(enum.StrEnum):
    """What a simulated model does with a prompt that is longer than its true limit."""

    FORGETS_HEAD = "forgets_head"
    """Knows only the last tokens of the prompt, as many as its window holds."""
    FORGETS_MIDDLE = "forgets_middle"
    """Knows only the first and the last tokens, together as many: as after `truncateMiddle`."""
    KEEPS_FIRST = "keeps_first"
    """Knows only the first tokens of the prompt, as many as its window holds, and the request."""
    FORGETS_HALF = "forgets_half"
    """Misses every other question, wherever its answer stands."""
    FORGETS_ALL = "forgets_all"
    GIBBERISH = "gibberish"
    EMPTY = "empty"
    CRASHES = "crashes"
    NOISE = "noise"
    """Random characters up to the end of the reply."""
    WORD_SALAD = "word_salad"
    """Random words of the prompt, likewise."""
    LOOPS = "loops"
    """The last words of the prompt again and again, likewise."""
    SAME_NUMBER = "same_number"
    """Answers every question with one and the same number."""
    ECHOES = "echoes"
    """Repeats the beginning of the prompt."""
    GUESSES = "guesses"
    """Is right one time in ten."""
    REFUSES = "refuses"


ENDLESS = frozenset({Beyond.NOISE, Beyond.WORD_SALAD, Beyond.LOOPS})
"""These never end by themselves."""
INCOHERENT = ENDLESS | {Beyond.GIBBERISH, Beyond.EMPTY}
"""These write no language either."""


@attrs.frozen(kw_only=True)
class SimulatedModel:
    """A model with a known truth. Lengths are tokens.

    `true_context` is the longest prompt plus reply that it handles; `loadable` the largest
    context that loads; `refused_above` a guardrail; `clamped_to` what the engine gives
    instead of more; `lapses` the share of questions that it misses at any length.

    It reads the request in the prompt's last lines: it writes when told to write, tell, explain
    or describe, goes on with the text when told to copy or continue, and else completes
    one sentence of it, or each sentence of a numbered list. With `true_context` 0 it does at any
    length what `beyond` says.
    """

    key: str = "simulated"
    declared: int | None = 32768
    true_context: int = 8192
    loadable: int | None = None
    refused_above: int | None = None
    clamped_to: int | None = None
    beyond: Beyond = Beyond.FORGETS_HEAD
    kept: float = 1.0
    """The share of `true_context` that its window holds once it was exceeded. With 1 the facts
    leave it one by one. llama.cpp's context shift throws away half of a full window: 0.5."""
    band: tuple[float, float] | None = None
    """A part of the window that is lost at lengths above `true_context`, as shares of the length;
    `beyond` does not matter then."""
    lapses: float = 0.0
    coherent_context: int | None = None
    """The longest prompt plus reply at which it still writes language. None: `true_context`
    if what it does beyond is not language, else any length."""
    knows: bool = True
    """False: it cannot do the task at any length."""
    reuses_prefixes: bool = True
    bytes_per_token: int = 1024
    reasoning: str = ""
    """What it thinks before it answers, unless the prompt has an answer prefix."""
    opening: str = ""
    """What each reply begins with: an empty line, or the tags of a thought."""

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


def prompt_tokens(prompt: Prompt) -> list[str]:
    """The tokens of `prompt` in the simulated chat template."""
    head = ["<s>"] * (TEMPLATE_TOKENS // 2)
    tail = ["</s>"] * (TEMPLATE_TOKENS // 2)
    document, request = _parts(prompt.user)
    read = _tokens(document), TOKEN.findall(request)
    before = TOKEN.findall(prompt.system)
    return [*head, *before, *read[0], *read[1], *tail, *TOKEN.findall(prompt.answer_prefix)]


def token_starts(text: str) -> list[int]:
    """Where each token of `text` starts, in characters."""
    document, request = _parts(text)
    shift = len(document)
    return [*_starts(document), *(shift + match.start() for match in TOKEN.finditer(request))]


def count(text: str) -> int:
    """The number of tokens of plain text."""
    return len(TOKEN.findall(text))


def _parts(text: str) -> tuple[str, str]:
    """The document and the request. Many questions share a document, which is read but once;
    no token goes across the blank line between the two.
    """
    at = max(0, text.rfind("\n\n"))
    return text[:at], text[at:]


@lru_cache(maxsize=32)
def _tokens(document: str) -> tuple[str, ...]:
    return tuple(TOKEN.findall(document))


@lru_cache(maxsize=32)
def _starts(document: str) -> tuple[int, ...]:
    return tuple(match.start() for match in TOKEN.finditer(document))


def forget_texts() -> None:
    """Tokenise every text anew, for a test that changes `TOKEN`."""
    _tokens.cache_clear()
    _starts.cache_clear()


# What a model answers ----------------------------------------------------------------------------

_WORD = re.compile(r"\w+")
_NOISE = "#$%&*+=@^~|<>"
"""Each is one token."""
FORGOTTEN = " something else."
REFUSAL = " I'm sorry, but I cannot help with that."
NUMBER = " 48213."
CHANCE = 0.1
_SENTENCE_END = re.compile(r"\.(?:\s|$)")
_WRITES = re.compile(r"\n\n(?:Write|Tell|Explain|Describe)\b[^\n]*\s*\Z")
_LISTED = re.compile(r"^\d+\. (.+)$", re.MULTILINE)
"""A sentence of a numbered list, which is to be completed."""
_COPIES = re.compile(r"\n\n(?:Copy|Continue)\b[^\n]*\s*\Z")

Answer = tuple[str, bool]
"""The text, and whether it was cut off."""


def answer(
    model: SimulatedModel, prompt: Prompt, *, length: int, max_tokens: int, seed: int
) -> Answer:
    """What `model` says to `prompt` of `length` tokens, and whether it was cut off.

    It completes a numbered list of sentences line by line if the answer begins with ``1.``.
    Raises `EngineCrashed` if the model does so.
    """
    if not prompt.answer_prefix.startswith("1. "):
        return _answer(model, prompt, length=length, max_tokens=max_tokens, seed=seed)
    listed = [match[1] for match in _LISTED.finditer(_request(prompt.user))]
    stems = [prompt.answer_prefix.removeprefix("1. "), *listed[1:]]
    parts = [
        _answer(
            model,
            attrs.evolve(prompt, answer_prefix=stem),
            length=length,
            max_tokens=max_tokens,
            seed=seed,
        )
        for stem in stems
    ]
    if parts[0][1]:  # broken language without an end needs no question to be said
        return parts[0]
    lines = [
        f"\n{n}. {stem}{said.rstrip()}"
        for n, (stem, (said, _)) in enumerate(zip(stems, parts, strict=True), 1)
    ]
    return "".join(lines).removeprefix(f"\n{prompt.answer_prefix}"), False


def _answer(
    model: SimulatedModel, prompt: Prompt, *, length: int, max_tokens: int, seed: int
) -> Answer:
    """What it says to one question."""
    random = Random(f"{seed} {length} {prompt.user[-200:]} {prompt.answer_prefix}")  # noqa: S311 - reproducible
    fits = length + max_tokens <= model.true_context
    if not fits and model.beyond is Beyond.CRASHES:
        raise EngineCrashed("the engine died (simulated)")
    if _WRITES.search(prompt.user):
        return _written(model, prompt, length + max_tokens, max_tokens, random)
    # the same question on the same text always lapses, or never: decoding is greedy
    if not model.knows or random.random() < model.lapses:
        return " nothing that I know of.", False
    complete = _continued(max_tokens) if _COPIES.search(prompt.user) else _completed
    if fits:
        return complete(prompt.user, prompt.answer_prefix)
    if model.band is not None:
        visible = _without_band(prompt.user, model.band, length + max_tokens)
        return complete(visible, prompt.answer_prefix)
    room = int(model.true_context * model.kept) - TEMPLATE_TOKENS - max_tokens
    if model.beyond is Beyond.KEEPS_FIRST:
        first = room + max_tokens + TEMPLATE_TOKENS // 2
        return complete(_first_of_document(prompt.user, first), prompt.answer_prefix)
    return _beyond(model.beyond, prompt, room, max_tokens, complete, random)


Complete = Callable[[str, str], Answer]


def _beyond(
    beyond: Beyond,
    prompt: Prompt,
    room: int,
    max_tokens: int,
    complete: Complete,
    random: Random,
) -> Answer:
    """The answer to a prompt of which only `room` tokens can be seen."""
    user, stem = prompt.user, prompt.answer_prefix
    if beyond is Beyond.FORGETS_HEAD:
        return complete(_last_tokens(user, room), stem)
    if beyond is Beyond.FORGETS_MIDDLE:
        return complete(_without_middle(user, room), stem)
    if beyond in (Beyond.FORGETS_HALF, Beyond.GUESSES):
        share = CHANCE if beyond is Beyond.GUESSES else 0.5
        return complete(user, stem) if random.random() < share else (FORGOTTEN, False)
    return _broken(beyond, user, max_tokens, random)


def _broken(beyond: Beyond, user: str, max_tokens: int, random: Random) -> Answer:
    """What needs no question to be said."""
    if beyond in ENDLESS:
        return _endless(beyond, user, max_tokens, random), True
    if beyond is Beyond.ECHOES:
        return f" {_first_tokens(user, max_tokens)}", True
    return {
        Beyond.GIBBERISH: " the the the the the the",
        Beyond.EMPTY: "",
        Beyond.SAME_NUMBER: NUMBER,
        Beyond.REFUSES: REFUSAL,
    }.get(beyond, FORGOTTEN), False


def _written(
    model: SimulatedModel, prompt: Prompt, length: int, max_tokens: int, random: Random
) -> Answer:
    """Free writing: some sentences of its own while it can, and else what it does instead."""
    limit, beyond = model.coherent_context, model.beyond
    if limit is None:
        always = beyond not in INCOHERENT and beyond is not Beyond.REFUSES
        limit = length if always else model.true_context
    elif beyond not in INCOHERENT:
        beyond = Beyond.WORD_SALAD
    if length > limit:
        return _broken(beyond, prompt.user, max_tokens, random)
    sentences = filler_sentences(random.randrange(10**9))
    text = " ".join(next(sentences) for _ in range(max_tokens // 8 + 1))
    return f" {_first_tokens(text, max_tokens)}", True


def _endless(beyond: Beyond, text: str, max_tokens: int, random: Random) -> str:
    words = _WORD.findall(text) or ["word"]
    if beyond is Beyond.NOISE:
        return "".join(f" {random.choice(_NOISE)}" for _ in range(max_tokens))
    if beyond is Beyond.WORD_SALAD:
        return "".join(f" {random.choice(words)}" for _ in range(max_tokens))
    end = words[-8:]
    return "".join(f" {end[n % len(end)]}" for n in range(max_tokens))


def _without_middle(text: str, room: int) -> str:
    spans = token_starts(text)
    half = room // 2
    if room >= len(spans) or half < 1:
        return text
    return f"{text[: spans[half]]} {text[spans[-half] :]}"


def _without_band(text: str, band: tuple[float, float], length: int) -> str:
    """`text` without the tokens from one share of the length to another, its request excepted."""
    starts = token_starts(text)
    most = len(starts)
    begin, end = (max(0, int(share * length) - TEMPLATE_TOKENS // 2) for share in band)
    before = text[: starts[begin]] if begin < most else text
    return f"{before} {text[starts[end] :] if end < most else _request(text)}"


def _first_of_document(text: str, count: int) -> str:
    """The first `count` tokens of the document, and the request."""
    starts = token_starts(text)
    return f"{text[: starts[count]]} {_request(text)}" if 0 < count < len(starts) else text


def _request(text: str) -> str:
    """Everything from the last blank line on; nothing if there is none."""
    at = text.rfind("\n\n")
    return text[at:] if at >= 0 else ""


def _last_tokens(text: str, count: int) -> str:
    """The part of `text` that holds its last `count` tokens."""
    spans = token_starts(text)
    return text[spans[-count] :] if 0 < count < len(spans) else text


def _first_tokens(text: str, count: int) -> str:
    """The part of `text` that holds its first `count` tokens."""
    last = next(islice(TOKEN.finditer(text), max(0, count - 1), None), None)
    return text[: last.end()] if last else text


def _continued(max_tokens: int) -> Complete:
    """Goes on with the text behind a stem until the reply is full."""

    def go_on(visible: str, stem: str) -> Answer:
        at = visible.rfind(stem) if stem else -1
        if at < 0:
            return FORGOTTEN, False
        return _first_tokens(visible[at + len(stem) :], max_tokens), True

    return go_on


def _completed(visible: str, stem: str) -> Answer:
    """What stands behind `stem` in the text, as a model with perfect memory would copy it, or
    what follows from it.
    """
    document = visible[: len(visible) - len(_request(visible))]
    visible = document or visible
    at = visible.rfind(stem) if stem else -1
    if at < 0:
        traced = answer_from(visible, stem)
        return FORGOTTEN if traced is None else f" {traced}.", False
    rest = visible[at + len(stem) :]
    end = _SENTENCE_END.search(rest)
    return (rest[: end.end()] if end else rest), False


# The adapter that serves it ----------------------------------------------------------------------


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


class _SimulatedLoaded(StreamedModel):
    """One loaded instance."""

    def __init__(self, model: SimulatedModel, context: int, engine: SimulatedAdapter) -> None:
        super().__init__(model.info, context)
        self._simulated = model
        self._engine = engine
        self._cached: list[str] = []

    async def count_tokens(self, text: str) -> int:
        return count(text)

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        return len(prompt_tokens(prompt))

    async def _generate(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> Items:
        tokens = prompt_tokens(prompt)
        length = len(tokens)
        require_room(length, max_tokens, self._context)
        cached = self._read(tokens)
        yield PrefillProgress(prompt_tokens=length, cached_tokens=cached, processed_tokens=length)
        await self._engine.before_reply(length)
        text, cut_off = answer(
            self._simulated, prompt, length=length, max_tokens=max_tokens, seed=self._engine.seed
        )
        if self._simulated.opening:
            pieces = re.findall(r"\s*\S+|\s+$", self._simulated.opening + text)
            text, cut_off = "".join(pieces[:max_tokens]), cut_off or len(pieces) > max_tokens
        begun = bool(text)
        for mark in stop:
            cut_off = cut_off and mark not in text
            text = text.split(mark)[0]
        reasoning = "" if prompt.answer_prefix else self._simulated.reasoning
        for piece in re.findall(r"\s*\S+", reasoning):
            yield ReplyChunk(text=piece, is_reasoning=True)
        for piece in re.findall(r"\s*\S+", text):
            yield ReplyChunk(text=piece)
        ended = StopReason.STOP_STRING if stop else StopReason.END
        yield Reply(
            text=text,
            reasoning=reasoning,
            stop_reason=StopReason.MAX_TOKENS if cut_off else ended,
            prompt_tokens=length,
            cached_tokens=cached,
            generated_tokens=count(reasoning) + max(count(text), begun),
            ttft_s=0.0,
            tokens_per_second=100.0,
        )

    def _read(self, tokens: list[str]) -> int:
        """Bring the prefix cache up to date; returns the tokens that it saved."""
        cached = common_length(tokens[:-1], self._cached) if self._simulated.reuses_prefixes else 0
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
        context_length = await self.before_load(context_length, on_progress or (lambda _: None))
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

    async def before_load(
        self, context_length: int, on_progress: Callable[[LoadProgress], None]
    ) -> int:
        """The size that is loaded if `context_length` was asked for. For tests: it may take time,
        report progress, and raise an error.
        """
        del on_progress
        return context_length

    async def before_reply(self, prompt_tokens: int) -> None:
        """Take the time a reply takes, and raise the next fault if there is one."""
        del prompt_tokens
        await anyio.sleep(self._reply_seconds)
        if self.faults:
            raise self.faults.pop(0)
