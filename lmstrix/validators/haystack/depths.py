"""Places to ask about: evenly from the head to the tail, those far apart first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from lmstrix.validators.haystack.document import Placed

__all__ = ["EVEN_DEPTHS", "nearest", "target_depth"]

Thing = TypeVar("Thing")

EVEN_DEPTHS = (0.05, 0.55, 0.95, 0.25, 0.75, 0.45, 0.15, 0.65, 0.85, 0.35)
"""The middle of each tenth; head, middle, tail and in between are among the first four."""


def target_depth(index: int) -> tuple[float, int]:
    """The depth of question `index`, and how often it was asked about before."""
    turn, at = divmod(index, len(EVEN_DEPTHS))
    return EVEN_DEPTHS[at], turn


def nearest(
    placed: Sequence[Placed[Thing]], target_tokens: float, turn: int
) -> Placed[Thing] | None:
    """The thing nearest to a place; the next nearest for every further `turn`."""
    by_distance = sorted(placed, key=lambda p: abs(p.position_tokens - target_tokens))
    return by_distance[turn % len(by_distance)] if by_distance else None
