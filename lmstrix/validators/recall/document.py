"""The master document: one text per seed, of which every prompt is a beginning.

It is sized with the model's own tokenizer: text is made in blocks, and each block is
tokenised once. A cut costs the tokens of part of one block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import accumulate

import attrs

from lmstrix.validators.recall.grammar import filler_sentences
from lmstrix.validators.recall.needles import Needle

__all__ = ["Cut", "MasterDocument", "PlacedNeedle"]

CountTokens = Callable[[str], Awaitable[int]]

BLOCK_SENTENCES = 24
"""Sentences tokenised together: some 400 tokens, so that boundary effects stay below 1 %."""

FIRST_NEEDLE_TOKENS = 48
"""Where the first needle stands: behind the first lines, which ride on the attention sink."""

SPACING = 1.6
"""Each needle stands this many times as far in as the one before, so that every beginning of
the document has needles at its head, around its middle and in between, and their number grows
with the logarithm of its length: 11 at 8k tokens, 17 at 128k."""


@attrs.frozen(kw_only=True)
class PlacedNeedle:
    """A needle and where it stands, in tokens from the start of the document."""

    needle: Needle
    position_tokens: int


@attrs.frozen(kw_only=True)
class Cut:
    """A beginning of the document, ended at a sentence boundary."""

    text: str
    tokens: int
    needles: tuple[PlacedNeedle, ...]
    """Those that stand in `text`, from the first to the last."""


@attrs.define(kw_only=True)
class _Block:
    sentences: list[str]
    tokens: int
    start_tokens: int


class MasterDocument:
    """Grows as far as it is asked for, and never changes what it has."""

    def __init__(self, seed: int, needles: tuple[Needle, ...], count_tokens: CountTokens) -> None:
        self._filler = filler_sentences(seed)
        self._waiting = list(needles)
        self._count = count_tokens
        self._blocks: list[_Block] = []
        self._placed: list[tuple[PlacedNeedle, int, int]] = []  # needle, block, sentence
        self._next_needle = FIRST_NEEDLE_TOKENS
        self._tokens_per_char = 0.25  # a guess for the first block only

    @property
    def tokens(self) -> int:
        """Tokens made so far."""
        last = self._blocks[-1] if self._blocks else None
        return last.start_tokens + last.tokens if last else 0

    async def cut(self, budget_tokens: int) -> Cut:
        """The longest beginning of at most `budget_tokens` that ends with a sentence."""
        while self.tokens <= budget_tokens:
            await self._grow()
        index = max(
            (i for i, b in enumerate(self._blocks) if b.start_tokens <= budget_tokens), default=0
        )
        block = self._blocks[index]
        count, tokens = await self._fit(block, budget_tokens - block.start_tokens)
        sentences = [s for b in self._blocks[:index] for s in b.sentences]
        sentences += block.sentences[:count]
        return Cut(
            text=" ".join(sentences),
            tokens=block.start_tokens + tokens,
            needles=tuple(
                placed
                for placed, in_block, at in self._placed
                if in_block < index or (in_block == index and at < count)
            ),
        )

    async def _fit(self, block: _Block, room_tokens: int) -> tuple[int, int]:
        """How many sentences of `block` fit in `room_tokens`, and their tokens."""
        low, low_tokens, high = 0, 0, len(block.sentences)
        while low < high:
            middle = (low + high + 1) // 2
            tokens = await self._count(" " + " ".join(block.sentences[:middle]))
            if tokens <= room_tokens:
                low, low_tokens = middle, tokens
            else:
                high = middle - 1
        return low, low_tokens

    async def _grow(self) -> None:
        """Make one more block. Needles are placed by estimate: only their order must hold."""
        sentences: list[str] = []
        start = self.tokens
        position = float(start)
        for _ in range(BLOCK_SENTENCES):
            text, needle = self._next_sentence(position)
            if needle is not None:
                placed = PlacedNeedle(needle=needle, position_tokens=round(position))
                self._placed.append((placed, len(self._blocks), len(sentences)))
            sentences.append(text)
            position += (len(text) + 1) * self._tokens_per_char
        text = " " + " ".join(sentences)
        tokens = await self._count(text)
        self._tokens_per_char = tokens / len(text)
        self._blocks.append(_Block(sentences=sentences, tokens=tokens, start_tokens=start))
        self._settle_positions()

    def _next_sentence(self, position: float) -> tuple[str, Needle | None]:
        if self._waiting and position >= self._next_needle:
            needle = self._waiting.pop(0)
            self._next_needle = round(max(self._next_needle, position) * SPACING)
            return needle.sentence, needle
        return next(self._filler), None

    def _settle_positions(self) -> None:
        """Replace the estimates within the newest block by shares of its counted tokens."""
        index = len(self._blocks) - 1
        block = self._blocks[index]
        ends = list(accumulate(len(s) + 1 for s in block.sentences))
        for i, (placed, in_block, at) in enumerate(self._placed):
            if in_block == index:
                begin = ends[at] - len(block.sentences[at]) - 1
                position = block.start_tokens + round(block.tokens * begin / ends[-1])
                moved = attrs.evolve(placed, position_tokens=position)
                self._placed[i] = (moved, in_block, at)
