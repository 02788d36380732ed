"""Chat templates that make a model think first: closing thoughts, and telling them apart."""

from __future__ import annotations

import re

from lmstrix.models import ReplyChunk

__all__ = ["ThoughtSplitter", "ends_in_thought", "with_answer_prefix"]

_OPEN, _CLOSE = "<think>", "</think>"
_ENDS_OPEN = re.compile(r"<think>\s*$")
_HARMONY = "<|start|>assistant"
_HARMONY_ANSWER = "<|channel|>final<|message|>"


def ends_in_thought(formatted: str) -> bool:
    """Whether a formatted prompt leaves the model within an open thought."""
    return _ENDS_OPEN.search(formatted) is not None


def with_answer_prefix(formatted: str, answer_prefix: str) -> str:
    """A formatted prompt and the first words of the answer, behind any thought.

    An open thought is closed first, as an empty one. Where the template leaves the channel
    open (gpt-oss), the answer's channel is chosen.
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
    """Parts a reply that arrives in pieces into reasoning and answer.

    A thought stands at the beginning, between ``<think>`` and ``</think>``; with `inside` the
    opening tag was already in the prompt. What may be the beginning of a tag is held back.
    White space behind a tag belongs to neither part.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self._held = ""
        self._state = "opened" if inside else "start"

    def feed(self, text: str) -> list[ReplyChunk]:
        """What can be told apart now."""
        self._held += text
        chunks: list[ReplyChunk] = []
        before = None
        while before != (self._state, self._held):
            before = (self._state, self._held)
            chunks += self._step()
        return chunks

    def finish(self) -> list[ReplyChunk]:
        """What is left when the reply ends."""
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
