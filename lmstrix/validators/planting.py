"""What is planted in a document besides needles: a crowd of facts that are alike, and chains.

A crowd is RULER's multi-key retrieval (arXiv 2404.06654): every sentence has the same words except
for the name, so a model has to match the key, not the topic. A chain is RULER's variable tracking:
one sentence gives a number, the next ones say that another vessel holds as much.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import inf
from random import Random

import attrs

from lmstrix.validators.needles import (
    Distractor,
    Needle,
    deck,
    distractors,
    needle_positions,
    placed_needles,
)

__all__ = [
    "CHAIN_LINKS",
    "PLAIN",
    "WITH_CHAINS",
    "WITH_CROWD",
    "Entry",
    "HaystackSpec",
    "Link",
    "Planted",
    "Row",
    "answer_from",
    "chain_links",
    "crowd_entries",
    "flasks_in",
    "names_stem",
    "rows",
    "stem_of",
]

_GIVEN = tuple(
    "Agnes|Basil|Clara|Dorian|Edith|Felix|Greta|Hugo|Irene|Jasper|Karen|Lionel|Mabel|Nolan|"
    "Olive|Percy|Ruth|Silas|Thea|Ursula|Victor|Wanda|Yvonne|Zachary|Bruno|Celia|Dennis|Elsie|"
    "Frank|Hazel|Ivan|Judith".split("|")
)
_FAMILY = tuple(
    "Archer|Barlow|Carver|Dalton|Ellison|Foster|Garland|Hobbs|Ingram|Jarvis|Keller|Lawson|"
    "Mercer|Norris|Oakley|Porter|Quincy|Ramsey|Sutton|Thorne|Underhill|Vernon|Walden|Yates|"
    "Abbott|Benson|Crane|Draper|Emery|Fowler|Grayson|Hewitt".split("|")
)


@attrs.frozen(kw_only=True)
class Entry:
    """One of the crowd."""

    name: str
    value: str

    @property
    def stem(self) -> str:
        """The sentence up to its value; also the first words of the answer."""
        return f"The badge of {self.name} carries the number"

    @property
    def sentence(self) -> str:
        """What stands in the document."""
        return f"{self.stem} {self.value}."


def crowd_entries(seed: int, taken: frozenset[str]) -> Iterator[Entry]:
    """1024 names with values, none of them in `taken`, and no value twice."""
    rng = Random(f"crowd {seed}")  # noqa: S311 - reproducible facts, not secrets
    names = [f"{given} {family}" for given in _GIVEN for family in _FAMILY]
    rng.shuffle(names)
    values = (str(n) for n in rng.sample(range(10_000, 100_000), 2 * len(names)))
    free = (value for value in values if value not in taken)
    for name, value in zip(names, free, strict=False):
        yield Entry(name=name, value=value)


CHAIN_LINKS = 3
"""Vessels in one chain: one with a number, two that refer back."""

_VESSELS = tuple(
    "amber|azure|beige|black|blue|bronze|brown|crimson|emerald|golden|green|grey|indigo|ivory|"
    "jade|lilac|maroon|navy|olive|orange|pearl|pink|purple|red|rose|ruby|scarlet|teal|violet|"
    "white|yellow|turquoise".split("|")
)
_MARKS = tuple("star|moon|sun|lion|eagle|fox|wolf|bear|swan|crown|anchor|arrow|key|rose".split("|"))

_NAME = re.compile(rf"\b(?:{'|'.join(_VESSELS)}) (?:{'|'.join(_MARKS)})\b")
_STEM = re.compile(r"The number of drops in the flask with the (\w+ \w+) is")
_NAMES_STEM = re.compile(r"The flasks that hold (\d+) drops are those with the")
_ROOT = re.compile(r"The flask with the (\w+ \w+) holds (\d+) drops\.")
_STEP = re.compile(r"The flask with the (\w+ \w+) holds as much as the one with the (\w+ \w+)\.")


@attrs.frozen(kw_only=True)
class Link:
    """One sentence of a chain."""

    chain: int
    step: int
    """0 gives the number, each further one refers to the one before."""
    name: str
    value: str
    """The number of the whole chain."""
    previous: str | None

    @property
    def sentence(self) -> str:
        """What stands in the document."""
        if self.previous is None:
            return f"The flask with the {self.name} holds {self.value} drops."
        return f"The flask with the {self.name} holds as much as the one with the {self.previous}."


def chain_links(seed: int, taken: frozenset[str]) -> Iterator[Link]:
    """Chains one after another, each of `CHAIN_LINKS` links; no name and no value twice."""
    rng = Random(f"chains {seed}")  # noqa: S311 - reproducible facts, not secrets
    names = [f"{colour} {mark}" for colour in _VESSELS for mark in _MARKS]
    rng.shuffle(names)
    chains = len(names) // CHAIN_LINKS
    values = [str(n) for n in rng.sample(range(1000, 10_000), 2 * chains)]
    free = iter(value for value in values if value not in taken)
    for chain in range(chains):
        value, previous = next(free), None
        for step in range(CHAIN_LINKS):
            name = names[chain * CHAIN_LINKS + step]
            yield Link(chain=chain, step=step, name=name, value=value, previous=previous)
            previous = name


def stem_of(name: str) -> str:
    """The first words of an answer that tells the number of `name`."""
    return f"The number of drops in the flask with the {name} is"


def names_stem(value: str) -> str:
    """The first words of an answer that tells all names that hold `value`."""
    return f"The flasks that hold {value} drops are those with the"


def flasks_in(folded: str) -> set[str]:
    """All names of vessels in a folded text."""
    return set(_NAME.findall(folded))


def value_of(text: str, name: str) -> str | None:
    """The number that `text` gives `name`, link by link; None if a link is missing."""
    numbers, back = dict(_ROOT.findall(text)), dict(_STEP.findall(text))
    for _ in range(CHAIN_LINKS):
        if name in numbers:
            return numbers[name]
        if name not in back:
            return None
        name = back[name]
    return None


def answer_from(text: str, stem: str) -> str | None:
    """How `text` completes one of the stems above; None for any other, or if it cannot."""
    if (asked := _STEM.fullmatch(stem)) is not None:
        return value_of(text, asked[1])
    if (asked := _NAMES_STEM.fullmatch(stem)) is None:
        return None
    told = sorted([*_ROOT.finditer(text), *_STEP.finditer(text)], key=lambda match: match.start())
    names = [match[1] for match in told if value_of(text, match[1]) == asked[1]]
    return ", ".join(names) or None


Planted = Needle | Distractor | Entry | Link


@attrs.frozen(kw_only=True)
class HaystackSpec:
    """What is planted beside the needles of recall, which are always there.

    Validators that share a measurement share one spec: then their prompts begin alike.
    """

    crowd: bool = False
    chains: bool = False

    def __or__(self, other: HaystackSpec) -> HaystackSpec:
        """What either asks for."""
        return HaystackSpec(crowd=self.crowd or other.crowd, chains=self.chains or other.chains)


PLAIN = HaystackSpec()
WITH_CROWD = HaystackSpec(crowd=True)
WITH_CHAINS = HaystackSpec(chains=True)


@attrs.define(kw_only=True)
class Row:
    """Things of one kind, planted one after another, each at its position in tokens or later."""

    things: Iterator[Planted]
    positions: Iterator[float]
    _next: float | None = attrs.field(default=None, init=False)

    def due(self, position: float) -> Planted | None:
        """The next thing if `position` is far enough in, else None."""
        if self._next is None:
            self._next = next(self.positions, inf)
        if position < self._next:
            return None
        self._next = None
        return next(self.things, None)


def _spread(first: float, gap: float, ratio: float) -> Iterator[float]:
    """Positions `gap` tokens apart, or `ratio` times as far in if that is further."""
    while True:
        yield first
        first = max(first + gap, first * ratio)


DISTRACTORS = (300, 0, 4.0)
"""One in the baseline, three at 8k."""

CROWD = (24, 56, 25 / 24)
"""Eight at 512 tokens, about 70 at 8k, three in the last tenth."""

CHAINS = (36, 32, 1.03)
"""Each link: three chains or so at 512 tokens, 30 at 8k; a chain spans a tenth of the window."""


def rows(seed: int, spec: HaystackSpec) -> tuple[Row, ...]:
    """All that is planted in the document of `seed`, the rarest first."""
    placed, taken = placed_needles(seed), frozenset(n.value for n in deck(seed))
    planned = [
        Row(things=distractors(placed, seed), positions=_spread(*DISTRACTORS)),
        Row(things=iter(placed), positions=needle_positions(seed, inf)),
    ]
    if spec.chains:
        planned.append(Row(things=chain_links(seed, taken), positions=_spread(*CHAINS)))
    if spec.crowd:
        planned.append(Row(things=crowd_entries(seed, taken), positions=_spread(*CROWD)))
    return tuple(planned)
