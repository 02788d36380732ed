"""What loaded models of all adapters share: replies as streams, and the thoughts in them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from time import perf_counter
from typing import TypeVar

import anyio
import attrs

from lmstrix.errors import (
    ConnectionLost,
    ContextOverflow,
    EngineTimeout,
    EngineUnavailable,
    PromptTruncated,
)
from lmstrix.json_values import Json
from lmstrix.models import ModelInfo, PrefillProgress, Prompt, Reply, ReplyChunk

T = TypeVar("T")

Items = AsyncGenerator[PrefillProgress | ReplyChunk | Reply, None]
"""One prediction as it happens; the last item is the whole `Reply`."""

SLOWER = 10
"""A step may take this many times as long as the slowest one so far."""

EVENTS_PER_TOKEN = 8
"""Events of a reply for each token that was asked for. Engines send one."""
SPARE_EVENTS = 256
CHARACTERS_PER_TOKEN = 1024
"""Characters of a reply for each token. The longest tokens are runs of some hundred spaces."""
SPARE_CHARACTERS = 2**16
SECONDS_PER_TOKEN = 10.0
WRITING_S = 120.0
"""Time from the first piece of a reply to its end. An engine that swaps needs seconds a token."""


class StreamedModel(ABC):
    """The part of a `lmstrix.ports.LoadedModel` that is the same for all engines.

    `context` is what the engine reports, in tokens. One request at a time; others wait.
    """

    def __init__(self, model: ModelInfo, context: int) -> None:
        self._model = model
        self._context = context
        # A semaphore, not a lock: an abandoned stream may be closed by another task.
        self._turn = anyio.Semaphore(1)

    @property
    def model(self) -> ModelInfo:
        """The model that was loaded."""
        return self._model

    @property
    def effective_context(self) -> int:
        """The context length that the engine reports, in tokens."""
        return self._context

    async def complete(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        stop: Sequence[str] = (),
        on_progress: Callable[[PrefillProgress], None] | None = None,
    ) -> Reply:
        """Greedy reply to `prompt`; see `lmstrix.ports.LoadedModel.complete`.

        Raises `ContextOverflow` also if the prompt fits and `max_tokens` more would not.
        """
        return await whole_reply(self._generate(prompt, max_tokens, stop), on_progress)

    async def stream(
        self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[ReplyChunk | Reply, None]:
        """The same reply piece by piece; the last item is the whole `Reply`.

        Closing the generator early stops the engine.
        """
        async with aclosing(self._generate(prompt, max_tokens, stop)) as items:
            async for item in items:
                if not isinstance(item, PrefillProgress):
                    yield item

    @abstractmethod
    def _generate(self, prompt: Prompt, max_tokens: int, stop: Sequence[str]) -> Items:
        """One prediction; closing it stops the engine."""


async def whole_reply(
    items: Items, on_progress: Callable[[PrefillProgress], None] | None = None
) -> Reply:
    """The reply at the end of `items`, which are closed.

    More cached tokens than the prompt has are as good as unknown.
    """
    reply = None
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Reply):
                reply = item
            elif isinstance(item, PrefillProgress) and on_progress is not None:
                on_progress(item)
    if reply is None:
        raise EngineUnavailable("the engine gave no reply")
    if (reply.cached_tokens or 0) > reply.prompt_tokens:
        return attrs.evolve(reply, cached_tokens=None)
    return reply


def require_room(prompt_tokens: int, max_tokens: int, context_length: int) -> None:
    """Raise `ContextOverflow` if prompt and reply together exceed `context_length`."""
    if prompt_tokens + max_tokens > context_length:
        raise ContextOverflow(
            f"{prompt_tokens:,} prompt tokens and a reply of {max_tokens:,} "
            f"do not fit a context of {context_length:,}",
            prompt_tokens=prompt_tokens,
            context_length=context_length,
        )


class Generation(ABC):
    """One reply as it arrives: takes the engine's events and returns the facts in them.

    An engine that ignores how many tokens were asked for is given up as infrastructure trouble
    after a small multiple of them: in events, in text, and in the time since the first piece.

    Args:
        prompt_tokens: number of tokens sent; None if it is not known yet.
        max_tokens: number of tokens asked for.
        in_thought: whether the prompt ends in an open thought.
    """

    def __init__(self, *, prompt_tokens: int | None, max_tokens: int, in_thought: bool) -> None:
        self._prompt_tokens = prompt_tokens
        self._max_tokens = max_tokens
        self._splitter = ThoughtSplitter(inside=in_thought)
        self._pieces: list[ReplyChunk] = []
        self._ttft_s: float | None = None
        self._events_left = EVENTS_PER_TOKEN * max_tokens + SPARE_EVENTS
        self._prefill_left = SPARE_EVENTS + (prompt_tokens or 0)
        self._text_left = CHARACTERS_PER_TOKEN * max_tokens + SPARE_CHARACTERS
        self.reply: Reply | None = None
        """The whole reply, after the last event."""

    def feed(self, event: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        """The facts in one event; `elapsed_s` is the time since the request was sent.

        Raises `ContextOverflow`, `PromptTruncated`, `PredictionError` or an
        `InfrastructureError`.
        """
        facts = self._facts(event, elapsed_s)
        if self.reply is not None:
            return facts
        if any(isinstance(fact, PrefillProgress) for fact in facts) and self._prefill_left:
            self._prefill_left -= 1
        else:
            self._events_left -= 1
        if self._events_left < 0 or self._text_left < 0:
            raise EngineUnavailable(
                f"the engine did not end a reply of {self._max_tokens:,} tokens",
                hint="Restart the server: it ignores the number of tokens to predict.",
            )
        writing_s = 0.0 if self._ttft_s is None else elapsed_s - self._ttft_s
        if writing_s > WRITING_S + SECONDS_PER_TOKEN * self._max_tokens:
            raise EngineTimeout(
                f"the engine did not end a reply of {self._max_tokens:,} tokens "
                f"in {spoken_s(writing_s)}"
            )
        return facts

    @abstractmethod
    def _facts(self, event: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        """The facts in one event; the last one sets `reply`."""

    def end(self) -> list[ReplyChunk]:
        """The rest, when the events end; sets `reply` if that is how a reply ends."""
        return []

    def _said(self, chunks: Sequence[ReplyChunk]) -> list[PrefillProgress | ReplyChunk]:
        """`chunks`, kept for the reply."""
        self._pieces += chunks
        return [*chunks]

    def _thought(self, content: object, elapsed_s: float) -> list[ReplyChunk]:
        """Reasoning that the server sets apart itself."""
        if not (isinstance(content, str) and content):
            return []
        self._written(content, elapsed_s)
        return [ReplyChunk(text=content, is_reasoning=True)]

    def _answer(self, content: str, elapsed_s: float) -> list[ReplyChunk]:
        """Text in which reasoning may stand between tags."""
        if content:
            self._written(content, elapsed_s)
        return self._splitter.feed(content)

    def _written(self, content: str, elapsed_s: float) -> None:
        """Count text that the engine wrote, before it is kept."""
        if self._ttft_s is None:
            self._ttft_s = elapsed_s
        self._text_left -= len(content)

    def _text(self, *, reasoning: bool) -> str:
        return "".join(piece.text for piece in self._pieces if piece.is_reasoning is reasoning)

    def _require_whole_prompt(
        self, read: int, context_length: int | None = None, *, spare: float = 0.0
    ) -> None:
        """Raise `PromptTruncated` if the engine read fewer tokens than were sent, by more than the
        part `spare` of them.
        """
        sent = self._prompt_tokens
        if sent is not None and read < sent - int(spare * sent):
            raise PromptTruncated(
                f"the engine read {read} prompt tokens of {sent} that were sent: "
                "it shortened the prompt",
                read_tokens=read,
                sent_tokens=sent,
                context_length=context_length,
            )


async def replied(
    events: AsyncGenerator[tuple[Json, float], None], generation: Generation
) -> Items:
    """What `generation` takes from events and their times; the reply comes last."""
    async with aclosing(events):
        async for event, elapsed_s in events:
            for item in generation.feed(event, elapsed_s):
                yield item
            if generation.reply is not None:
                break
        else:
            for item in generation.end():
                yield item
    if generation.reply is None:
        raise ConnectionLost("the server ended the reply too early")
    yield generation.reply


def spoken_s(seconds: float) -> str:
    """A time for a message: ``0.5 s``, ``30 s``; never ``0 s``."""
    return f"{seconds:.0f} s" if seconds >= 10 else f"{max(seconds, 0.1):.2g} s"


class StallDeadline:
    """The longest time between two signs of progress, in seconds.

    It grows with the slowest step so far: a large prompt is read in ever slower steps.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def step(self, call: Callable[[float], Awaitable[T]]) -> T:
        """Await `call(deadline in seconds)`, and learn from the time that it took."""
        started = perf_counter()
        result = await call(self.seconds)
        self.seconds = max(self.seconds, SLOWER * (perf_counter() - started))
        return result


# Thoughts ---------------------------------------------------------------------------------------
# Chat templates make some models think first. A thought is closed before the answer's first words,
# and set apart from the answer in the reply.

_OPEN, _CLOSE = "<think>", "</think>"
_ENDS_OPEN = re.compile(r"<think>\s*$")
_HARMONY = "<|start|>assistant"
_HARMONY_ANSWER = "<|channel|>final<|message|>"


BEGIN = "\nBegin your answer with: "
"""Asks for the first words of an answer, if they cannot be given."""


def ends_in_thought(formatted: str) -> bool:
    """Whether a formatted prompt leaves the model in an open thought."""
    return _ENDS_OPEN.search(formatted) is not None


def with_answer_prefix(formatted: str, answer_prefix: str) -> str:
    """A formatted prompt followed by the first words of the answer, outside of any thought.

    An open thought is closed first, as an empty one. If the template leaves the channel open
    (gpt-oss), the answer's channel is chosen.
    """
    if not answer_prefix:
        return formatted
    if ends_in_thought(formatted):
        gap = "" if formatted.endswith("\n") else "\n"
        formatted = f"{formatted}{gap}\n{_CLOSE}\n\n"
    elif formatted.endswith(_HARMONY):
        formatted += _HARMONY_ANSWER
    return formatted + answer_prefix


def room_to_repeat(answer_prefix: str) -> int:
    """Tokens that a reply may need to say `answer_prefix` itself. Three letters are a token or
    less, also for a small vocabulary.
    """
    return -(-len(answer_prefix.encode()) // 3)


def chat_messages(system: str, user: str, answer_prefix: str = "") -> list[dict[str, str]]:
    """A chat of one question; the beginning of its answer is a last message of the assistant."""
    said = (("system", system), ("user", user), ("assistant", answer_prefix))
    return [{"role": role, "content": text} for role, text in said if text or role == "user"]


class ThoughtSplitter:
    """Splits a reply that arrives in pieces into reasoning and answer.

    A thought stands at the beginning, between ``<think>`` and ``</think>``; with `inside` the
    opening tag was already in the prompt, and with `plain` everything is the answer. Text that may
    begin a tag is held back. White space after a tag belongs to neither part.
    """

    def __init__(self, *, inside: bool = False, plain: bool = False) -> None:
        self._held = ""
        self._state = "answer" if plain else "opened" if inside else "start"

    def feed(self, text: str) -> list[ReplyChunk]:
        """The pieces that are certain now."""
        self._held += text
        chunks: list[ReplyChunk] = []
        before = None
        while before != (self._state, self._held):
            before = (self._state, self._held)
            chunks += self._step()
        return chunks

    def finish(self) -> list[ReplyChunk]:
        """The rest, when the reply ends."""
        rest, self._held = self._held, ""
        return _chunk(rest, is_reasoning=self._state == "thought")

    def _step(self) -> list[ReplyChunk]:
        if self._state == "start":
            return self._at_start()
        if self._state == "thought":
            return self._in_thought()
        if self._state in ("opened", "closed"):
            self._held = self._held.lstrip()
            if self._held:
                self._state = "thought" if self._state == "opened" else "answer"
            return []
        rest, self._held = self._held, ""
        return _chunk(rest, is_reasoning=False)

    def _at_start(self) -> list[ReplyChunk]:
        beginning = self._held.lstrip()
        if beginning.startswith(_OPEN):
            self._state, self._held = "opened", beginning[len(_OPEN) :]
        elif beginning and not _OPEN.startswith(beginning):
            self._state = "answer"
        return []

    def _in_thought(self) -> list[ReplyChunk]:
        thought, tag, rest = self._held.partition(_CLOSE)
        if tag:
            self._state, self._held = "closed", rest
            return _chunk(thought, is_reasoning=True)
        keep = max((n for n in range(len(_CLOSE)) if thought.endswith(_CLOSE[:n])), default=0)
        self._held = thought[len(thought) - keep :]
        return _chunk(thought[: len(thought) - keep], is_reasoning=True)


def _chunk(text: str, *, is_reasoning: bool) -> list[ReplyChunk]:
    return [ReplyChunk(text=text, is_reasoning=is_reasoning)] if text else []
