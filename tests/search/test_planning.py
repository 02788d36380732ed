"""The cheapest search: against a plain recursion, and as it is used."""

from __future__ import annotations

from functools import cache

import attrs
import pytest

from lmstrix.problem import CostModel, Reuse
from lmstrix.models import Baseline, Observation
from lmstrix.ports import SearchStrategy
from lmstrix.problem import Ask, Done, PassRule, SearchProblem
from lmstrix.search.binary import Binary
from lmstrix.search.cost_aware import CostAware
from lmstrix.search.gallop import Gallop
from lmstrix.search.planning import BEYOND, SHARE, make_plan

LENGTHS = (512, 600, 768, 900, 1024, 1300, 1600, 2048)
COSTS = CostModel(question_tokens=50.0, generated_tokens=2.0, attention_tokens=3000.0)
ONE = PassRule(first=1, full=1, most=1)


def least(costs: CostModel, trials: int) -> float:
    """The expected cost of the best search over `LENGTHS`, by trying everything."""
    ends = [*LENGTHS, LENGTHS[-1] * BEYOND]

    @cache
    def rest(low: int, high: int, held: int) -> float:
        """`held` is the index whose document is in the cache."""
        weight = ends[low] ** -SHARE - ends[high] ** -SHARE
        return min(
            (
                weight * probe(index, low, held)
                + rest(index, high, index)
                + rest(low, index, index)
                for index in range(low + 1, high)
            ),
            default=0.0,
        )

    def probe(index: int, low: int, held: int) -> float:
        return costs.cost(
            LENGTHS[index], cached=LENGTHS[held], trials=trials, checkpoint=LENGTHS[low]
        )

    return rest(0, len(LENGTHS), 0)


@pytest.mark.parametrize("reuse", Reuse)
@pytest.mark.parametrize("trials", [1, 4])
def test_no_search_is_cheaper(reuse: Reuse, trials: int) -> None:
    costs = attrs.evolve(COSTS, reuse=reuse)
    plan = make_plan(LENGTHS, costs, trials, open_end=True)
    assert plan.after_pass[0, len(LENGTHS)] == pytest.approx(least(costs, trials))


def problem(costs: CostModel, **changes: object) -> SearchProblem:
    return attrs.evolve(
        SearchProblem(
            floor=512,
            ceiling=131_072,
            baseline=Baseline(passes=10, trials=10, length_tokens=512),
            rule=ONE,
            costs=costs,
            cached_tokens=512,
        ),
        **changes,
    )


def search(strategy: SearchStrategy, asked: SearchProblem, limit: int) -> tuple[list[int], float]:
    """Lengths in order, and prompt tokens as a multiple of the limit."""
    known: dict[int, Observation] = {}
    tokens = 0.0
    while isinstance(step := strategy.next_step(asked, list(known.values())), Ask):
        length, cached = step.length_tokens, asked.cached_tokens
        at = max((n for n in (512, *known) if n <= min(length, cached)), default=0)
        tokens += asked.costs.prompt_tokens(length, cached=cached, checkpoint=at)
        known[length] = Observation(
            length_tokens=length, passes=int(length <= limit), trials=step.trials
        )
        asked = attrs.evolve(asked, cached_tokens=length)
    assert isinstance(step, Done)
    assert step.low <= limit < (step.high or limit + 1)
    return list(known), tokens / limit


LIMITS = (1100, 1700, 2900, 6500, 14_000, 30_000, 61_000, 100_000)


@pytest.mark.parametrize("reuse", Reuse)
@pytest.mark.parametrize("question", [16.0, 320.0])
def test_it_is_cheaper_than_a_gallop_and_far_cheaper_than_bisection(
    reuse: Reuse, question: float
) -> None:
    asked = problem(CostModel(question_tokens=question, generated_tokens=0.0, reuse=reuse))

    def total(strategy: SearchStrategy) -> float:
        return sum(search(strategy, asked, limit)[1] for limit in LIMITS)

    planned = total(CostAware())
    assert planned < total(Gallop())
    assert planned < total(Binary()) / 3


def test_dear_questions_make_bigger_steps() -> None:
    def first(question: float) -> int:
        asked = problem(CostModel(question_tokens=question), granularity=1)
        return search(CostAware(), asked, 60_000)[0][0]

    assert first(8.0) < first(320.0) < first(5000.0)


def test_dear_generation_counts_like_dear_questions() -> None:
    slow = CostModel(generated_token=100.0)
    assert len(search(CostAware(), problem(slow), 60_000)[0]) < len(
        search(CostAware(), problem(CostModel()), 60_000)[0]
    )


def test_without_reuse_it_takes_fewer_probes() -> None:
    without = search(CostAware(), problem(CostModel(reuse=Reuse.NONE)), 60_000)[0]
    assert len(without) < len(search(CostAware(), problem(CostModel()), 60_000)[0])
    assert without[-1] > 40_000


def test_whatever_the_costs_the_bracket_is_the_same() -> None:
    """So an interrupted search ends where it would have, with another cache and other costs."""
    found = set[tuple[int, int | None]]()
    for costs in (CostModel(), COSTS, CostModel(reuse=Reuse.NONE), CostModel(question_tokens=999)):
        known = search(CostAware(), problem(costs), 9999)[0]
        found.add((max(n for n in known if n <= 9999), min(n for n in known if n > 9999)))
    assert len(found) == 1


def test_a_fine_search_over_a_million_tokens_is_planned_in_parts() -> None:
    asked = problem(CostModel(), ceiling=1_000_000, tolerance=0.0, granularity=64)
    lengths, tokens = search(CostAware(), asked, 777_777)
    assert tokens < 1.2
    assert len(lengths) < 100


def test_bisection_begins_in_the_middle_and_goes_below_the_floor_of_no_one() -> None:
    lengths, _ = search(Binary(), problem(CostModel()), 1100)
    assert lengths[:3] == [65_536, 32_768, 16_384]
    assert min(lengths) > 512


def test_bisection_ends_at_the_ceiling() -> None:
    lengths, _ = search(Binary(), problem(CostModel()), 131_072)
    assert lengths[-1] == 131_072
