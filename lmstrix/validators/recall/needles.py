"""Needles: facts that cannot be guessed, unlike one another in subject and kind of value.

Many needles of one kind would measure how well a model tells them apart, as much as how far
it reads. On SmolLM2-135M at 4k, single facts are all found; of four codes in one document, two
or three are given for one another. So no two stems end alike: each says a unit or an object of
its own just before the value, there is one code, and a document holds few needles, their number
growing with the logarithm of its length. And every stem says what kind of value
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
    question: str
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
        question="Which number opens the vault of the Osprey Hotel?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The comet will return to our sky on day",
        question="On which day will the comet return to our sky?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The population of Eastmoor at the last census was",
        question="What was the population of Eastmoor at the last census?",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The weight of the great bronze bell in pounds is",
        question="What is the weight of the great bronze bell in pounds?",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The glacier lost a volume in cubic metres of",
        question="What volume in cubic metres did the glacier lose?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The lighthouse lamp burned for a number of hours equal to",
        question="For how many hours did the lighthouse lamp burn?",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="To reach Doctor Ellwood by telephone, dial",
        question="What must be dialled to reach Doctor Ellwood by telephone?",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The opera house keeps its costumes in locker",
        question="In which locker does the opera house keep its costumes?",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The summit of Harrow Peak has an altitude in feet of",
        question="What altitude in feet has the summit of Harrow Peak?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The choir of Saint Ives rehearses in room",
        question="In which room does the choir of Saint Ives rehearse?",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The oldest oak in Fenwick forest stands on parcel",
        question="On which parcel does the oldest oak in Fenwick forest stand?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The telescope in the tower is engraved with the serial",
        question="With which serial is the telescope in the tower engraved?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The first edition of the almanac is stored in crate",
        question="In which crate is the first edition of the almanac stored?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The space probe sends on a frequency in kilohertz of",
        question="On which frequency in kilohertz does the space probe send?",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The royal library keeps the treaty on shelf",
        question="On which shelf does the royal library keep the treaty?",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The winning yacht sailed with the registration",
        question="With which registration did the winning yacht sail?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The embassy's parcel is tracked as consignment",
        question="As which consignment is the embassy's parcel tracked?",
        draw=_number(6),
    ),
    Fact(
        kind="number",
        stem="The spring marathon was won by the runner wearing bib",
        question="Which bib did the runner wear who won the spring marathon?",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The subway train to the airport consists of carriage",
        question="Of which carriage does the subway train to the airport consist?",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The arctic station measured a snow depth in millimetres of",
        question="What snow depth in millimetres did the arctic station measure?",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The documentary film was shot on negative roll",
        question="On which negative roll was the documentary film shot?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The freight elevator can carry a load in kilograms of",
        question="What load in kilograms can the freight elevator carry?",
        draw=_number(4),
    ),
    Fact(
        kind="number",
        stem="The vaccine was delivered to the clinic in batch",
        question="In which batch was the vaccine delivered to the clinic?",
        draw=_number(5),
    ),
    Fact(
        kind="number",
        stem="The missing bicycle has the frame engraving",
        question="Which frame engraving has the missing bicycle?",
        draw=_number(6),
    ),
    Fact(
        kind="code",
        stem="The black locomotive is registered under the code",
        question="Under which code is the black locomotive registered?",
        draw=_code,
    ),
    Fact(
        kind="number",
        stem="The spice caravan made camp at desert well",
        question="At which desert well did the spice caravan make camp?",
        draw=_number(5),
    ),
)

PHRASINGS = (
    "Question: {question}",
    "From the text: {question}",
    "Look back: {question}",
    "Recall: {question}",
    "Please answer: {question}",
)
"""Ways of asking. They make further trials on one needle a little less alike."""


def deck(seed: int) -> tuple[Needle, ...]:
    """All facts in an order of their own, each with a fresh value; the same for one `seed`."""
    rng = Random(f"needles {seed}")  # noqa: S311 - reproducible facts, not secrets
    facts = rng.sample(_FACTS, len(_FACTS))
    return tuple(Needle(fact=fact, value=fact.draw(rng)) for fact in facts)
