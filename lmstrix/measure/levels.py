"""The limits of the other levels, from what the main search has read already.

A level costs its questions, not another climb: it is asked at both ends of the main bracket and
at the longest prompt that was read, and then between a length that passed and one that failed.
Nothing longer is read for it, so a level that nothing contradicts is *at least* that long.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import attrs

from lmstrix.measure.announcing import Announcer
from lmstrix.measure.asking import Asker
from lmstrix.measure.budget import Budget, BudgetSpent
from lmstrix.measure.findings import Findings, limit_of
from lmstrix.measure.ledger import BASELINE, SEARCH, Ledger
from lmstrix.measure.level import LEVEL_RULE, Level
from lmstrix.models import Verdict
from lmstrix.problem import SearchProblem

__all__ = ["LevelSearch", "level_bracket"]

BASELINE_TRIALS = 4
LOWEST_BASELINE = 0.5
"""The same as for the main number: less is not measurable by this validator."""

LEVELS = "levels"
"""The phase in which levels are asked for, as events name it."""

LEVEL_TOLERANCE = 1 / 16
"""A level's limit is told less finely than the main number: each step costs a reply or two."""


@attrs.frozen(kw_only=True)
class LevelSearch:
    """Finds each level's limit within what was read. Goes on from what the ledger holds.

    What asks raises `BudgetSpent` where the next question is not expected to fit.
    """

    findings: Findings
    ledger: Ledger
    budget: Budget
    asker: Asker
    announcer: Announcer

    async def baselines(self, main: SearchProblem, document: int) -> None:
        """What the model can do at short length, level by level."""
        for level in self.findings.levels:
            length, key = level.validator.baseline_length, level.key
            if length > main.ceiling:
                self.announcer.note(
                    f"{key}: its shortest questions need {length} tokens, of {main.ceiling}"
                )
                continue
            missing = BASELINE_TRIALS - self.ledger.asked(BASELINE, length, document, key)
            missing = max(0, missing)
            fitting = self.budget.within(main, document, length, missing)
            await self.asker.ask(level, BASELINE, length, document, fitting)
            if fitting < missing:
                raise BudgetSpent
            baseline = self.ledger.baseline(length, key)
            if baseline.trials * 2 >= BASELINE_TRIALS and baseline.rate >= LOWEST_BASELINE:
                self.findings.level_problems[key] = self._problem(level)
            else:
                self.announcer.note(
                    f"{key}: at {length} tokens it passes {baseline.passes} of {baseline.trials}, "
                    "so nothing can be said about longer prompts"
                )

    async def measure(self, main: SearchProblem, document: int) -> bool:
        """Find the limits. False where that moved the main bracket: where a required level, or
        the engine, fails at or below its lower end. The main search then has to go on.
        """
        before = self._main_bracket(main)
        if self._problems:
            self.announcer.phase(LEVELS)
        levels = [v for v in self.findings.levels if v.key in self._problems]
        await self._climb(levels, main, document)
        # The one that reaches farthest first: stepping back in the cache costs nothing.
        for level in sorted(levels, key=self._limit, reverse=True):
            if self.findings.options.only_at is None:
                await self._close_in(level, document)
            await self._tell(level, main)
        return self._main_bracket(main) == before

    def bracket(self, level: Level) -> tuple[int, int | None]:
        """The largest length at which it passed, and the smallest at which it failed."""
        return level_bracket(self.ledger, self.findings.level_problems[level.key], level)

    async def _climb(self, levels: Sequence[Level], main: SearchProblem, document: int) -> None:
        """All levels at both ends of the main bracket and at the longest length, upwards: what
        is in the cache already is extended, not read again.
        """
        low, high = self._main_bracket(main)
        longest = max(low, high or 0, self.ledger.longest())
        climbing = list(levels)
        for length in sorted({low, high or low, longest}):
            if length in self.ledger.failures and length != low:
                return  # the engine itself fails there
            for level in tuple(climbing):
                if length < self._problems[level.key].floor:
                    continue  # its baseline's questions are longer, and the model can do those
                if await self._settle(level, length, document) is not Verdict.PASS:
                    climbing.remove(level)

    async def _close_in(self, level: Level, document: int) -> None:
        while (length := self._between(level)) is not None:
            if await self._settle(level, length, document) is Verdict.UNDECIDED:
                return

    def _limit(self, level: Level) -> int:
        return self.bracket(level)[0]

    def _between(self, level: Level) -> int | None:
        """A length inside the level's bracket, or None when it is narrow enough."""
        problem = self._problems[level.key]
        low, high = self.bracket(level)
        if high is None or problem.is_tight(low, high):
            return None
        step = problem.granularity
        middle = round(sqrt(low * high) / step) * step
        return middle if low < middle < high else None

    async def _settle(self, level: Level, length: int, document: int) -> Verdict:
        """Ask until the rule has an answer, or no reply can be judged."""
        key, problem = level.key, self._problems[level.key]
        rule = problem.rule
        while True:
            seen = self.ledger.observation(length, key)
            verdict = rule.verdict(seen, problem.baseline)
            if verdict is not Verdict.UNDECIDED:
                return verdict
            wanted = self.budget.within(problem, document, length, rule.wanted(seen))
            self.announcer.probe(key, length, wanted)
            await self.asker.ask(level, SEARCH, length, document, wanted)
            after = self.ledger.observation(length, key)
            self.announcer.probed(
                key, length, (after.passes, after.trials), rule.verdict(after, problem.baseline)
            )
            if after == seen or rule.is_mute(after):  # the same where the engine failed
                self.announcer.note(f"{key}: at {length} tokens hardly a reply could be judged")
                return Verdict.UNDECIDED

    async def _tell(self, level: Level, main: SearchProblem) -> None:
        """Tell the main search of a failure at or below its answer, if the level counts."""
        low, _ = self._main_bracket(main)
        _, fails = self.bracket(level)
        if level.required and fails is not None and fails <= low:
            self.announcer.note(f"{level.key} fails at {fails} already")
            await self.asker.record_failure(fails, limit_of(self.ledger.at(fails, level.key)))

    def _main_bracket(self, main: SearchProblem) -> tuple[int, int | None]:
        return self.findings.strategy.bracket(main, self.ledger.history())

    def _problem(self, level: Level) -> SearchProblem:
        length = level.validator.baseline_length
        return SearchProblem(
            floor=length,
            ceiling=self.asker.context_length,
            baseline=self.ledger.baseline(length, level.key),
            rule=attrs.evolve(
                LEVEL_RULE,
                ratio=self.findings.options.ratio,
                absolute=self.findings.options.absolute,
            ),
            tolerance=max(LEVEL_TOLERANCE, self.findings.options.tolerance),
        )

    @property
    def _problems(self) -> dict[str, SearchProblem]:
        return self.findings.level_problems


def level_bracket(ledger: Ledger, problem: SearchProblem, level: Level) -> tuple[int, int | None]:
    """Largest length that passed below every failure, and the smallest failure."""
    verdicts = {
        o.length_tokens: problem.rule.verdict(o, problem.baseline)
        for o in ledger.history(level.key)
    }
    high = min((n for n, v in verdicts.items() if v is Verdict.FAIL), default=None)
    low = max(
        (n for n, v in verdicts.items() if v is Verdict.PASS and (high is None or n < high)),
        default=problem.floor,
    )
    return low, high
