"""Needles: facts that cannot be guessed, unlike one another in subject and kind of value.

Many needles of one kind would measure how well a model tells them apart, as much as how far
it reads. On SmolLM2-135M at 5k, of three or four codes in one document two or three were missed,
mostly given for one another. So no two stems end alike: each says a unit or an object of its own
just before the value, and there are two codes, of different shapes. And every stem says what
kind of value follows ("under the code", "in pounds is"): one that a model would rather finish
with a word of its own ("was invented by Professor") measures that habit, not its memory.
All numbers have five digits: among numbers of four to six SmolLM2-135M at 5k stopped a digit too
early or went on with two more (8311 for 83118, 299507 for 2995), 16 of 20 right against 19.

A few facts have a near one, a *distractor*: a sentence that tells another value for a subject
almost alike. It stands in the document and is never asked for.

Where needles stand and which of them a question asks for are pure functions of numbers, which a
simulation uses without any text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import count, takewhile
from random import Random

import attrs

from lmstrix.models import Region
from lmstrix.validators.facts import CODES, NEAR, NUMBERS, WORDS

__all__ = [
    "CLOSING",
    "END_TOKENS",
    "REGION_ORDER",
    "SHARES",
    "SPARE_FACTS",
    "Distractor",
    "Fact",
    "Needle",
    "beginning_of",
    "choices",
    "chosen",
    "deck",
    "distractors",
    "document_number",
    "fresh_value",
    "needle_positions",
    "placed_needles",
    "region_of_turn",
    "spare_needles",
    "standing",
]

_CONSONANTS = "BCDFGHKLMNPRSTVWXZ"
_VALUE_WORDS = tuple(
    "apricot|cinnamon|tangerine|papaya|coconut|avocado|mango|cranberry|raspberry|pineapple|"
    "pomegranate|blueberry|nectarine|grapefruit|banana|watermelon|lychee|mulberry|kiwi|"
    "persimmon|guava|blackcurrant|elderberry|gooseberry".split("|")
)
"""Fruits: words of an own kind, none of which stands in the haystack's grammar."""

Draw = Callable[[Random], str]


def _number(rng: Random) -> str:
    return str(rng.randrange(10_000, 100_000))


def _letters_first(rng: Random) -> str:
    return f"{rng.choice(_CONSONANTS)}{rng.choice(_CONSONANTS)}-{rng.randrange(100, 1000)}"


def _digits_first(rng: Random) -> str:
    return f"{rng.randrange(10, 100)}-{rng.choice(_CONSONANTS)}"


def _word(rng: Random) -> str:
    return rng.choice(_VALUE_WORDS)


@attrs.frozen(kw_only=True)
class Fact:
    """A kind of needle: how it is told, and how it is asked for."""

    kind: str
    """``number``, ``word`` or ``code``."""
    stem: str
    """The sentence up to its value; also the first words of the answer."""
    draw: Draw


@attrs.frozen(kw_only=True)
class Needle:
    """One fact with its value."""

    fact: Fact
    value: str

    @property
    def sentence(self) -> str:
        """What stands in the document."""
        return f"{self.fact.stem} {self.value}."


@attrs.frozen(kw_only=True)
class Distractor:
    """A sentence that is near to a needle's, and tells another value."""

    near: Needle
    sentence: str


_FACTS = (
    *(Fact(kind="number", stem=stem, draw=_number) for stem in NUMBERS),
    *(Fact(kind="word", stem=stem, draw=_word) for stem in WORDS),
    *(
        Fact(kind="code", stem=stem, draw=draw)
        for stem, draw in zip(CODES, (_letters_first, _digits_first), strict=True)
    ),
)


FEWEST_WORDS = 4


def beginning_of(stem: str) -> str:
    """The first words of `stem`, as many as tell it from all other facts."""
    words = stem.split()
    others = [other for other in _STEMS if other != stem]
    for number in range(FEWEST_WORDS, len(words)):
        begin = f"{' '.join(words[:number])} "
        if not any(other.startswith(begin) for other in others):
            return begin.rstrip()
    return stem


SPARE_FACTS = 8
"""Facts kept out of the document, told only in the last sentence before a question."""

PLACES = ("In the town of Aldport,", "In the valley of Merrow,", "On the isle of Tessing,")
"""Once all facts are told, they are told again of another place: 800 needles, enough for any
length (10M tokens hold 325)."""


def deck(seed: int) -> tuple[Needle, ...]:
    """All facts in an order of their own, each with a fresh value; the same for one `seed`.

    No value is drawn twice. Facts that have a near one come early, so that both are told in
    documents of a few thousand tokens.
    """
    rng = Random(f"needles {seed}")  # noqa: S311 - reproducible facts, not secrets
    order = [fact for fact in rng.sample(_FACTS, len(_FACTS)) if fact.stem not in NEAR]
    near = [fact for fact in rng.sample(_FACTS, len(_FACTS)) if fact.stem in NEAR]
    for turn, fact in enumerate(near):
        order.insert(SPARE_FACTS + 1 + NEAR_STEP * turn, fact)
    elsewhere = [_told_of(place, fact) for place in PLACES for fact in order]
    taken: set[str] = set()
    needles: list[Needle] = []
    for fact in [*order, *elsewhere]:
        value = fresh_value(fact, rng, taken)
        taken.add(value)
        needles.append(Needle(fact=fact, value=value))
    return tuple(needles)


NEAR_STEP = 4


def _told_of(place: str, fact: Fact) -> Fact:
    stem = f"{place} {fact.stem[0].lower()}{fact.stem[1:]}"
    return attrs.evolve(fact, stem=stem)


_STEMS = frozenset(
    [*NUMBERS, *WORDS, *CODES, *NEAR.values()]
    + [_told_of(place, fact).stem for place in PLACES for fact in _FACTS]
)


def placed_needles(seed: int) -> tuple[Needle, ...]:
    """The needles of the document, in their order."""
    return deck(seed)[SPARE_FACTS:]


def spare_needles(seed: int) -> tuple[Needle, ...]:
    """Facts of the same deck that do not stand in the document."""
    return deck(seed)[:SPARE_FACTS]


def fresh_value(fact: Fact, rng: Random, taken: set[str]) -> str:
    """A value for `fact` that is none of `taken`."""
    return next(value for _ in iter(int, 1) if (value := fact.draw(rng)) not in taken)


def distractors(needles: tuple[Needle, ...], seed: int) -> Iterator[Distractor]:
    """What is near to some of `needles`, in their order."""
    rng = Random(f"distractors {seed}")  # noqa: S311 - reproducible facts, not secrets
    taken = {needle.value for needle in needles}
    for needle in needles:
        stem = NEAR.get(needle.fact.stem)
        if stem is not None:
            value = fresh_value(needle.fact, rng, taken)
            taken.add(value)
            yield Distractor(near=needle, sentence=f"{stem} {value}.")


FIRST_TOKENS = 48
"""Position of the first needle. The very first lines are easy: attention rests on them."""

GAP_TOKENS, GAP_RATIO = 96, 1.028
"""Distance of two neighbours: 96 tokens, or 2.8 % of the position if that is more.

So from 4k tokens on every region holds at least 3 needles (the tail, the last 10 %, holds 3 or
4; late 10, middle 12 or more), and one document has 41 at 4k, 67 at 8k, 168 at 128k, 241 at 1M.
A lost segment is seen if it is longer than the distance there: 2.8 % of the window at its end.
The needles of a second document stand half-way between those of the first (`needle_positions`),
so a certificate sees segments half as long, a third and fourth document a quarter.
"""

DOCUMENTS = 1000
"""A measurement's documents have the seeds ``seed * 1000 + 1`` and up."""

END_TOKENS = 80
"""About as many tokens at the end of the window hold the request and the reply, not the text."""

CLOSING = None
"""The fact in the last sentence before the request, which is planted for one question only."""

REGION_ORDER = (Region.HEAD, Region.MIDDLE, Region.TAIL, Region.EARLY, Region.LATE)
"""The order in which regions take turns if the caller does not choose one."""

SHARES = (0.55, 0.05, 0.95, 0.25, 0.75, 0.45, 0.15, 0.85, 0.35, 0.65)
"""Ten depths within a region, as shares of its span; those far apart come first."""

TAIL_SHARES = (0.5, 1 / 14, CLOSING, 13 / 14, 3 / 14, CLOSING, 11 / 14, 5 / 14, CLOSING, 9 / 14)
"""The same for the tail: three of ten ask for the closing fact."""


def document_number(seed: int) -> int:
    """The number of the document within its measurement, from 0.

    The baseline's own document has the last seed and is laid out as the first one: a shifted
    one has no needle in the head at short length.
    """
    number = (seed - 1) % DOCUMENTS
    return 0 if number == DOCUMENTS - 1 else number


def needle_positions(seed: int, until_tokens: float) -> Iterator[float]:
    """Planned positions of the needles in the document of `seed`, in tokens, ascending.

    The grid is even up to about 3,400 tokens and geometric from there. Each document of a
    measurement shifts it by its own part of a gap (van der Corput: 0, 1/2, 1/4, 3/4, 1/8, ...).
    In the text a needle is the first sentence that begins at its planned position or later.
    """
    shift = _van_der_corput(document_number(seed))
    return takewhile(lambda at: at < until_tokens, (_grid(turn + shift) for turn in count()))


def standing(seed: int, length_tokens: int) -> list[float]:
    """Planned positions of the needles that a prompt at `length_tokens` holds."""
    return list(needle_positions(seed, length_tokens - END_TOKENS))


def chosen(
    positions: Sequence[float],
    length_tokens: int,
    region: Region,
    index: int,
    *,
    closing: bool = True,
) -> int | None:
    """The needle that question `index` about `region` asks for.

    Args:
        positions: where the document's needles stand, in tokens, ascending.
        length_tokens: the whole length, reply included.
        region: the region to ask about.
        index: the number of the question within the region, from 0.
        closing: whether the tail is also asked about with a closing fact.

    Returns:
        An index into `positions`, or `CLOSING`.
    """
    return choices(positions, length_tokens, region, index + 1, closing=closing)[index]


def choices(
    positions: Sequence[float],
    length_tokens: int,
    region: Region,
    questions: int,
    *,
    closing: bool = True,
) -> tuple[int | None, ...]:
    """The needles that the first `questions` questions about `region` ask for: see `chosen`.

    Each is the nearest to its depth among those asked least often so far. A region without a
    needle asks for the nearest one outside; the tail asks for the closing fact instead.
    """
    begin, end = (share * length_tokens for share in region.span)
    inside = range(bisect_left(positions, begin), bisect_left(positions, end))
    closes = closing and region is Region.TAIL
    shares = TAIL_SHARES if closes else SHARES
    if not inside and not closes:
        return (_nearest(positions, (begin + end) / 2),) * questions
    found: list[int | None] = []
    fresh = set(inside)
    for question in range(questions):
        share = shares[question % len(shares)]
        if share is None or not inside:
            found.append(CLOSING)
            continue
        fresh = fresh or set(inside)
        target = begin + share * (end - begin)
        nearest = min(fresh, key=lambda at: (abs(positions[at] - target), at))
        fresh.discard(nearest)
        found.append(nearest)
    return tuple(found)


def region_of_turn(index: int) -> tuple[Region, int]:
    """The region and the number within it, for question `index` of a caller who names none."""
    turn, at = divmod(index, len(REGION_ORDER))
    return REGION_ORDER[at], turn


def _nearest(positions: Sequence[float], target: float) -> int | None:
    every = range(len(positions))
    return min(every, key=lambda at: abs(positions[at] - target)) if positions else CLOSING


def _grid(turn: float) -> float:
    """The position at place `turn` of the grid, whole or not."""
    bend = GAP_TOKENS / (GAP_RATIO - 1)
    even = FIRST_TOKENS + GAP_TOKENS * turn
    return even if even <= bend else bend * GAP_RATIO ** ((even - bend) / GAP_TOKENS)


def _van_der_corput(number: int) -> float:
    """Number `number` of the sequence 0, 1/2, 1/4, 3/4, 1/8, 5/8, ..."""
    share, part = 0.0, 0.5
    while number:
        number, bit = divmod(number, 2)
        share += bit * part
        part /= 2
    return share
