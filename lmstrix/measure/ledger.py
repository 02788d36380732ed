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


class Ledger:
    """The facts of one measurement; everything else is derived from them."""

    def __init__(self, stored: StoredMeasurement) -> None:
        self.trials: list[Trial] = list(stored.trials)
        self.failures: dict[int, Cause] = {
            f.length_tokens: f.failure for f in stored.failures if f.failure is not None
        }
        self.cost = stored.cost
        self.resumed = len(stored.trials)
        self.deadly = stored.trying
        """A load during which an earlier run died, in tokens; None: none did."""

    def add_trial(self, trial: Trial) -> None:
        """One more question asked."""
        self.trials.append(trial)

    def add_failure(self, length_tokens: int, cause: Cause) -> None:
        """The engine failed at this length, or its certificate did not hold."""
        self.failures[length_tokens] = cause

    def add_load(self) -> None:
        """One more load tried."""
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

    def baseline_replies(self, level: str) -> Sequence[str]:
        """What the model wrote at short length, in the order of the questions."""
        asked = (t for t in self.of(level) if t.phase == BASELINE)
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
        `seed`; 0 where the last question was asked on another.
        """
        last = self.trials[-1] if self.trials else None
        return last.length_tokens if last is not None and last.seed == seed else 0

    def longest(self) -> int:
        """The longest prompt that was answered, in tokens of its length; 0 for none."""
        return max((t.length_tokens for t in self.trials), default=0)

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
        """Every length tried, in ascending order."""
        lengths = {t.length_tokens for t in self.of(level) if t.phase != BASELINE}
        if level == MAIN:
            lengths |= set(self.failures)
        return [self.observation(n, level) for n in sorted(lengths)]

    def _observe(self, length_tokens: int, trials: Iterable[Trial], level: str) -> Observation:
        passes, counted, inconclusive = _tally(trials)
        return Observation(
            length_tokens=length_tokens,
            passes=passes,
            trials=counted,
            inconclusive=inconclusive,
            failure=self.failures.get(length_tokens) if level == MAIN else None,
        )
