"""A crowd: many near-alike facts, which only their key tells apart.

RULER (arXiv 2404.06654) calls this multi-key retrieval. Every sentence has the same words but
for the name, so a model has to match the key, not the topic.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import attrs

__all__ = ["Entry", "crowd_entries"]

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
