"""The master document: one text per seed and spec, of which every prompt is a beginning.

It is sized with the model's own tokenizer: text is made in blocks, and each block is
tokenised once. A cut costs the tokens of part of one block.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from itertools import accumulate
from typing import Generic, TypeVar

import attrs

from lmstrix.validators.haystack.grammar import filler_sentences
from lmstrix.validators.haystack.planting import HaystackSpec, Planted, rows

__all__ = ["Cut", "MasterDocument", "Placed", "Sentence"]

CountTokens = Callable[[str], Awaitable[int]]
Thing = TypeVar("Thing")

BLOCK_SENTENCES = 24
"""Sentences tokenised together: some 400 tokens, so that boundary effects stay below 1 %."""


@attrs.frozen(kw_only=True)
class Sentence:
    """One sentence, where it stands in tokens from the start, and what it tells."""

    text: str
    position_tokens: int
    planted: Planted | None


@attrs.frozen(kw_only=True)
class Placed(Generic[Thing]):
    """Something that is planted in the document, and where it stands."""

    thing: Thing
    position_tokens: int


@attrs.frozen(kw_only=True)
class Cut:
    """A beginning of the document, ended at a sentence boundary."""

    text: str
    tokens: int
    sentences: tuple[Sentence, ...]

    def placed(self, kind: type[Thing]) -> tuple[Placed[Thing], ...]:
        """All things of one kind that stand in `text`, from the first to the last."""
        return tuple(
            Placed(thing=s.planted, position_tokens=s.position_tokens)
            for s in self.sentences
            if isinstance(s.planted, kind)
        )


@attrs.frozen(kw_only=True)
class _Block:
    sentences: tuple[Sentence, ...]
    tokens: int
    start_tokens: int


class MasterDocument:
    """Grows as far as it is asked for, and never changes what it has."""

    def __init__(self, seed: int, spec: HaystackSpec, count_tokens: CountTokens) -> None:
        self._filler = filler_sentences(seed)
        self._rows = rows(seed, spec)
        self._count = count_tokens
        self._blocks: list[_Block] = []
        self._tokens_per_char = 0.25  # a guess for the first block only

    @property
    def tokens(self) -> int:
        """Tokens made so far."""
        last = self._blocks[-1] if self._blocks else None
        return last.start_tokens + last.tokens if last else 0

    async def cut(self, budget_tokens: int) -> Cut:
        """The longest beginning of at most `budget_tokens` that ends with a sentence; an empty one
        where there is no room at all.
        """
        budget_tokens = max(0, budget_tokens)
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
            text=" ".join(s.text for s in sentences),
            tokens=block.start_tokens + tokens,
            sentences=tuple(sentences),
        )

    async def _fit(self, block: _Block, room_tokens: int) -> tuple[int, int]:
        """How many sentences of `block` fit in `room_tokens`, and their tokens."""
        low, low_tokens, high = 0, 0, len(block.sentences)
        while low < high:
            middle = (low + high + 1) // 2
            tokens = await self._count(_joined(s.text for s in block.sentences[:middle]))
            if tokens <= room_tokens:
                low, low_tokens = middle, tokens
            else:
                high = middle - 1
        return low, low_tokens

    async def _grow(self) -> None:
        """Make one more block. Things are planted by estimate: only their order must hold."""
        made: list[tuple[str, Planted | None]] = []
        start = self.tokens
        position = float(start)
        for _ in range(BLOCK_SENTENCES):
            text, planted = self._next_sentence(position)
            made.append((text, planted))
            position += (len(text) + 1) * self._tokens_per_char
        text = _joined(text for text, _ in made)
        tokens = await self._count(text)
        self._tokens_per_char = tokens / len(text)
        begins = accumulate((len(text) + 1 for text, _ in made), initial=0)
        sentences = tuple(
            Sentence(
                text=sentence,
                position_tokens=start + round(tokens * begin / len(text)),
                planted=planted,
            )
            for (sentence, planted), begin in zip(made, begins, strict=False)
        )
        self._blocks.append(_Block(sentences=sentences, tokens=tokens, start_tokens=start))

    def _next_sentence(self, position: float) -> tuple[str, Planted | None]:
        for row in self._rows:
            planted = row.due(position)
            if planted is not None:
                return planted.sentence, planted
        return next(self._filler), None


def _joined(sentences: Iterable[str]) -> str:
    """Sentences as they follow others: with a blank before each."""
    return "".join(f" {sentence}" for sentence in sentences)
