"""What every search strategy must do, as a pytest suite.

::

class TestMyStrategy(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return MyStrategy()

What stands in for a model is in `lmstrix.testing.searching`.
"""
# ruff: noqa: S101 - a test suite asserts, also if it is shipped

from __future__ import annotations

from random import Random

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmstrix.models import Baseline, Region, Verdict
from lmstrix.ports import SearchStrategy
from lmstrix.problem import Ask, CostModel, PassRule, Reuse, SearchProblem
from lmstrix.testing.searching import Answers, Search

__all__ = ["Answers", "Search", "StrategyContract"]

_PROPERTY = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    # A strategy is stateless, so one fixture serves all examples, and any subclass may run them.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


@st.composite
def _problems(draw: st.DrawFn) -> SearchProblem:
    floor = draw(st.integers(128, 2048))
    trials = draw(st.sampled_from([10, 20]))
    reuse = draw(st.sampled_from(Reuse))
    facts = draw(st.sampled_from([1, 8])) if reuse is Reuse.NONE else 1
    regions = draw(st.sampled_from([(), tuple(Region), tuple(Region), (Region.HEAD, Region.TAIL)]))
    return SearchProblem(
        floor=floor,
        ceiling=draw(st.one_of(st.integers(floor, floor + 600), st.integers(floor, 200_000))),
        baseline=Baseline(
            passes=draw(st.integers(trials // 2, trials)), trials=trials, length_tokens=floor
        ),
        rule=PassRule(first=4 if facts == 1 else 1, regions=regions),
        tolerance=draw(st.sampled_from([0.0, 1 / 256, 1 / 64, 1 / 8])),
        granularity=draw(st.sampled_from([64, 256])),
        costs=CostModel(
            question_tokens=draw(st.sampled_from([8.0, 64.0, 320.0])),
            attention_tokens=draw(st.sampled_from([None, 2.0**15])),
            reuse=reuse,
            facts=facts,
            seconds_per_token=0.001,
        ),
        cached_tokens=draw(st.sampled_from([0, floor])),
    )


def _lost(problem: SearchProblem) -> st.SearchStrategy[Region | None]:
    """The one region that is lost, or None for all of them."""
    return st.sampled_from([None, *problem.rule.regions])


def _truths(problem: SearchProblem) -> st.SearchStrategy[int]:
    return st.integers(problem.floor, problem.ceiling + problem.ceiling // 4)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[SearchProblem, Answers]:
    problem = draw(_problems())
    answers = Answers(
        kind=draw(st.sampled_from(["cliff", "forgets", "lapses", "any"])),
        truth=draw(_truths(problem)),
        seed=draw(st.integers(0, 10_000)),
        dead_above=draw(st.none() | _truths(problem)),
        region=draw(_lost(problem)),
    )
    return problem, answers


@st.composite
def _cliffs(draw: st.DrawFn) -> tuple[SearchProblem, Answers]:
    problem = draw(_problems())
    truth = draw(_truths(problem))
    dead_above = truth if draw(st.booleans()) else None
    answers = Answers(kind="cliff", truth=truth, dead_above=dead_above, region=draw(_lost(problem)))
    return problem, answers


class StrategyContract:
    """Subclass it and override the fixture `strategy`."""

    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        """The strategy that is held to the contract."""
        raise NotImplementedError("override the fixture `strategy`")

    def test_it_is_a_strategy(self, strategy: SearchStrategy) -> None:
        """It has the port's shape, and a name for the report."""
        assert isinstance(strategy, SearchStrategy)
        assert strategy.name

    @_PROPERTY
    @given(case=_cases())
    def test_it_ends_and_asks_only_what_it_needs(
        self, strategy: SearchStrategy, case: tuple[SearchProblem, Answers]
    ) -> None:
        """Whatever the answers: bounded steps, lengths inside [floor, ceiling] and on the grid,
        regions of the rule, no more trials than it knows, a bracket that only shrinks (`Search`
        checks each step), and an answer that the tallies carry.
        """
        search = Search(strategy, *case)
        done = search.run()
        verdicts = search.verdicts()
        assert (done.low, done.high) == strategy.bracket(search.problem, search.history)
        assert done.low == search.problem.floor or verdicts[done.low] is Verdict.PASS
        assert all(n >= (done.high or n) for n, v in verdicts.items() if v is Verdict.FAIL)
        assert done.high is None or verdicts[done.high] is Verdict.FAIL
        assert done.high is None or done.low < done.high or done.low == search.problem.floor
        problem = search.problem
        halfway = list(search.before[len(search.before) // 2][1].values())
        for interval in (
            strategy.interval(problem, []),
            strategy.interval(problem, halfway),
            done.interval,
        ):
            assert 0 < interval.level < 1
            assert problem.floor <= interval.low <= problem.ceiling
            assert interval.high is None or interval.low <= interval.high <= problem.ceiling

    @_PROPERTY
    @given(case=_cliffs(), order=st.randoms(use_true_random=False))
    def test_a_cliff_is_found(
        self, strategy: SearchStrategy, case: tuple[SearchProblem, Answers], order: Random
    ) -> None:
        """Also one in a single region. The bracket holds it and is as narrow as was asked for, or
        nothing failed; also after an interruption within a step that left nothing in the cache.
        """
        problem, answers = case
        search = Search(strategy, problem, answers)
        dones = [search.run()]
        again = search.resumed(order.randrange(len(search.before)))
        again.problem = attrs.evolve(again.problem, cached_tokens=0)
        step = strategy.next_step(again.problem, again.history)
        if isinstance(step, Ask):
            again.ask(step, order.randrange(step.trials))
        dones.append(again.run())
        for done in dones:
            assert done.low <= answers.truth
            if done.high is None:
                assert done.low == problem.ceiling
            else:
                assert answers.truth < done.high
                assert problem.is_tight(done.low, done.high)

    @_PROPERTY
    @given(case=_cases(), order=st.randoms(use_true_random=False))
    def test_the_history_alone_decides(
        self, strategy: SearchStrategy, case: tuple[SearchProblem, Answers], order: Random
    ) -> None:
        """Whatever its order; so a search that was interrupted between two steps ends like one
        that was not.
        """
        search = Search(strategy, *case)
        done = search.run()
        resumed = search.resumed(order.randrange(len(search.before)))
        shuffled = list(resumed.known.values())
        order.shuffle(shuffled)
        step = strategy.next_step(resumed.problem, shuffled)
        assert step == strategy.next_step(resumed.problem, resumed.history)
        assert resumed.run() == done

    @_PROPERTY
    @given(case=_cases(), share=st.floats(0.0, 2.0), timed=st.booleans())
    def test_it_keeps_to_its_budget(
        self,
        strategy: SearchStrategy,
        case: tuple[SearchProblem, Answers],
        share: float,
        *,
        timed: bool,
    ) -> None:
        """No step is expected to cost more than what remains (`Search` charges each), and the
        end says no more than what was found out.
        """
        problem, answers = case
        tokens = int(share * problem.ceiling)
        if timed:
            problem = attrs.evolve(problem, remaining_s=tokens * 0.001)
        else:
            problem = attrs.evolve(problem, remaining_tokens=tokens)
        search = Search(strategy, problem, answers)
        done = search.run()
        assert (done.low, done.high) == strategy.bracket(search.problem, search.history)
        verdicts = search.verdicts()
        assert done.low == search.problem.floor or verdicts[done.low] is Verdict.PASS
