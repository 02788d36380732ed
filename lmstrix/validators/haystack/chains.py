"""Chains: values handed on from name to name, as in RULER's variable tracking.

One sentence gives a number, the next ones say that another vessel holds as much (arXiv
2404.06654: ``VAR X2 = VAR X1``). Who would know a later vessel's number must go back link by
link; who would know all vessels with one number must gather the whole chain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

import attrs

__all__ = [
    "CHAIN_LINKS",
    "Link",
    "answer_from",
    "chain_links",
    "flasks_in",
    "names_stem",
    "stem_of",
    "value_of",
]

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
    """The number that `text` gives `name`, link by link; None where a link is missing."""
    numbers, back = dict(_ROOT.findall(text)), dict(_STEP.findall(text))
    for _ in range(CHAIN_LINKS):
        if name in numbers:
            return numbers[name]
        if name not in back:
            return None
        name = back[name]
    return None


def answer_from(text: str, stem: str) -> str | None:
    """How `text` completes one of the stems above; None for any other, or where it cannot."""
    if (asked := _STEM.fullmatch(stem)) is not None:
        return value_of(text, asked[1])
    if (asked := _NAMES_STEM.fullmatch(stem)) is None:
        return None
    told = sorted([*_ROOT.finditer(text), *_STEP.finditer(text)], key=lambda match: match.start())
    names = [match[1] for match in told if value_of(text, match[1]) == asked[1]]
    return ", ".join(names) or None
