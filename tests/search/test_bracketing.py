"""The lengths that a search may ask at, and the bracket that answers speak for."""

from __future__ import annotations

from itertools import pairwise

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from lmstrix.models import Baseline, DepthTally, Observation, Region
from lmstrix.problem import PassRule, SearchProblem
from lmstrix.search.bracketing import bracket_of, lattice

EVERYWHERE = PassRule(regions=tuple(Region))


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


def observe(length: int, **tallies: tuple[int, int]) -> Observation:
    """``head=(3, 4)`` is three passes of four in the head."""
    regions = tuple(
        DepthTally(region=Region(name), passes=passes, trials=trials)
        for name, (passes, trials) in tallies.items()
    )
    return Observation(
        length_tokens=length,
        passes=sum(t.passes for t in regions),
        trials=sum(t.trials for t in regions),
        regions=regions,
    )


def test_one_lost_region_fails_a_length_and_one_in_doubt_stops_the_bracket() -> None:
    sound = {region.value: (4, 4) for region in Region}
    asked = attrs.evolve(problem(512, 16_384, 1 / 64, 256), rule=EVERYWHERE)
    passed, beyond = observe(2048, **sound), observe(8192, **sound)
    lost = observe(4096, **(sound | {"head": (0, 4)}))
    doubt = observe(4096, head=(0, 1), tail=(4, 4))
    assert bracket_of(asked, [passed, beyond]) == (8192, None)
    assert bracket_of(asked, [passed, lost, beyond]) == (2048, 4096)
    assert bracket_of(asked, [passed, doubt, beyond]) == (2048, None)
