"""What a search strategy solves: when a length passes, what is wanted, and the steps to it."""

from __future__ import annotations

import attrs

from lmstrix.costs import CostModel
from lmstrix.models import Baseline, Interval, Observation, Region, Verdict
from lmstrix.stats import binomial_tail

__all__ = ["Ask", "Done", "PassRule", "SearchProblem"]


REFUTED = 0.1
MUTE = 4
"""Replies that say nothing for each one that can be judged, from which asking on is no use."""


@attrs.frozen(kw_only=True)
class PassRule:
    """When the answers at one length count as a pass, relative to the model's own baseline.

    A length passes when its pass rate is at least `ratio` of the baseline's. Evidence comes
    in stages: after `first` trials a length passes if all of them did, after `full` ones if
    their rate does, and `most` trials end it. At any stage it fails where so few passes are
    unlikely at a passing rate (see `refutes`). With the default ratio .85 and a perfect
    baseline that is: pass at 4 of 4, 9 of 10, 17 of 20; fail at 1 of 4, 6 of 10, 16 of 20;
    in between, ask on. So one lapse in ten decides nothing.
    """

    ratio: float = 0.85
    absolute: bool = False
    """Whether `ratio` is the pass rate itself, instead of a part of the baseline's."""
    first: int = 4
    full: int = 10
    most: int = 20

    def threshold(self, baseline: Baseline) -> float:
        """Smallest pass rate that still counts as a pass."""
        return self.ratio if self.absolute else self.ratio * baseline.rate

    def verdict(self, observation: Observation, baseline: Baseline) -> Verdict:
        """Pass, fail, or undecided while more trials could still change it."""
        if observation.failure is not None:
            return Verdict.FAIL
        passes, trials = observation.passes, observation.trials
        if trials < self.first:
            return Verdict.UNDECIDED
        if trials >= self.most:
            return Verdict.PASS if self._passes(observation, baseline) else Verdict.FAIL
        if self.refutes(observation, baseline):
            return Verdict.FAIL
        agreed = passes == trials if trials < self.full else self._passes(observation, baseline)
        return Verdict.PASS if agreed else Verdict.UNDECIDED

    def _passes(self, observation: Observation, baseline: Baseline) -> bool:
        return observation.passes >= self.threshold(baseline) * observation.trials

    def refutes(self, observation: Observation, baseline: Baseline) -> bool:
        """Whether so few passes would be seen less than one time in ten at a passing rate.

        One-sided exact binomial test of the threshold, at 10 %.
        """
        return observation.failure is not None or self.tail(observation, baseline) < REFUTED

    def tail(self, observation: Observation, baseline: Baseline) -> float:
        """Probability of so few passes, or fewer, at a rate that just passes."""
        rate = min(1.0, self.threshold(baseline))
        return binomial_tail(observation.passes, observation.trials, rate)

    def is_mute(self, observation: Observation) -> bool:
        """Whether so few replies can be judged that further questions are no use."""
        return observation.inconclusive >= self.full + MUTE * observation.trials

    def wanted(self, observation: Observation) -> int:
        """How many further trials reach the next stage."""
        stages = (self.first, self.full, self.most)
        return next((s - observation.trials for s in stages if observation.trials < s), 0)


@attrs.frozen(kw_only=True)
class SearchProblem:
    """What a strategy has to solve. All lengths are tokens.

    `floor` is known to work (the baseline's length); `ceiling` is the largest length that
    may be tried. The answer is wanted to within ``max(granularity, tolerance * answer)``.
    """

    floor: int
    ceiling: int
    baseline: Baseline
    rule: PassRule
    tolerance: float = 1 / 64
    granularity: int = 256
    costs: CostModel = attrs.field(factory=CostModel)
    """What a probe costs, as far as that is known."""
    cached_tokens: int = 0
    """Length of the prompt whose document is in the engine's cache now; 0: none."""
    remaining_tokens: int | None = None
    """Tokens, read or generated, that the search may still spend; None: no limit."""
    remaining_s: float | None = None
    """Seconds that it may still take; None: no limit."""

    def is_tight(self, low: int, high: int) -> bool:
        """Whether [low, high] is as narrow as was asked for."""
        return high - low <= max(self.granularity, self.tolerance * low)

    def affordable(self, length: int, trials: int, *, checkpoint: int = 0) -> int:
        """How many of `trials` questions at `length` what remains is expected to pay for."""
        fewer = range(trials, 0, -1)
        return next((n for n in fewer if self._can_pay(length, n, checkpoint)), 0)

    def _can_pay(self, length: int, trials: int, checkpoint: int) -> bool:
        costs, cached = self.costs, self.cached_tokens
        tokens = costs.tokens(length, cached=cached, trials=trials, checkpoint=checkpoint)
        if self.remaining_tokens is not None and tokens > self.remaining_tokens:
            return False
        if self.remaining_s is None:
            return True
        seconds = costs.seconds(length, cached=cached, trials=trials, checkpoint=checkpoint)
        return seconds is None or seconds <= self.remaining_s


@attrs.frozen(kw_only=True)
class Ask:
    """A strategy wants `trials` more questions at `length_tokens`.

    With a `region` all of them are about that part of the window; without one they go to the
    regions in turn, to those with the fewest trials first.
    """

    length_tokens: int
    trials: int
    region: Region | None = None


@attrs.frozen(kw_only=True)
class Done:
    """A strategy has its answer: `low` works, `high` does not (None: nothing failed).

    `low` and `high` are what the tallies show. `estimate` is the best single guess of the
    threshold where a strategy makes one: with noisy answers the two may differ, and the
    estimate is nearer.
    """

    low: int
    high: int | None
    interval: Interval
    estimate: int | None = None
