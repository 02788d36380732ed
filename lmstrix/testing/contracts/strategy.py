"""What every search strategy must do, as a pytest suite.

::

class TestMyStrategy(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return MyStrategy()

Models are stood in for by functions from (length, trial number) to pass or fail: cliffs, slow
forgetting, lengths that pass and fail at random, engines that crash. No event loop is needed.
"""
# ruff: noqa: S101 - a test suite asserts, also where it is shipped

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmstrix.models import Baseline, Cause, Observation, Verdict
from lmstrix.ports import SearchStrategy
from lmstrix.problem import Ask, Done, PassRule, SearchProblem

__all__ = ["Answers", "Search", "StrategyContract"]

Answer = Callable[[int, int], bool | None]
"""From a length and the number of the trial there: pass, fail, or None for a dead engine."""

MOST_STEPS = 1000
"""Far more than any search needs: 3 steps at each of the lengths that a bisection touches."""

_PROPERTY = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    # A strategy is stateless, so one fixture serves all examples, and any subclass may run them.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


@attrs.frozen(kw_only=True)
class Answers:
    """A stand-in for a model: the same trial always has the same answer."""

    kind: str
    truth: int
    seed: int = 0
    dead_above: int | None = None
    """The engine crashes at longer lengths; None: never."""

    def __call__(self, length: int, index: int) -> bool | None:
        """Pass, fail, or None where the engine dies."""
        if self.dead_above is not None and length > self.dead_above:
            return None
        if self.kind == "cliff":
            return length <= self.truth
        draw = Random(f"{self.seed} {length} {index}").random()  # noqa: S311 - reproducible
        return draw < self._rate(length)

    def _rate(self, length: int) -> float:
        if self.kind == "forgets":
            return 0.97 / (1 + (length / self.truth) ** 6 * 0.18)
        if self.kind == "lapses":
            return 0.9 if length <= self.truth else 0.1
        rng = Random(f"{self.seed} {length}")  # noqa: S311 - reproducible
        return rng.choice((0.0, 0.3, 0.6, 0.8, 0.85, 0.9, 1.0))


class Search:
    """Drives a strategy against an answer function, and holds it to its promises."""

    def __init__(self, strategy: SearchStrategy, problem: SearchProblem, answer: Answer) -> None:
        self.strategy = strategy
        self.problem = problem
        self.answer = answer
        self.known: dict[int, Observation] = {}
        self.prefixes: list[dict[int, Observation]] = []

    @property
    def history(self) -> Sequence[Observation]:
        """What is known, in ascending order of length."""
        return [self.known[n] for n in sorted(self.known)]

    def verdicts(self) -> Mapping[int, Verdict]:
        """What the rule says of every length known."""
        rule, baseline = self.problem.rule, self.problem.baseline
        return {n: rule.verdict(o, baseline) for n, o in self.known.items()}

    def run(self) -> Done:
        """To the end, checking each step."""
        for _ in range(MOST_STEPS):
            self.prefixes.append(dict(self.known))
            step = self.strategy.next_step(self.problem, self.history)
            if isinstance(step, Done):
                return step
            self._check(step)
            before, bracket = self.verdicts(), self.strategy.bracket(self.problem, self.history)
            self.ask(step.length_tokens, step.trials)
            self._check_bracket(before, bracket)
        pytest.fail(f"no end after {MOST_STEPS} steps: {self.history}")

    def ask(self, length: int, trials: int) -> None:
        """Put `trials` more questions at `length`."""
        for _ in range(trials):
            old = self.known.get(length, Observation(length_tokens=length))
            answer = self.answer(length, old.trials)
            if answer is None:
                self.known[length] = attrs.evolve(old, failure=Cause.CRASHED_ON_FILL)
                return
            self.known[length] = attrs.evolve(
                old, trials=old.trials + 1, passes=old.passes + int(answer)
            )

    def _check(self, step: Ask) -> None:
        problem, length = self.problem, step.length_tokens
        assert step.trials > 0
        assert problem.floor <= length <= problem.ceiling
        assert length == problem.ceiling or length % problem.granularity == 0
        known = self.known.get(length)
        if known is None:
            assert step.trials <= problem.rule.most
            return
        assert known.failure is None, "nothing more is to be learnt where the engine failed"
        open_still = problem.rule.verdict(known, problem.baseline) is Verdict.UNDECIDED
        wanted = problem.rule.most if open_still else problem.rule.full
        assert known.trials + step.trials <= wanted

    def _check_bracket(self, before: Mapping[int, Verdict], old: tuple[int, int | None]) -> None:
        after = self.verdicts()
        settled = {n: v for n, v in before.items() if v is not Verdict.UNDECIDED}
        if any(after[n] is not verdict for n, verdict in settled.items()):
            return
        low, high = self.strategy.bracket(self.problem, self.history)
        assert low >= old[0]
        assert old[1] is None or (high is not None and high <= old[1])


@st.composite
def _problems(draw: st.DrawFn) -> SearchProblem:
    floor = draw(st.integers(128, 2048))
    trials = draw(st.sampled_from([10, 20]))
    return SearchProblem(
        floor=floor,
        ceiling=draw(st.one_of(st.integers(floor, floor + 600), st.integers(floor, 200_000))),
        baseline=Baseline(
            passes=draw(st.integers(trials // 2, trials)), trials=trials, length_tokens=floor
        ),
        rule=PassRule(),
        tolerance=draw(st.sampled_from([0.0, 1 / 256, 1 / 64, 1 / 8])),
        granularity=draw(st.sampled_from([64, 256])),
    )


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
    )
    return problem, answers


@st.composite
def _cliffs(draw: st.DrawFn) -> tuple[SearchProblem, Answers]:
    problem = draw(_problems())
    truth = draw(_truths(problem))
    dead_above = truth if draw(st.booleans()) else None
    return problem, Answers(kind="cliff", truth=truth, dead_above=dead_above)


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
        no trials that nobody needs, and a bracket that only shrinks (`Search` checks each step).
        """
        search = Search(strategy, *case)
        done = search.run()
        verdicts = search.verdicts()
        assert (done.low, done.high) == strategy.bracket(search.problem, search.history)
        assert done.low == search.problem.floor or verdicts[done.low] is Verdict.PASS
        assert done.high is None or verdicts[done.high] is Verdict.FAIL
        assert done.high is None or done.low < done.high

    @_PROPERTY
    @given(case=_cases())
    def test_the_interval_is_sensible(
        self, strategy: SearchStrategy, case: tuple[SearchProblem, Answers]
    ) -> None:
        """Inside [floor, ceiling], in order, and there also before the search is done."""
        problem = case[0]
        search = Search(strategy, *case)
        done = search.run()
        prefix = search.prefixes[len(search.prefixes) // 2]
        halfway = strategy.interval(problem, list(prefix.values()))
        for interval in (strategy.interval(problem, []), halfway, done.interval):
            assert 0 < interval.level < 1
            assert problem.floor <= interval.low <= problem.ceiling
            assert interval.high is None or interval.low <= interval.high <= problem.ceiling

    @_PROPERTY
    @given(case=_cliffs())
    def test_a_cliff_is_found(
        self, strategy: SearchStrategy, case: tuple[SearchProblem, Answers]
    ) -> None:
        """The bracket holds it and is as narrow as was asked for, or nothing failed."""
        problem, answers = case
        done = Search(strategy, problem, answers).run()
        assert done.low <= answers.truth
        if done.high is None:
            assert done.low == problem.ceiling
        else:
            assert answers.truth < done.high
            assert problem.is_tight(done.low, done.high)

    @_PROPERTY
    @given(case=_cases(), order=st.randoms(use_true_random=False))
    def test_the_order_of_the_history_does_not_matter(
        self, strategy: SearchStrategy, case: tuple[SearchProblem, Answers], order: Random
    ) -> None:
        """The same facts give the same step."""
        search = Search(strategy, *case)
        search.run()
        for known in (*search.prefixes[-1:], *order.sample(search.prefixes, 1)):
            shuffled = list(known.values())
            order.shuffle(shuffled)
            ascending = [known[n] for n in sorted(known)]
            expected = strategy.next_step(search.problem, ascending)
            assert strategy.next_step(search.problem, shuffled) == expected

    @_PROPERTY
    @given(case=_cases(), order=st.randoms(use_true_random=False))
    def test_it_goes_on_from_any_step(
        self, strategy: SearchStrategy, case: tuple[SearchProblem, Answers], order: Random
    ) -> None:
        """A search that was interrupted between two steps ends like one that was not."""
        search = Search(strategy, *case)
        done = search.run()
        resumed = Search(strategy, *case)
        resumed.known = dict(order.choice(search.prefixes))
        assert resumed.run() == done

    @_PROPERTY
    @given(case=_cliffs(), order=st.randoms(use_true_random=False))
    def test_it_goes_on_from_any_trial(
        self, strategy: SearchStrategy, case: tuple[SearchProblem, Answers], order: Random
    ) -> None:
        """Also within a step: a cliff is found where it was."""
        search = Search(strategy, *case)
        done = search.run()
        resumed = Search(strategy, *case)
        resumed.known = dict(order.choice(search.prefixes))
        step = strategy.next_step(search.problem, resumed.history)
        if isinstance(step, Ask):
            resumed.ask(step.length_tokens, order.randrange(step.trials))
        assert resumed.run() == done
