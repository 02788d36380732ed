"""What every search strategy must do, as a pytest suite.

::

class TestMyStrategy(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return MyStrategy()

A function stands in for the model: from length, trial number and region to pass or fail. `Answers`
has cliffs, also in one region only, slow forgetting, lengths that pass and fail at random, and
engines that crash. `Search` drives a strategy against it. No event loop is needed.
"""
# ruff: noqa: S101 - a test suite asserts, also if it is shipped

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lmstrix.models import Baseline, Cause, DepthTally, Observation, Region, Verdict
from lmstrix.ports import SearchStrategy
from lmstrix.problem import Ask, CostModel, Done, PassRule, Reuse, SearchProblem, spread

Answer = Callable[[int, int, Region | None], bool | None]
"""From a length, the number of the trial in its region there and the region (None: the questions
are about no one place): pass, fail, or None for a dead engine."""

MOST_STEPS = 1000
"""Far more than any search needs: 3 steps in each region at the lengths that a bisection touches.
"""


@attrs.frozen(kw_only=True)
class Answers:
    """A stand-in for a model: the same trial always has the same answer."""

    kind: str
    truth: int
    seed: int = 0
    dead_above: int | None = None
    """The engine crashes at longer lengths; None: never."""
    region: Region | None = None
    """The only region in which anything is lost; None: it is lost everywhere."""

    def __call__(self, length: int, index: int, region: Region | None = None) -> bool | None:
        """Pass, fail, or None if the engine dies."""
        if self.dead_above is not None and length > self.dead_above:
            return None
        if self.region is not None and region is not self.region:
            length = min(length, self.truth // 4)
        if self.kind == "cliff":
            return length <= self.truth
        draw = Random(f"{self.seed} {length} {index} {region}").random()  # noqa: S311 - reproducible
        return draw < self._rate(length)

    def _rate(self, length: int) -> float:
        if self.kind == "forgets":
            return 0.97 / (1 + (length / self.truth) ** 6 * 0.18)
        if self.kind == "lapses":
            return 0.9 if length <= self.truth else 0.1
        rng = Random(f"{self.seed} {length}")  # noqa: S311 - reproducible
        return rng.choice((0.0, 0.3, 0.6, 0.8, 0.85, 0.9, 1.0))


class Search:
    """Drives a strategy against an answer function, and holds it to its promises.

    It charges every step to the budget and tells the strategy what is in the cache, as a
    measurement does.
    """

    def __init__(self, strategy: SearchStrategy, problem: SearchProblem, answer: Answer) -> None:
        self.strategy = strategy
        self.problem = problem
        self.answer = answer
        self.known: dict[int, Observation] = {}
        self.before: list[tuple[SearchProblem, dict[int, Observation]]] = []
        """Problem and knowledge before each step."""

    @property
    def history(self) -> Sequence[Observation]:
        """What is known, in ascending order of length."""
        return [self.known[n] for n in sorted(self.known)]

    def verdicts(self) -> Mapping[int, Verdict]:
        """What the rule says of every length known."""
        rule, baseline = self.problem.rule, self.problem.baseline
        return {n: rule.verdict(o, baseline) for n, o in self.known.items()}

    def resumed(self, step: int) -> Search:
        """The same search, interrupted before its step number `step`."""
        search = Search(self.strategy, self.before[step][0], self.answer)
        search.known = dict(self.before[step][1])
        return search

    def run(self) -> Done:
        """To the end, checking each step."""
        for _ in range(MOST_STEPS):
            self.before.append((self.problem, dict(self.known)))
            step = self.strategy.next_step(self.problem, self.history)
            if isinstance(step, Done):
                return step
            self._check(step)
            before, bracket = self.verdicts(), self.strategy.bracket(self.problem, self.history)
            self.ask(step)
            self._check_bracket(before, bracket)
        pytest.fail(f"no end after {MOST_STEPS} steps: {self.history}")

    def ask(self, step: Ask, trials: int | None = None) -> None:
        """Put the questions of `step`, or only the first `trials` of them."""
        length, count = step.length_tokens, step.trials if trials is None else trials
        self._charge(length, count)
        for region in self._regions(step)[:count]:
            old = self.known.get(length, Observation(length_tokens=length))
            tallies = {t.region: t for t in old.regions}
            index = old.trials if region is None else _trials_in(old, region)
            answer = self.answer(length, index, region)
            if answer is None:
                self.known[length] = attrs.evolve(old, failure=Cause.CRASHED_ON_FILL)
                return
            if region is not None:
                before = tallies.get(region, DepthTally(region=region, passes=0, trials=0))
                tallies[region] = attrs.evolve(
                    before, passes=before.passes + int(answer), trials=before.trials + 1
                )
            self.known[length] = attrs.evolve(
                old,
                trials=old.trials + 1,
                passes=old.passes + int(answer),
                regions=tuple(tallies[r] for r in Region if r in tallies),
            )

    def _regions(self, step: Ask) -> Sequence[Region | None]:
        if step.region is not None:
            return [step.region] * step.trials
        regions = self.problem.rule.regions
        return spread(regions, self.history, step.length_tokens, step.trials)

    def _charge(self, length: int, trials: int) -> None:
        """Take the step's expected cost off what remains, which must suffice."""
        costs, cached = self.problem.costs, self.problem.cached_tokens
        ends = (n for n in (*self.known, self.problem.floor) if n <= min(length, cached))
        at = max(ends, default=0)
        tokens = costs.tokens(length, cached=cached, trials=trials, checkpoint=at)
        seconds = costs.seconds(length, cached=cached, trials=trials, checkpoint=at) or 0.0
        changes: dict[str, object] = {"cached_tokens": length}
        if self.problem.remaining_tokens is not None:
            assert tokens <= self.problem.remaining_tokens + 1, "beyond the token budget"
            changes["remaining_tokens"] = max(0, int(self.problem.remaining_tokens - tokens))
        if self.problem.remaining_s is not None:
            assert seconds <= self.problem.remaining_s, "beyond the time budget"
            changes["remaining_s"] = self.problem.remaining_s - seconds
        self.problem = attrs.evolve(self.problem, **changes)

    def _check(self, step: Ask) -> None:
        problem, length = self.problem, step.length_tokens
        assert step.trials > 0
        assert problem.floor <= length <= problem.ceiling
        assert length == problem.ceiling or length % problem.granularity == 0
        known = self.known.get(length, Observation(length_tokens=length))
        assert known.failure is None, "nothing more is to be learnt where the engine failed"
        assert step.region is None or step.region in problem.rule.regions
        # Several questions in one request fill it up.
        most = problem.rule.most + problem.costs.facts - 1
        if not problem.rule.regions:
            assert known.trials + step.trials <= most
        for region in {r for r in self._regions(step) if r is not None}:
            asked = sum(1 for r in self._regions(step) if r is region)
            assert _trials_in(known, region) + asked <= most

    def _check_bracket(self, before: Mapping[int, Verdict], old: tuple[int, int | None]) -> None:
        after = self.verdicts()
        settled = {n: v for n, v in before.items() if v is not Verdict.UNDECIDED}
        if any(after[n] is not verdict for n, verdict in settled.items()):
            return
        low, high = self.strategy.bracket(self.problem, self.history)
        assert low >= old[0]
        assert old[1] is None or (high is not None and high <= old[1])


def _trials_in(seen: Observation, region: Region) -> int:
    return next((t.trials for t in seen.regions if t.region is region), 0)


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
