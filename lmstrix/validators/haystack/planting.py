"""What is planted in a document, and how far apart."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from lmstrix.validators.haystack.chains import Link, chain_links
from lmstrix.validators.haystack.crowd import Entry, crowd_entries
from lmstrix.validators.haystack.needles import Distractor, Needle, deck, distractors

__all__ = [
    "PLAIN",
    "SPARE_FACTS",
    "WITH_CHAINS",
    "WITH_CROWD",
    "HaystackSpec",
    "Planted",
    "Row",
    "rows",
    "spare_needles",
]

Planted = Needle | Distractor | Entry | Link

SPARE_FACTS = 3
"""Facts kept out of the document, told only in the last sentence before a question."""


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
    """Things of one kind, planted one after another. Distances are tokens.

    Each stands `gap` tokens behind the one before, or `ratio` times as far in where that is
    further: so every beginning of the document has them all over, and from some length on
    their number grows with its logarithm.
    """

    things: Iterator[Planted]
    first: float
    gap: float
    ratio: float

    def due(self, position: float) -> Planted | None:
        """The next thing if `position` is far enough in, else None."""
        if position < self.first:
            return None
        self.first = max(position + self.gap, position * self.ratio)
        return next(self.things, None)


NEEDLES_FIRST = 48
"""Where the first needle stands: behind the first lines, which ride on the attention sink."""

NEEDLES_GAP, NEEDLES_RATIO = 96, 1.2
"""Two neighbours stand at most a sixth of the window apart, and each is a tenth of the questions
or less: finer than the 15 % of the pass rate that decide. 4 at 512 tokens, 20 at 8k, 35 at 128k."""

DISTRACTORS_FIRST, DISTRACTORS_RATIO = 300, 4.0
"""One in the baseline, three at 8k."""

CROWD_FIRST, CROWD_GAP, CROWD_RATIO = 24, 56, 25 / 24
"""Eight at 512 tokens, about 70 at 8k."""

CHAINS_FIRST, CHAINS_GAP, CHAINS_RATIO = 36, 32, 1.1
"""Each link: three chains or so at 512 tokens, thirteen at 8k."""


def rows(seed: int, spec: HaystackSpec) -> tuple[Row, ...]:
    """All that is planted in the document of `seed`, the rarest first."""
    needles = deck(seed)
    placed, taken = needles[SPARE_FACTS:], frozenset(n.value for n in needles)
    near = distractors(placed, seed)
    planned = [
        Row(things=near, first=DISTRACTORS_FIRST, gap=0, ratio=DISTRACTORS_RATIO),
        Row(things=iter(placed), first=NEEDLES_FIRST, gap=NEEDLES_GAP, ratio=NEEDLES_RATIO),
    ]
    if spec.chains:
        links = chain_links(seed, taken)
        planned.append(Row(things=links, first=CHAINS_FIRST, gap=CHAINS_GAP, ratio=CHAINS_RATIO))
    if spec.crowd:
        entries = crowd_entries(seed, taken)
        planned.append(Row(things=entries, first=CROWD_FIRST, gap=CROWD_GAP, ratio=CROWD_RATIO))
    return tuple(planned)


def spare_needles(seed: int) -> tuple[Needle, ...]:
    """Facts of the same deck that do not stand in the document."""
    return deck(seed)[:SPARE_FACTS]
