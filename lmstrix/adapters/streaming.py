"""What loaded models of all adapters share: replies as streams, and the thoughts in them."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from time import perf_counter
from typing import TypeVar

from lmstrix.errors import ContextOverflow, EngineUnavailable
from lmstrix.models import PrefillProgress, Reply, ReplyChunk

__all__ = [
    "Items",
    "StallDeadline",
    "ThoughtSplitter",
    "ends_in_thought",
    "require_room",
    "visible_items",
    "whole_reply",
    "with_answer_prefix",
]

T = TypeVar("T")

Items = AsyncGenerator[PrefillProgress | ReplyChunk | Reply, None]
"""One prediction as it happens; the last item is the whole `Reply`."""

SLOWER = 10
"""A step may take this many times as long as the slowest one so far."""


async def whole_reply(
    items: Items, on_progress: Callable[[PrefillProgress], None] | None = None
) -> Reply:
    """The reply at the end of `items`, which are closed; `on_progress` hears of the prefill."""
    reply = None
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Reply):
                reply = item
            elif isinstance(item, PrefillProgress) and on_progress is not None:
                on_progress(item)
    if reply is None:
        raise EngineUnavailable("the engine gave no reply")
    return reply


async def visible_items(items: Items) -> AsyncGenerator[ReplyChunk | Reply, None]:
    """`items` without the progress of the prefill; closing it closes them."""
    async with aclosing(items):
        async for item in items:
            if not isinstance(item, PrefillProgress):
                yield item


def require_room(prompt_tokens: int, max_tokens: int, context_length: int) -> None:
    """Raise `ContextOverflow` if prompt and reply together exceed `context_length`."""
    if prompt_tokens + max_tokens > context_length:
        raise ContextOverflow(
            f"{prompt_tokens} prompt tokens and a reply of {max_tokens} "
            f"do not fit a context of {context_length}",
            prompt_tokens=prompt_tokens,
            context_length=context_length,
        )


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


class ThoughtSplitter:
    """Splits a reply that arrives in pieces into reasoning and answer.

    A thought stands at the beginning, between ``<think>`` and ``</think>``; with `inside` the
    opening tag was already in the prompt. Text that may begin a tag is held back. White space
    after a tag belongs to neither part.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self._held = ""
        self._state = "opened" if inside else "start"

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
