"""Bayes and gallop: the contract, and what they make of lapses, holes and noise, at what cost."""

from __future__ import annotations

from math import inf, log
from random import Random

import attrs
import pytest

from lmstrix.models import Baseline, Cause, DepthTally, Observation, Region, Verdict
from lmstrix.ports import SearchStrategy
from lmstrix.problem import Ask, CostModel, Done, PassRule, Reuse, SearchProblem
from lmstrix.search.bayes import Bayes
from lmstrix.search.gallop import Gallop
from lmstrix.testing.contracts.strategy import Answers, Search, StrategyContract


class TestContract(StrategyContract):
    @pytest.fixture(params=[Bayes(), Gallop(), Gallop(factor=4)])
    def strategy(self, request: pytest.FixtureRequest) -> SearchStrategy:
        return request.param


BASELINE = Baseline(passes=10, trials=10, length_tokens=512)
PROBLEM = SearchProblem(floor=512, ceiling=32768, baseline=BASELINE, rule=PassRule())
NOISY = SearchProblem(
    floor=512,
    ceiling=65_536,
    baseline=Baseline(passes=12, trials=12, length_tokens=512),
    rule=PassRule(),
    tolerance=1 / 16,
    costs=CostModel(question_tokens=25.0, generated_tokens=0.0, probe=0.0),
    cached_tokens=512,
)
BOTH = pytest.mark.parametrize("strategy", [Bayes(), Gallop()])


@BOTH
def test_nothing_to_search_is_done_at_once(strategy: SearchStrategy) -> None:
    step = strategy.next_step(attrs.evolve(PROBLEM, ceiling=512), [])
    assert isinstance(step, Done)
    assert (step.low, step.high) == (512, None)


def observe(length: int, **tallies: tuple[int, int]) -> Observation:
    """``head=(3, 4)`` is three passes of four in the head."""
    regions = tuple(
        DepthTally(region=Region(name), passes=passes, trials=trials)
        for name, (passes, trials) in tallies.items()
    )
    passes, trials = sum(t.passes for t in regions), sum(t.trials for t in regions)
    return Observation(length_tokens=length, passes=passes, trials=trials, regions=regions)


@BOTH
def test_a_lost_region_fails_a_length_and_a_doubt_stops_the_bracket(
    strategy: SearchStrategy,
) -> None:
    sound = {region.value: (4, 4) for region in Region}
    asked = attrs.evolve(PROBLEM, rule=PassRule(regions=tuple(Region)))
    passed, beyond = observe(2048, **sound), observe(8192, **sound)
    lost = observe(4096, **(sound | {"head": (0, 4)}))
    doubt = observe(4096, head=(0, 1), tail=(4, 4))
    assert strategy.bracket(asked, [passed, beyond]) == (8192, None)
    assert strategy.bracket(asked, [passed, lost, beyond]) == (2048, 4096)
    assert strategy.bracket(asked, [passed, doubt, beyond]) == (2048, None)


@pytest.mark.parametrize(
    ("strategy", "problem", "hole"),
    [(Bayes(), NOISY, (8000, 9500)), (Gallop(), PROBLEM, (1900, 2200))],
)
def test_the_answer_is_below_a_hole(
    strategy: SearchStrategy, problem: SearchProblem, hole: tuple[int, int]
) -> None:
    done = Search(strategy, problem, lambda length, _, __: not hole[0] <= length <= hole[1]).run()
    assert done.high is not None
    assert done.low < hole[0] <= done.high <= hole[1]
    assert isinstance(strategy, Gallop) or done.interval.high is not None


NAN = float("nan")


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        *((Bayes, worth) for worth in (0.0, -1.0, NAN)),
        *((Gallop, factor) for factor in (1.0, 0.5, -2.0, NAN)),
    ],
)
def test_what_would_never_end_is_refused(make: type[Bayes | Gallop], setting: float) -> None:
    with pytest.raises(ValueError, match="positive" if make is Bayes else "greater than 1"):
        make(setting)


# Gallop.


def test_one_lapse_in_ten_decides_nothing() -> None:
    search = Search(Gallop(), PROBLEM, lambda length, index, _: length <= 9000 and index % 10 != 3)
    done = search.run()
    assert done.high is not None
    assert done.low <= 9000 < done.high
    assert PROBLEM.is_tight(done.low, done.high)


def test_lapses_seldom_move_the_answer() -> None:
    """Of models that miss one question in fifty, all but few are found within an eighth."""
    rng = Random(5)
    near = 0
    for seed in range(20):
        truth = rng.randrange(2000, 30000)

        def answer(
            length: int, index: int, _: object, truth: int = truth, seed: int = seed
        ) -> bool:
            lapse = Random(f"{seed} {length} {index}").random() < 0.02
            return length <= truth and not lapse

        done = Search(Gallop(), PROBLEM, answer).run()
        near += truth * 7 / 8 <= done.low <= truth
    assert near >= 18


# Bayes.


def noisy(limit: float, slope: float, seed: int) -> Search:
    """A search on a model whose pass rate is logistic in the logarithm of the length."""

    def answer(length: int, index: int, _: object) -> bool:
        rate = 0.96 / (1 + (1 / 0.85 - 1) * (length / limit) ** slope)
        return Random(f"{seed} {length} {index}").random() < rate

    return Search(Bayes(), NOISY, answer)


@pytest.mark.parametrize(("slope", "near"), [(100.0, 0.04), (12.0, 0.12), (4.0, 0.3)])
def test_most_thresholds_are_found(slope: float, near: float) -> None:
    """The estimate of four in five models is near, the interval holds nearly all, and the
    bracket's lower end is what its tally shows.
    """
    rng = Random(3)
    close = covered = 0
    for seed in range(10):
        limit = 1500 * 30 ** rng.random()
        search = noisy(limit, slope, seed)
        done = search.run()
        assert done.estimate is not None
        close += abs(log(done.estimate / limit)) < near + 128 / limit
        covered += done.interval.low - 128 <= limit <= (done.interval.high or inf) + 128
        assert done.low == 512 or search.verdicts()[done.low] is Verdict.PASS
    assert close >= 8
    assert covered >= 8


def test_a_clean_cliff_costs_little_more_than_reading_it() -> None:
    search = Search(Bayes(), NOISY, lambda length, _, __: length <= 30_000)
    done = search.run()
    assert done.low <= 30_000 < (done.high or inf)
    tokens = cached = 0.0
    for asked, _ in search.before:
        tokens += max(0.0, asked.cached_tokens - cached)
        cached = asked.cached_tokens
    questions = sum(o.trials for o in search.history)
    assert tokens + 25 * questions < 1.2 * 30_000


def test_one_lapse_on_the_way_up_does_not_stop_the_climb() -> None:
    search = Search(Bayes(), NOISY, lambda length, index, _: length <= 40_000 and index != 1)
    assert 36_000 < search.run().low <= 40_000


def test_a_broken_certificate_moves_the_answer_down() -> None:
    search = Search(Bayes(), NOISY, lambda length, _, __: length <= 20_000)
    first = search.run()
    search.known[first.low] = attrs.evolve(search.known[first.low], failure=Cause.FORGETS)
    second = search.run()
    assert second.high is not None
    assert second.low < second.high <= first.low


def test_without_reuse_it_asks_for_whole_requests() -> None:
    costs = CostModel(reuse=Reuse.NONE, facts=8, question_tokens=0.0)
    rule = PassRule(first=1, regions=tuple(Region))
    anew = attrs.evolve(NOISY, costs=costs, rule=rule, tolerance=1 / 64)
    search = Search(Bayes(), anew, Answers(kind="cliff", truth=20_000, region=Region.HEAD))
    done = search.run()
    assert done.low <= 20_000 < (done.high or 0)
    steps = [Bayes().next_step(p, list(known.values())) for p, known in search.before]
    asked = [step for step in steps if isinstance(step, Ask)]
    assert sum(step.length_tokens * -(-step.trials // 8) for step in asked) < 14 * 20_000
