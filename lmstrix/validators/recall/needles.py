"""Needles: facts that cannot be guessed, unlike one another in subject and kind of value.

Many needles of one kind would measure how well a model tells them apart, as much as how far
it reads: on SmolLM2-135M, nine alike ones cost most of the head at 4k, where single ones are
all found. So the subjects share no words, the values are of four makes, and a document holds
one needle per octave of its length.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import attrs

__all__ = ["PHRASINGS", "Fact", "Needle", "deck"]

_CONSONANTS = "BCDFGHKLMNPRSTVWXZ"
_SYLLABLES = tuple("bar|dor|fen|gal|hul|kim|lan|mor|nel|pon|ral|sel|tam|vin|wol|zan".split("|"))
_NAME_ENDS = tuple("da|ra|ley|ton|wick|mar|den|by|ford|no|ven|sa".split("|"))

Draw = Callable[[Random], str]


def _number(digits: int) -> Draw:
    def draw(rng: Random) -> str:
        return str(rng.randrange(10 ** (digits - 1), 10**digits))

    return draw


def _code(rng: Random) -> str:
    return f"{rng.choice(_CONSONANTS)}{rng.choice(_CONSONANTS)}-{rng.randrange(100, 1000)}"


def _name(rng: Random) -> str:
    """An invented proper name: no list of real ones can be guessed from."""
    return (rng.choice(_SYLLABLES) + rng.choice(_NAME_ENDS)).capitalize()


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


def _facts(kind: str, draw: Draw, *pairs: tuple[str, str]) -> tuple[Fact, ...]:
    return tuple(Fact(kind=kind, stem=stem, question=ask, draw=draw) for stem, ask in pairs)


_FACTS = (
    *_facts(
        "number",
        _number(5),
        (
            "The vault of the Osprey Hotel opens with the number",
            "Which number opens the vault of the Osprey Hotel?",
        ),
        (
            "The comet will return to our sky on day number",
            "On which day number will the comet return to our sky?",
        ),
        (
            "The height of Harrow Peak in feet is exactly",
            "What exactly is the height of Harrow Peak in feet?",
        ),
        (
            "The population of Eastmoor at the last census was",
            "What was the population of Eastmoor at the last census?",
        ),
        (
            "The serial number engraved on the telescope is",
            "Which serial number is engraved on the telescope?",
        ),
        (
            "The prize-winning lottery ticket has the number",
            "Which number has the prize-winning lottery ticket?",
        ),
    ),
    *_facts(
        "number",
        _number(4),
        (
            "The weight of the great bronze bell in pounds is",
            "What is the weight of the great bronze bell in pounds?",
        ),
        (
            "The choir of Saint Ives sold tickets to a total of",
            "To what total did the choir of Saint Ives sell tickets?",
        ),
        (
            "The lighthouse lamp burned for a number of hours equal to",
            "For how many hours did the lighthouse lamp burn?",
        ),
        (
            "The glacier lost a volume in cubic metres of",
            "What volume in cubic metres did the glacier lose?",
        ),
    ),
    *_facts(
        "number",
        _number(6),
        (
            "To reach Doctor Ellwood by telephone, dial",
            "Which number reaches Doctor Ellwood by telephone?",
        ),
        (
            "The parcel for the embassy has the tracking number",
            "Which tracking number has the parcel for the embassy?",
        ),
        (
            "The budget of the opera house in crowns amounts to",
            "To how many crowns does the budget of the opera house amount?",
        ),
    ),
    *_facts(
        "code",
        _code,
        (
            "The black locomotive is registered under the code",
            "Under which code is the black locomotive registered?",
        ),
        (
            "The weather satellite transmits the call sign",
            "Which call sign does the weather satellite transmit?",
        ),
        (
            "The rarest stamp in the collection is catalogued as",
            "As what is the rarest stamp in the collection catalogued?",
        ),
        (
            "The submarine was built from the plan with the label",
            "Which label has the plan from which the submarine was built?",
        ),
    ),
    *_facts(
        "name",
        _name,
        (
            "The spice merchants crossed the desert to the city of",
            "To which city did the spice merchants cross the desert?",
        ),
        (
            "The pocket compass was invented by Professor",
            "Which professor invented the pocket compass?",
        ),
        (
            "The champion racehorse was given the name",
            "Which name was the champion racehorse given?",
        ),
    ),
)

PHRASINGS = (
    "Question: {question}",
    "Answer from the text above. {question}",
    "Now look back at the text. {question}",
    "One detail of the text matters here. {question}",
    "Recall what the text said. {question}",
)
"""Ways of asking. They make further trials on one needle a little less alike."""


def deck(seed: int) -> tuple[Needle, ...]:
    """All facts in an order of their own, each with a fresh value; the same for one `seed`."""
    rng = Random(f"needles {seed}")  # noqa: S311 - reproducible facts, not secrets
    facts = rng.sample(_FACTS, len(_FACTS))
    return tuple(Needle(fact=fact, value=fact.draw(rng)) for fact in facts)
