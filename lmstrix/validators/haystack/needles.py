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
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import attrs

from lmstrix.validators.haystack.facts import CODES, NEAR, NUMBERS, WORDS

__all__ = ["Distractor", "Fact", "Needle", "deck", "distractors", "fresh_value"]

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


def deck(seed: int) -> tuple[Needle, ...]:
    """All facts in an order of their own, each with a fresh value; the same for one `seed`.

    No value is drawn twice.
    """
    rng = Random(f"needles {seed}")  # noqa: S311 - reproducible facts, not secrets
    taken: set[str] = set()
    needles: list[Needle] = []
    for fact in rng.sample(_FACTS, len(_FACTS)):
        value = fresh_value(fact, rng, taken)
        taken.add(value)
        needles.append(Needle(fact=fact, value=value))
    return tuple(needles)


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
