"""Needles: facts that cannot be guessed, unlike one another in subject and kind of value.

Many needles of one kind would measure how well a model tells them apart, as much as how far
it reads. On SmolLM2-135M at 5k, of three or four codes in one document two or three were missed,
mostly given for one another. So no two stems end alike: each says a unit or an object of its own
just before the value, there is one code, and a document holds few needles, their number growing
with the logarithm of its length. And every stem says what kind of value
follows ("under the code", "in pounds is"): one that a model would rather finish with a word
of its own ("was invented by Professor") measures that habit, not its memory.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs

__all__ = ["PHRASINGS", "Fact", "Needle", "deck"]

_CONSONANTS = "BCDFGHKLMNPRSTVWXZ"
Draw = Callable[[Random], str]


def _number(digits: int) -> Draw:
    def draw(rng: Random) -> str:
        return str(rng.randrange(10 ** (digits - 1), 10**digits))

    return draw


def _code(rng: Random) -> str:
    return f"{rng.choice(_CONSONANTS)}{rng.choice(_CONSONANTS)}-{rng.randrange(100, 1000)}"


@attrs.frozen(kw_only=True)
class Fact:
    """A kind of needle: how it is told, and how it is asked for."""

    kind: str
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


_FACTS = (
    Fact(
        kind="number",
        stem="The vault of the Osprey Hotel opens with the number",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The comet will return to our sky on day",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The population of Eastmoor at the last census was",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The weight of the great bronze bell in pounds is",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The glacier lost a volume in cubic metres of",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The lighthouse lamp burned for a number of hours equal to",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="To reach Doctor Ellwood by telephone, dial",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The opera house keeps its costumes in locker",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The summit of Harrow Peak has an altitude in feet of",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The choir of Saint Ives rehearses in room",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The oldest oak in Fenwick forest stands on parcel",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The telescope in the tower is engraved with the serial",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The first edition of the almanac is stored in crate",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The space probe sends on a frequency in kilohertz of",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The royal library keeps the treaty on shelf",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The winning yacht sailed with the registration",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The embassy's parcel is tracked as consignment",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The spring marathon was won by the runner wearing bib",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The subway train to the airport consists of carriage",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The arctic station measured a snow depth in millimetres of",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The documentary film was shot on negative roll",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The freight elevator can carry a load in kilograms of",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The vaccine was delivered to the clinic in batch",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The missing bicycle has the frame engraving",
        draw=_number(6),
    ),
    Fact(
        kind="code",
        stem="The black locomotive is registered under the code",
        draw=_code,
    ),
    Fact(
        kind="number",
        stem="The spice caravan made camp at desert well",
        draw=_number(5),
    ),
)

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


def deck(seed: int) -> tuple[Needle, ...]:
    """All facts in an order of their own, each with a fresh value; the same for one `seed`."""
    rng = Random(f"needles {seed}")  # noqa: S311 - reproducible facts, not secrets
    facts = rng.sample(_FACTS, len(_FACTS))
    return tuple(Needle(fact=fact, value=fact.draw(rng)) for fact in facts)
