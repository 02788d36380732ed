"""The lengths that a search may ask at: one lattice for the whole problem.

Neighbours are as far apart as the tolerance allows. Whatever path a search takes over them,
the bracket that it ends with around a sharp limit is the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import lru_cache

from lmstrix.problem import SearchProblem

__all__ = ["inside", "lattice", "thinned"]


def lattice(problem: SearchProblem) -> tuple[int, ...]:
    """Lengths from the floor to the ceiling, ascending, both included.

    All between them are multiples of the granularity, and each neighbouring pair is tight.
    """
    return _lattice(problem.floor, problem.ceiling, problem.tolerance, problem.granularity)


@lru_cache(maxsize=64)
def _lattice(floor: int, ceiling: int, tolerance: float, step: int) -> tuple[int, ...]:
    lengths = [floor]
    while lengths[-1] < ceiling:
        last = lengths[-1]
        furthest = last + max(step, int(tolerance * last))
        lengths.append(min(ceiling, furthest // step * step))
    return tuple(lengths)


def inside(lengths: tuple[int, ...], low: int, high: int | None) -> tuple[int, ...]:
    """Those strictly between `low` and `high`; all above `low` where `high` is None."""
    start = bisect_right(lengths, low)
    return lengths[start:] if high is None else lengths[start : bisect_left(lengths, high)]


def thinned(lengths: tuple[int, ...], most: int) -> tuple[int, ...]:
    """At most `most` of them, evenly picked, the first and the last among them."""
    if len(lengths) <= most:
        return lengths
    gap = (len(lengths) - 1) / (most - 1)
    return tuple(lengths[round(i * gap)] for i in range(most))
