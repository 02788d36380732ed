"""What is known so far: trials, failures, cost. No I/O, no engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import attrs

from lmstrix.models import (
    Baseline,
    Cause,
    Cost,
    Judgement,
    Observation,
    Reply,
    StoredMeasurement,
    Trial,
)

__all__ = ["BASELINE", "CERTIFY", "MAIN", "SEARCH", "Ledger"]

BASELINE, SEARCH, CERTIFY = "baseline", "search", "certify"
MAIN = ""
"""The level of the measurement's own validator."""


def _tally(trials: Iterable[Trial]) -> tuple[int, int, int]:
    """Passes, counted trials, inconclusive ones."""
    judged = Counter(trial.judgement for trial in trials)
    inconclusive = judged.pop(Judgement.INCONCLUSIVE, 0)
    return judged[Judgement.PASS], judged.total(), inconclusive


def _at_least(cost: Cost, trials: Sequence[Trial]) -> Cost:
    """`cost` with what `trials` cost, where it is less: who is killed saves no cost."""
    cached = sum(t.cached_tokens or 0 for t in trials)
    return attrs.evolve(
        cost,
        prompt_tokens=max(cost.prompt_tokens, sum(t.prompt_tokens for t in trials) - cached),
        cached_tokens=max(cost.cached_tokens, cached),
        generated_tokens=max(cost.generated_tokens, sum(t.generated_tokens for t in trials)),
    )


class Ledger:
    """The facts of one measurement; everything else is derived from them."""

    def __init__(self, stored: StoredMeasurement) -> None:
        self.trials: list[Trial] = list(stored.trials)
        self.failures: dict[int, Cause] = {
            f.length_tokens: f.failure for f in stored.failures if f.failure is not None
        }
        self.cost = _at_least(stored.cost, self.trials)
        self.resumed = self._at_load = len(stored.trials)
        self.deaths = stored.deaths
        """Sizes, in tokens, during whose load an earlier run died."""
        self.loaded_before = max((t.length_tokens for t in stored.trials), default=None)
        """A size, in tokens, that an earlier run has loaded; None if none is known."""
        self.reach: int | None = None
        """The longest length that counts, in tokens: what this run has loaded. An interrupted run
        may have loaded more; what it found out above says nothing about now. None: any does."""

    def add_trial(self, trial: Trial) -> None:
        """One more question asked."""
        self.trials.append(trial)

    def add_failure(self, length_tokens: int, cause: Cause) -> None:
        """The engine failed at this length, or its certificate did not hold."""
        self.failures[length_tokens] = cause

    def add_load(self) -> None:
        """One more load tried, whose cache is empty."""
        self._at_load = len(self.trials)
        self.cost = attrs.evolve(self.cost, loads=self.cost.loads + 1)

    def add_reply(self, reply: Reply) -> None:
        """What one reply cost, by the engine's own numbers."""
        cached = reply.cached_tokens or 0
        self.cost = attrs.evolve(
            self.cost,
            prompt_tokens=self.cost.prompt_tokens + reply.prompt_tokens - cached,
            cached_tokens=self.cost.cached_tokens + cached,
            generated_tokens=self.cost.generated_tokens + reply.generated_tokens,
        )

    def with_seconds(self, seconds: float) -> Cost:
        """The cost with the time that this run added."""
        return attrs.evolve(self.cost, seconds=self.cost.seconds + seconds)

    def of(self, level: str = MAIN) -> Iterator[Trial]:
        """The trials of one level."""
        return (t for t in self.trials if t.level == level)

    def asked(self, phase: str, length_tokens: int, seed: int, level: str = MAIN) -> int:
        """How many questions of this document were asked at this length in this phase."""
        wanted = (phase, length_tokens, seed)
        return sum((t.phase, t.length_tokens, t.seed) == wanted for t in self.of(level))

    def baseline(self, length_tokens: int, level: str = MAIN) -> Baseline:
        """The model's own rate at short length."""
        passes, trials, _ = _tally(t for t in self.of(level) if t.phase == BASELINE)
        return Baseline(passes=passes, trials=trials, length_tokens=length_tokens)

    def baseline_replies(self, level: str, kind: str) -> Sequence[str]:
        """What the model wrote at short length to one kind of question, in their order."""
        asked = (t for t in self.of(level) if t.phase == BASELINE and t.kind == kind)
        return [t.reply for t in sorted(asked, key=lambda t: t.index)]

    def inconclusive(self, phase: str) -> int:
        """Replies of a phase that could be judged neither way."""
        return _tally(t for t in self.of() if t.phase == phase)[2]

    def at(self, length_tokens: int, level: str = MAIN) -> tuple[Trial, ...]:
        """All trials at a length but the baseline's."""
        return tuple(
            t for t in self.of(level) if t.phase != BASELINE and t.length_tokens == length_tokens
        )

    def observation(self, length_tokens: int, level: str = MAIN) -> Observation:
        """All that is known at one length."""
        return self._observe(length_tokens, self.at(length_tokens, level), level)

    def cached(self, seed: int) -> int:
        """The length whose document an engine that reuses prefixes has now, if it is that of
        `seed`; 0 where the last question was asked on another, or before the last load.
        """
        last = self.trials[-1] if len(self.trials) > self._at_load else None
        return last.length_tokens if last is not None and last.seed == seed else 0

    def longest(self) -> int:
        """The longest prompt within reach that was answered, in tokens of its length; 0: none."""
        return max(self._within({t.length_tokens for t in self.trials}), default=0)

    def certificate(self, length_tokens: int, seed: int) -> Observation:
        """Only what one certificate's questions said."""
        return self._observe(
            length_tokens,
            (t for t in self.at(length_tokens) if t.phase == CERTIFY and t.seed == seed),
            MAIN,
        )

    def settled_certificates(self) -> int:
        """How many certificates are settled, as seen by a measurement that goes on.

        A broken certificate's document is the one that the search went on in, so each seed
        that was asked in both phases stands for one.
        """
        return len(self._seeds(CERTIFY) & self._seeds(SEARCH))

    def _seeds(self, phase: str) -> set[int]:
        return {t.seed for t in self.of() if t.phase == phase}

    def history(self, level: str = MAIN) -> Sequence[Observation]:
        """Every length tried within reach, in ascending order."""
        lengths = {t.length_tokens for t in self.of(level) if t.phase != BASELINE}
        if level == MAIN:
            lengths |= set(self.failures)
        return [self.observation(n, level) for n in sorted(self._within(lengths))]

    def evidence(self) -> Sequence[Observation]:
        """The history that a strategy goes by: a length where no reply could be judged is none."""
        return [o for o in self.history() if o.trials or o.failure is not None]

    def beyond(self) -> set[int]:
        """Lengths out of reach that were tried."""
        tried = {t.length_tokens for t in self.trials} | set(self.failures)
        return tried - self._within(tried)

    def _within(self, lengths: set[int]) -> set[int]:
        return {n for n in lengths if self.reach is None or n <= self.reach}

    def _observe(self, length_tokens: int, trials: Iterable[Trial], level: str) -> Observation:
        passes, counted, inconclusive = _tally(trials)
        return Observation(
            length_tokens=length_tokens,
            passes=passes,
            trials=counted,
            inconclusive=inconclusive,
            failure=self.failures.get(length_tokens) if level == MAIN else None,
        )
