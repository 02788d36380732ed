"""Which question is asked at which length: head, middle, tail and spread, in turn."""

from __future__ import annotations

from itertools import zip_longest
from random import Random

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.models import Prompt, Question
from lmstrix.ports import LoadedModel
from lmstrix.validators.recall.document import Cut, MasterDocument, PlacedNeedle
from lmstrix.validators.recall.needles import PHRASINGS, Needle, deck

__all__ = ["ANSWER_TOKENS", "HEAD_DEPTH", "RecallQuestions"]

INTRODUCTION = "Read the text and remember the facts in it.\n\n"

ANSWER_TOKENS = 16
"""Reserved for the reply: the longest value takes 8 tokens where each digit is one."""

HEAD_DEPTH = 0.1
"""The head is the first tenth, not the first line."""

MIDDLE_DEPTHS = (0.25, 0.75)

HEAD_NEEDLES = 3
"""The head holds half of all needles; more than these would leave the rest too little say."""

TAIL_FACTS = 2
"""Tail questions in each round."""

SPARE_FACTS = 3
"""Facts kept out of the document, told only in the last sentence before a question."""

MARGIN_TOKENS = 4
"""Values differ by a few tokens from the ones that the overhead was counted with."""

_STOPS = (". ", "\n")
_SHORTEST = 128

MAX_RAISES = 2
"""How often a cut is lengthened when the block counts added up to too much."""


class _Nothing:
    """Fills a region's turn where it has no needle left."""


_NOTHING = _Nothing()


@attrs.frozen(kw_only=True)
class _Layout:
    """What all questions at one length share."""

    cut: Cut
    round: tuple[PlacedNeedle | None, ...]
    """What is asked for in turn, before anything is asked for again; None is a tail fact."""


class RecallQuestions:
    """Questions on one master document, for one loaded model.

    The tail is asked for by a fresh fact in the last sentence before the question: there,
    where nothing is cached anyway, it costs only its own tokens, and a model that misses
    even that one has collapsed rather than forgotten.
    """

    def __init__(self, loaded: LoadedModel, seed: int) -> None:
        needles = deck(seed)
        self._seed = seed
        self._loaded = loaded
        self._spare = needles[:SPARE_FACTS]
        self._all = needles
        self._document = MasterDocument(seed, needles[SPARE_FACTS:], loaded.count_tokens)
        self._layouts: dict[int, _Layout] = {}
        self._overhead: int | None = None
        self._longest = 0

    async def question(self, length_tokens: int, index: int) -> Question:
        """See `lmstrix.ports.QuestionSource`."""
        layout = await self._layout(length_tokens)
        needle, closing, position, phrasing = self._choose(layout, length_tokens, index)
        fact = needle.fact
        return Question(
            prompt=_prompt(layout.cut.text, closing, needle, phrasing),
            expected=needle.value,
            kind=fact.kind,
            depth=min(1.0, max(0.0, position / length_tokens)),
            max_tokens=ANSWER_TOKENS,
            stop=_STOPS,
        )

    def _choose(
        self, layout: _Layout, length_tokens: int, index: int
    ) -> tuple[Needle, str, int, int]:
        """The needle of question `index`: itself, its closing sentence, position, phrasing."""
        turn, at = divmod(index, len(layout.round))
        placed = layout.round[at]
        if placed is not None:
            return placed.needle, "", placed.position_tokens, turn
        fact = self._spare[index % len(self._spare)].fact
        rng = Random(f"tail {self._seed} {length_tokens} {index}")  # noqa: S311 - reproducible
        needle = Needle(fact=fact, value=fact.draw(rng))
        return needle, needle.sentence, layout.cut.tokens, turn

    async def _layout(self, length_tokens: int) -> _Layout:
        known = self._layouts.get(length_tokens)
        if known is None:
            known = self._layouts[length_tokens] = await self._lay_out(length_tokens)
        return known

    async def _lay_out(self, length_tokens: int) -> _Layout:
        """Cut the document so that the longest question fills `length_tokens`.

        The sum of block counts may drift from the count of the whole, so the whole is counted
        once per length, and the cut corrected by what it was off.
        """
        if length_tokens < _SHORTEST:
            raise ConfigurationError(f"a recall question needs {_SHORTEST} tokens or more")
        room = length_tokens - ANSWER_TOKENS - MARGIN_TOKENS
        budget = room - await self._longest_overhead()
        raises_left = MAX_RAISES
        while True:
            cut = await self._document.cut(budget)
            tokens = await self._loaded.count_prompt_tokens(self._longest_prompt(cut.text))
            excess = tokens - room
            drift = -excess - (budget - cut.tokens)  # room that block counts hid from us
            if excess > 0:
                budget, raises_left = cut.tokens - excess, 0
            elif drift > MARGIN_TOKENS and raises_left:
                budget, raises_left = budget + drift, raises_left - 1
            else:
                return _Layout(cut=cut, round=_round(cut.needles, length_tokens))

    async def _longest_overhead(self) -> int:
        """Tokens of everything but the document, in the longest question."""
        if self._overhead is None:
            counted: list[tuple[int, int]] = []
            for i, needle in enumerate(self._all):
                tokens = await self._loaded.count_prompt_tokens(_longest_prompt("", needle))
                counted.append((tokens, i))
            self._overhead, self._longest = max(counted)
        return self._overhead

    def _longest_prompt(self, document: str) -> Prompt:
        return _longest_prompt(document, self._all[self._longest])


def _round(
    needles: tuple[PlacedNeedle, ...], length_tokens: int
) -> tuple[PlacedNeedle | None, ...]:
    """One round of questions: head, middle, tail and spread in turn, each needle once.

    So every needle weighs the same, some tenth of the answers: one that a model happens to
    dislike does not decide a length, a region that it has lost does.
    """
    head = [p for p in needles if p.position_tokens <= HEAD_DEPTH * length_tokens]
    middle = [p for p in needles if _is_middle(p.position_tokens / length_tokens)]
    spread = [p for p in needles if p not in head and p not in middle]
    if len(head) > HEAD_NEEDLES:
        head = [head[0], head[-1], head[len(head) // 2]]
    tail = [None] * TAIL_FACTS
    turns = zip_longest(head, middle, tail, spread, fillvalue=_NOTHING)
    return tuple(p for turn in turns for p in turn if not isinstance(p, _Nothing))


def _is_middle(depth: float) -> bool:
    return MIDDLE_DEPTHS[0] < depth <= MIDDLE_DEPTHS[1]


def _longest_prompt(document: str, needle: Needle) -> Prompt:
    phrasing = max(range(len(PHRASINGS)), key=lambda i: len(PHRASINGS[i]))
    return _prompt(document, needle.sentence, needle, phrasing)


def _prompt(document: str, closing: str, needle: Needle, phrasing: int) -> Prompt:
    body = f"{document} {closing}" if closing else document
    asked = PHRASINGS[phrasing % len(PHRASINGS)]
    return Prompt(user=f"{INTRODUCTION}{body}\n\n{asked}", answer_prefix=needle.fact.stem)
