"""Where needles stand in a document, and which one each question asks for.

Pure functions: a simulation uses them without any text.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import count, takewhile

from lmstrix.models import Region

__all__ = [
    "CLOSING",
    "END_TOKENS",
    "REGION_ORDER",
    "choices",
    "chosen",
    "document_number",
    "needle_positions",
    "region_of_turn",
    "standing",
]

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
    """The number of the document within its measurement, from 0."""
    return (seed - 1) % DOCUMENTS


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
    positions: Sequence[float], length_tokens: int, region: Region, index: int
) -> int | None:
    """The needle that question `index` about `region` asks for.

    Args:
        positions: where the document's needles stand, in tokens, ascending.
        length_tokens: the whole length, reply included.
        region: the region to ask about.
        index: the number of the question within the region, from 0.

    Returns:
        An index into `positions`, or `CLOSING`.
    """
    return choices(positions, length_tokens, region, index + 1)[index]


def choices(
    positions: Sequence[float], length_tokens: int, region: Region, questions: int
) -> tuple[int | None, ...]:
    """The needles that the first `questions` questions about `region` ask for: see `chosen`.

    Each is the nearest to its depth among those asked least often so far. A region without a
    needle asks for the nearest one outside; the tail asks for the closing fact instead.
    """
    begin, end = (share * length_tokens for share in region.span)
    inside = range(bisect_left(positions, begin), bisect_left(positions, end))
    shares = TAIL_SHARES if region is Region.TAIL else SHARES
    if not inside and region is not Region.TAIL:
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
