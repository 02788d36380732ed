"""Simulated engines and models for `search.py`: who answers what, and what each question costs.

Nothing here is run on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from random import Random

import attrs

from lmstrix.problem import CostModel
from lmstrix.models import Baseline, Observation
from lmstrix.ports import SearchStrategy
from lmstrix.problem import Done, PassRule, SearchProblem

FLOOR = 512
DECLARED = 131_072
SHORTEST = 1024
"""True limits are log-uniform from here to what is declared."""

LAPSE = 0.04
RATIO = 0.85
BASELINE_TRIALS = 12
SLOPES = {"cliff": 200.0, "soft": 12.0, "gradual": 4.0}
"""Slopes of the logistic curve in log length."""

ONE = PassRule(first=1, full=1, most=1)
"""One answer settles a length."""


def limits(count: int, seed: int) -> list[float]:
    """Log-uniform, one in each of `count` equal parts, so that few of them show the mean."""
    rng = Random(seed)
    ratio = DECLARED / SHORTEST
    return [SHORTEST * ratio ** ((i + rng.random()) / count) for i in range(count)]


@attrs.frozen(kw_only=True)
class Model:
    """A model with a known limit; without a slope it never errs below it."""

    limit: float
    slope: float | None = None
    seed: int = 0

    def passes(self, length: int, index: int) -> bool:
        """Whether question number `index` at `length` is answered right."""
        if self.slope is None:
            return length <= self.limit
        draw = Random(f"{self.seed} {length} {index}").random()
        return draw < (1 - LAPSE) * self._recall(length, self._middle())

    def _recall(self, length: float, middle: float) -> float:
        slope = self.slope or 0.0
        return 1 / (1 + exp(min(60.0, slope * log(length / middle))))

    def _middle(self) -> float:
        """Where half is recalled, such that `RATIO` of the baseline's rate is left at the limit."""
        low, middle, high = self.limit / 4, self.limit, self.limit * 16
        for _ in range(50):
            middle = (low * high) ** 0.5
            wanted = RATIO * self._recall(FLOOR, middle)
            if self._recall(self.limit, middle) < wanted:
                low = middle
            else:
                high = middle
        return middle

    def baseline(self) -> Baseline:
        """Its answers at the floor."""
        passed = sum(self.passes(FLOOR, -1 - i) for i in range(BASELINE_TRIALS))
        return Baseline(passes=passed, trials=BASELINE_TRIALS, length_tokens=FLOOR)


@attrs.frozen(kw_only=True)
class Outcome:
    """One search: what it said, and what it cost. Tokens are shares of the true limit."""

    limit: float
    done: Done
    prompt: float
    cost: float
    """Prompt tokens with the quadratic part of attention."""
    generated: float
    questions: int
    probes: int

    @property
    def error(self) -> float:
        """|ln| of the estimate over the limit; with none, of the bracket's middle."""
        done = self.done
        return abs(log((done.estimate or (done.low * (done.high or DECLARED)) ** 0.5) / self.limit))

    @property
    def low_error(self) -> float:
        """|ln| of the lower end of the bracket over the limit."""
        return abs(log(self.done.low / self.limit))

    @property
    def covered(self) -> bool:
        """Whether the 90 % interval holds the limit."""
        interval = self.done.interval
        return interval.low <= self.limit <= (interval.high or DECLARED)


def search(strategy: SearchStrategy, model: Model, problem: SearchProblem) -> Outcome:
    """Run `strategy` to its end, with the floor's document in the cache, as after a baseline."""
    known: dict[int, Observation] = {}
    costs = problem.costs
    prompt = cost = 0.0
    questions = probes = 0
    cached = FLOOR
    while True:
        problem = attrs.evolve(problem, cached_tokens=cached)
        step = strategy.next_step(problem, [known[n] for n in sorted(known)])
        if isinstance(step, Done):
            break
        length, asked = step.length_tokens, step.trials
        at = max((n for n in (FLOOR, *known) if n <= min(length, cached)), default=0)
        prompt += costs.prompt_tokens(length, cached=cached, trials=asked, checkpoint=at)
        cost += costs.cost(length, cached=cached, trials=asked, checkpoint=at)
        seen = known.get(length, Observation(length_tokens=length))
        passed = sum(model.passes(length, seen.trials + i) for i in range(asked))
        known[length] = attrs.evolve(seen, trials=seen.trials + asked, passes=seen.passes + passed)
        cached, questions, probes = length, questions + asked, probes + 1
    return Outcome(
        limit=model.limit,
        done=step,
        prompt=prompt / model.limit,
        cost=cost / model.limit,
        generated=questions * costs.generated_tokens / model.limit,
        questions=questions,
        probes=probes,
    )


def problem_for(
    model: Model,
    costs: CostModel,
    *,
    rule: PassRule,
    tolerance: float,
    granularity: int,
) -> SearchProblem:
    """The problem that a measurement of `model` would set."""
    return SearchProblem(
        floor=FLOOR,
        ceiling=DECLARED,
        baseline=model.baseline(),
        rule=rule,
        tolerance=tolerance,
        granularity=granularity,
        costs=costs,
    )


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean."""
    return sum(values) / len(values)


def quantile(values: Sequence[float], level: float) -> float:
    """The smallest value that `level` of all do not exceed."""
    ascending = sorted(values)
    return ascending[min(len(ascending) - 1, int(level * len(ascending)))]
