"""The lengths that a search may ask at."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstrix.models import Baseline
from lmstrix.problem import PassRule, SearchProblem
from lmstrix.search.lattice import inside, lattice, thinned


def problem(floor: int, ceiling: int, tolerance: float, granularity: int) -> SearchProblem:
    return SearchProblem(
        floor=floor,
        ceiling=ceiling,
        baseline=Baseline(passes=10, trials=10),
        rule=PassRule(),
        tolerance=tolerance,
        granularity=granularity,
    )


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    floor=st.integers(1, 3000),
    above=st.integers(0, 200_000),
    tolerance=st.sampled_from([0.0, 1 / 256, 1 / 64, 1 / 8]),
    granularity=st.sampled_from([1, 64, 256]),
)
def test_neighbours_are_tight_and_no_closer_than_needed(
    floor: int, above: int, tolerance: float, granularity: int
) -> None:
    if tolerance == 0.0 and granularity == 1:
        above = min(above, 5000)
    asked = problem(floor, floor + above, tolerance, granularity)
    lengths = lattice(asked)
    assert lengths[0] == floor
    assert lengths[-1] == floor + above
    assert all(n % granularity == 0 for n in lengths[1:-1])
    for low, high in pairwise(lengths):
        assert low < high
        assert asked.is_tight(low, high)
    for low, high in zip(lengths, lengths[2:], strict=False):
        assert not asked.is_tight(low, high) or high == lengths[-1]


def test_inside_leaves_out_the_ends() -> None:
    lengths = (512, 768, 1024, 1280)
    assert inside(lengths, 512, 1280) == (768, 1024)
    assert inside(lengths, 600, 1025) == (768, 1024)
    assert inside(lengths, 768, None) == (1024, 1280)
    assert inside(lengths, 1280, None) == ()


@pytest.mark.parametrize("most", [2, 3, 10, 99, 100, 200])
def test_thinned_keeps_the_ends(most: int) -> None:
    lengths = tuple(range(100))
    few = thinned(lengths, most)
    assert len(few) == min(most, 100)
    assert (few[0], few[-1]) == (0, 99)
    assert list(few) == sorted(set(few))
