"""Which question is asked at which length: head, middle, tail and all in between, in turn."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.models import Prompt, Question
from lmstrix.ports import LoadedModel
from lmstrix.validators.haystack import Cut, Haystack, HaystackSpec, Placed, asked_of
from lmstrix.validators.haystack.depths import nearest
from lmstrix.validators.haystack.needles import Needle, deck, fresh_value
from lmstrix.validators.haystack.planting import spare_needles

__all__ = ["ANSWER_TOKENS", "PHRASINGS", "RecallQuestions"]

ANSWER_TOKENS = 16
"""Reserved for the reply: the longest value takes 8 tokens where each digit is one."""

_TAIL = 1.0

MOST_TIMES = 2
"""Turns of one needle in a round, where there are others: a tenth of the answers."""

DEPTHS = (
    *(0.06, 0.50, _TAIL, 0.27, 0.76, 0.42, 0.14, 0.58, 0.33, 0.90),
    *(0.03, 0.54, _TAIL, 0.20, 0.69, 0.46, 0.09, 0.63, 0.38, 0.83),
)
"""Where one round of questions asks, in turn; the needle nearest to each is asked for.

The pass rate is to fall as the share of the window that a model still knows: below 85 % once
about 15 % of it are lost, from the head on or around the middle. Those are the ways that windows
are lost, so both are asked a little more densely than the rest: four of twenty stand in the
first .14, and four around the middle within .12. The first four go to the head, the middle, the
tail and in between, the first ten sample the window as all twenty do. Simulated windows of
2k to 14k tokens, four documents each, are found at 1.11 to 1.17 of their size where the head is
lost, and at 1.02 to 1.21 where the middle is.
"""

PHRASINGS = (
    "Now repeat one of the facts from the text above.",
    "Complete the sentence with the fact from the text.",
    "Say again what the text says.",
    "Quote a fact from the text word by word.",
    "Finish the sentence just as the text does.",
)
"""Ways of asking; they make further trials on one needle a little less alike.

None names the fact: the answer prefix does. So further questions at one length re-read the
prefix alone, 9 tokens instead of 27 with a question of its own for each fact, and the model is
not distracted by a second telling of it. (SmolLM2-135M at 5632, three documents: 28 of 29 facts
against 18 of 29.)
"""

_LONGEST_PHRASING = max(PHRASINGS, key=len)
_STOPS = (". ", "\n")


@attrs.frozen(kw_only=True)
class _Layout:
    """What all questions at one length share."""

    cut: Cut
    round: tuple[tuple[Placed[Needle] | None, int], ...]
    """What is asked for in turn, and how often it was asked for before; None is a tail fact."""


class RecallQuestions:
    """Questions on one master document, for one loaded model.

    The tail is asked for by a fresh fact in the last sentence before the question: there,
    where nothing is cached anyway, it costs only its own tokens, and a model that misses
    even that one has collapsed rather than forgotten.
    """

    def __init__(self, loaded: LoadedModel, seed: int, spec: HaystackSpec) -> None:
        self._seed = seed
        self._spare = spare_needles(seed)
        needles = deck(seed)
        self._taken = {needle.value for needle in needles}
        self._haystack = Haystack(
            loaded,
            seed,
            spec,
            frames=[_Longest(needle) for needle in needles],
            reply_tokens=ANSWER_TOKENS,
        )
        self._layouts: dict[int, _Layout] = {}

    async def question(self, length_tokens: int, index: int) -> Question:
        """See `lmstrix.ports.QuestionSource`."""
        layout = await self._layout(length_tokens)
        turn, at = divmod(index, len(layout.round))
        placed, before = layout.round[at]
        asked = before + turn * _times(placed, layout.round)
        if placed is None:
            tail = self._tail_needle(length_tokens, index)
            placed = Placed(thing=tail, position_tokens=layout.cut.tokens)
            return _question(layout.cut, length_tokens, placed, asked, closing=tail.sentence)
        return _question(layout.cut, length_tokens, placed, asked)

    async def at_depth(self, length_tokens: int, depth: float, turn: int = 0) -> Question:
        """The question about the needle nearest to `depth`, in other words for each `turn`."""
        cut = (await self._layout(length_tokens)).cut
        placed = nearest(cut.placed(Needle), depth * length_tokens, 0)
        if placed is None:
            raise ConfigurationError(f"{length_tokens} tokens hold no needle")
        return _question(cut, length_tokens, placed, turn)

    def _tail_needle(self, length_tokens: int, index: int) -> Needle:
        fact = self._spare[index % len(self._spare)].fact
        rng = Random(f"tail {self._seed} {length_tokens} {index}")  # noqa: S311 - reproducible
        return Needle(fact=fact, value=fresh_value(fact, rng, self._taken))

    async def _layout(self, length_tokens: int) -> _Layout:
        known = self._layouts.get(length_tokens)
        if known is None:
            cut = await self._haystack.cut(length_tokens)
            known = _Layout(cut=cut, round=_round(cut.placed(Needle), length_tokens))
            self._layouts[length_tokens] = known
        return known


def _round(
    needles: tuple[Placed[Needle], ...], length_tokens: int
) -> tuple[tuple[Placed[Needle] | None, int], ...]:
    """For each of `DEPTHS` the nearest needle, and how often it came before in this round.

    So a needle weighs as much as the part of the window around it, and a tenth of the answers
    at most, but for short texts. One that a model happens to dislike does not decide a length,
    a region that it has lost does.
    """
    chosen: list[tuple[Placed[Needle] | None, int]] = []
    for depth in DEPTHS:
        there = None
        if depth < _TAIL and needles:
            target = depth * length_tokens
            by_distance = sorted(needles, key=lambda p: abs(p.position_tokens - target))
            fresh = (p for p in by_distance if _times(p, chosen) < MOST_TIMES)
            there = next(fresh, by_distance[0])
        chosen.append((there, _times(there, chosen)))
    return tuple(chosen)


def _times(
    placed: Placed[Needle] | None, chosen: Sequence[tuple[Placed[Needle] | None, int]]
) -> int:
    return sum(placed is other for other, _ in chosen)


def _question(
    cut: Cut, length_tokens: int, placed: Placed[Needle], asked: int, *, closing: str = ""
) -> Question:
    """Asks for one needle, for the `asked`-th time."""
    needle, phrasing = placed.thing, PHRASINGS[asked % len(PHRASINGS)]
    return Question(
        prompt=_prompt(cut.text, closing, needle, phrasing),
        expected=needle.value,
        kind=needle.fact.kind,
        depth=min(1.0, max(0.0, placed.position_tokens / length_tokens)),
        max_tokens=ANSWER_TOKENS,
        stop=_STOPS,
    )


def _prompt(document: str, closing: str, needle: Needle, phrasing: str) -> Prompt:
    return asked_of(document, phrasing, closing=closing, answer_prefix=needle.fact.stem)


@attrs.frozen
class _Longest:
    """The longest prompt that asks for `needle`."""

    needle: Needle

    def __call__(self, document: str) -> Prompt:
        return _prompt(document, self.needle.sentence, self.needle, _LONGEST_PHRASING)
