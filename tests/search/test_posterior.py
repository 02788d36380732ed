"""What the answers say about the threshold: the interval."""

from __future__ import annotations

from math import inf

import attrs
import pytest

from lmstrix.models import Baseline, Cause, DepthTally, Interval, Observation, Region
from lmstrix.problem import PassRule, SearchProblem
from lmstrix.search.posterior import threshold_interval


def problem(passes: int = 10) -> SearchProblem:
    baseline = Baseline(passes=passes, trials=10, length_tokens=512)
    return SearchProblem(floor=512, ceiling=32768, baseline=baseline, rule=PassRule())


def observe(**tallies: tuple[int, int]) -> list[Observation]:
    """``n4096=(9, 10)`` is nine passes of ten at 4096 tokens."""
    return [
        Observation(length_tokens=int(n[1:]), passes=passes, trials=trials)
        for n, (passes, trials) in tallies.items()
    ]


def interval(history: list[Observation], asked: SearchProblem | None = None) -> Interval:
    """Without a bracket, which would be the least that it holds."""
    return threshold_interval(asked or problem(), history, (512, None))


def test_it_holds_a_tight_bracket() -> None:
    history = observe(n4096=(10, 10), n4224=(0, 10))
    found = threshold_interval(problem(), history, (4096, 4224))
    assert found.low <= 4096
    assert (found.high or 0) >= 4224


def test_a_cliff_is_narrowed_down_to_where_it_is() -> None:
    found = interval(observe(n4096=(10, 10), n8192=(0, 10)))
    assert 4096 * 0.9 <= found.low < (found.high or 0) <= 8192


def test_lapses_far_below_do_not_drag_it_down() -> None:
    habit = observe(n1024=(9, 10), n2048=(9, 10), n4096=(9, 10), n8192=(9, 10), n16384=(0, 10))
    assert interval(habit, problem(passes=9)).low > 4096


def test_a_dead_engine_is_certain() -> None:
    crashed = Observation(length_tokens=8192, failure=Cause.CRASHED_ON_FILL)
    for history in (observe(n4096=(10, 10)), observe(n4096=(10, 10), n16384=(20, 20))):
        assert (interval([*history, crashed]).high or inf) <= 8192


def test_a_broken_certificate_outweighs_its_passes() -> None:
    broken = Observation(length_tokens=8192, passes=10, trials=10, failure=Cause.FORGETS)
    held = Observation(length_tokens=8192, passes=10, trials=10)
    assert (interval([*observe(n4096=(10, 10)), broken]).high or inf) < 16384
    assert interval([*observe(n4096=(10, 10)), held]).low > interval([broken]).low


@pytest.mark.parametrize("ratio", [0.99, 1.0])
def test_with_the_whole_rate_wanted_a_cliff_is_where_it_is(ratio: float) -> None:
    """No answer may be lost: then a curve that only nears its top tells no threshold."""
    asked = attrs.evolve(problem(), rule=PassRule(ratio=ratio))
    found = interval(observe(n1024=(4, 4), n4096=(10, 10), n4352=(0, 10)), asked)
    assert 3500 <= found.low <= 4200 <= (found.high or 0) <= 4352


def test_an_absolute_rate_is_a_part_of_the_short_one() -> None:
    history = observe(n1024=(7, 10), n4096=(14, 20), n8192=(6, 20), n16384=(0, 10))
    absolute = attrs.evolve(problem(passes=8), rule=PassRule(ratio=0.6, absolute=True))
    relative = attrs.evolve(problem(passes=8), rule=PassRule(ratio=0.6 / 0.8))
    assert interval(history, absolute) == interval(history, relative)


def test_a_certificate_broken_by_its_answers_may_have_been_bad_luck() -> None:
    """Seventeen of twenty would have passed: sixteen say no more than they are."""
    history = observe(n4096=(19, 20), n8192=(16, 20), n16384=(0, 10))
    broken = [
        attrs.evolve(o, failure=Cause.FORGETS) if o.length_tokens == 8192 else o for o in history
    ]
    assert interval(broken) == interval(history)


def test_the_average_hides_what_a_region_shows() -> None:
    regional = attrs.evolve(problem(), rule=PassRule(regions=tuple(Region)))
    history: list[Observation] = []
    for length, passes in ((4096, 4), (8192, 0)):
        tallies = tuple(
            DepthTally(region=r, passes=passes if r is Region.HEAD else 4, trials=4) for r in Region
        )
        history.append(
            Observation(length_tokens=length, passes=16 + passes, trials=20, regions=tallies)
        )
    found = interval(history, regional)
    assert (found.high or inf) < 8200
    assert found.low < interval(history).low
