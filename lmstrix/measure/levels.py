"""The limits of the other levels, from what the main search has read already.

A level costs its questions, not another climb: it is asked at the longest prompt that was read,
where it fails also at both ends of the main bracket, and then between a length that passed and one
that failed. Nothing longer is read for it, so a level that nothing contradicts is *at least* that
long. The regions of the window that have not failed are asked about at the longest prompt, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.measure.state import (
    BASELINE,
    LEVEL_RULE,
    REGIONS,
    SEARCH,
    BudgetSpent,
    Level,
    State,
    limit_of,
)
from lmstrix.measure.trials import Asker
from lmstrix.models import Region, Verdict
from lmstrix.problem import Reuse, SearchProblem, learn_costs, spread

BASELINE_TRIALS = 4
LOWEST_BASELINE = 0.5
"""The same as for the main number: less is not measurable by this validator."""

REGION_TRIALS = 4
"""Questions about a region at the longest prompt, if it has not failed there."""

LEVELS = "levels"
"""The phase in which levels are asked for, as events name it."""

LEVEL_TOLERANCE = 1 / 16
"""A level's limit is told less finely than the main number: each step costs a reply or two."""


class Levels:
    """Finds each level's limit within what was read. Goes on from what the state holds.

    Methods that ask raise `BudgetSpent` if the next question is not expected to fit.
    """

    def __init__(self, state: State, asker: Asker) -> None:
        self._state = state
        self._asker = asker

    async def baselines(self, main: SearchProblem, document: int) -> None:
        """What the model can do at short length, level by level."""
        for level in self._state.levels:
            length, key = level.validator.baseline_length, level.key
            if length > main.ceiling:
                self._state.announcer.note(
                    f"{key} was skipped: it needs {length:,} tokens of {main.ceiling:,}"
                )
                continue
            missing = BASELINE_TRIALS - self._state.asked(BASELINE, length, document, key).total()
            missing = max(0, missing)
            fitting = self._state.fitting(main, document, length, missing)
            try:
                await self._asker.ask(
                    level, BASELINE, length, document, self._spread(level, length, fitting)
                )
            except ConfigurationError as error:  # a chat template may leave too little room
                self._state.announcer.note(
                    f"{key}: at {length:,} tokens nothing can be asked: {error}"
                )
                continue
            if fitting < missing:
                raise BudgetSpent
            baseline = self._state.baseline(length, key)
            if baseline.trials * 2 >= BASELINE_TRIALS and baseline.rate >= LOWEST_BASELINE:
                self._state.level_problems[key] = self._problem(level)
            else:
                self._state.announcer.note(
                    f"{key}: at {length:,} tokens it passes {baseline.passes} of {baseline.trials}"
                    ", so nothing can be said about longer prompts"
                )

    async def measure(self, main: SearchProblem, document: int) -> bool:
        """Find the limits. False if that moved the main bracket: where a required level, or
        the engine, fails at or below its lower end. The main search then has to go on.
        """
        before = self._main_bracket(main)
        self._announce()
        levels = self._measurable()
        await self._descend(levels, main, document)
        # The one that reaches farthest first: stepping back in the cache costs nothing.
        for level in sorted(levels, key=lambda one: self.bracket(one)[0], reverse=True):
            if self._state.options.only_at is None:
                await self._close_in(level, document)
            await self._tell(level, main)
        return self._main_bracket(main) == before

    def bracket(self, level: Level) -> tuple[int, int | None]:
        """The largest length at which it passed, and the smallest at which it failed."""
        return level_bracket(self._state, self._state.level_problems[level.key], level)

    async def at_longest(self, main: SearchProblem, document: int) -> None:
        """Ask at the longest prompt, which did not pass, before the search steps back from it: now
        it is in the engine's cache, and later it would have to be read once more.
        """
        state = self._state
        last, longest = state.trials[-1], state.longest()
        at_end = (last.seed, last.length_tokens) == (document, longest)
        missed = state.verdict(longest) is not Verdict.PASS and not state.engine_failed(longest)
        if not (at_end and missed) or state.options.quick or self._reads_anew:
            return
        self._announce()
        for level in self._measurable():
            if longest >= state.level_problems[level.key].floor:
                await self._settle(level, longest, document)
        await self._other_regions(main, longest, document)
        state.announcer.phase(SEARCH)

    def _announce(self) -> None:
        if self._state.level_problems:
            self._state.announcer.phase(LEVELS)

    def _measurable(self) -> list[Level]:
        return [level for level in self._state.levels if level.key in self._state.level_problems]

    async def _descend(self, levels: Sequence[Level], main: SearchProblem, document: int) -> None:
        """All levels at the longest length, and those that fail there at both ends of the main
        bracket, downwards: what is in the cache is only cut.
        """
        low, high = self._main_bracket(main)
        no_more = self._reads_anew or self._state.options.quick
        longest = max(low, high or 0, 0 if no_more else self._state.longest())
        open_levels = list(levels)
        for length in sorted({low, high or low, longest}, reverse=True):
            if self._state.engine_failed(length) and length != low:
                continue
            for level in tuple(open_levels):
                if length < self._state.level_problems[level.key].floor:
                    continue  # its baseline's questions are longer, and the model can do those
                if await self._settle(level, length, document) is Verdict.PASS:
                    open_levels.remove(level)
            if length == longest and high is not None:
                await self._other_regions(main, length, document)

    async def _other_regions(self, main: SearchProblem, length: int, document: int) -> None:
        """Ask about every region at `length` often enough to tell which are lost there, unless
        almost nothing is known there any more, the search did not read so much of `document`, or
        another document was asked about.
        """
        state, rule = self._state, main.rule
        elsewhere = any(t.phase == REGIONS and t.seed != document for t in state.at(length))
        if elsewhere or not state.asked(SEARCH, length, document):
            return
        # Without these questions' own answers, which a run that goes on has in part.
        seen = state.without_phases(length, REGIONS)
        # One region alone may be lost, and the search has asked about little else.
        apart = rule.lost(seen, main.baseline)
        rest = [t for t in seen.regions if t.region not in apart]
        passes, trials = sum(t.passes for t in rest), sum(t.trials for t in rest)
        lost = rule.refutes(seen, main.baseline) and passes * 4 <= trials
        asked = state.options.only_at is None and not state.options.quick
        if lost or not rule.regions or not asked:
            return
        trials = {tally.region: tally.trials for tally in state.observation(length).regions}
        missing: list[Region | None] = [
            region for region in rule.regions for _ in range(REGION_TRIALS - trials.get(region, 0))
        ]
        if missing:
            fitting = state.fitting(main, document, length, len(missing))
            state.announcer.probe(SEARCH, length, fitting)
            await self._asker.ask(state.main, REGIONS, length, document, missing[:fitting])
            state.announcer.probed(SEARCH, state.observation(length), state.verdict(length))

    @property
    def _reads_anew(self) -> bool:
        return learn_costs(self._state.trials).reuse is Reuse.NONE

    async def _close_in(self, level: Level, document: int) -> None:
        while (length := self._between(level)) is not None:
            if await self._settle(level, length, document) is Verdict.UNDECIDED:
                return

    def _between(self, level: Level) -> int | None:
        """A length inside the level's bracket, or None when it is narrow enough."""
        problem = self._state.level_problems[level.key]
        low, high = self.bracket(level)
        if high is None or problem.is_tight(low, high):
            return None
        step = problem.step_at(low)
        middle = round(sqrt(low * high) / step) * step
        return middle if low < middle < high else None

    async def _settle(self, level: Level, length: int, document: int) -> Verdict:
        """Ask until the rule has an answer, or no reply can be judged."""
        key, problem = level.key, self._state.level_problems[level.key]
        rule = problem.rule
        while True:
            seen = self._state.observation(length, key)
            verdict = rule.verdict(seen, problem.baseline)
            if verdict is not Verdict.UNDECIDED:
                return verdict
            wanted = self._state.fitting(problem, document, length, rule.wanted(seen))
            self._state.announcer.probe(key, length, wanted)
            regions = self._spread(level, length, wanted)
            await self._asker.ask(level, SEARCH, length, document, regions)
            after = self._state.observation(length, key)
            self._state.announcer.probed(key, after, rule.verdict(after, problem.baseline))
            mute = rule.is_mute(after, problem.baseline)
            if mute or after == seen:  # the same where the engine failed
                self._state.announcer.note(
                    f"{key}: at {length:,} tokens too few replies could be judged"
                )
                return Verdict.UNDECIDED

    async def _tell(self, level: Level, main: SearchProblem) -> None:
        """Tell the main search of a failure at or below its answer, if the level counts."""
        low, _ = self._main_bracket(main)
        _, fails = self.bracket(level)
        if level.required and fails is not None and fails <= low:
            self._state.announcer.note(f"{level.key} fails at {fails:,} tokens")
            await self._asker.record_failure(fails, limit_of(self._state.at(fails, level.key)))

    def _spread(self, level: Level, length: int, trials: int) -> list[Region | None]:
        """The regions of the next questions of a level."""
        regions = tuple(level.validator.regions)
        return spread(regions, self._state.history(level.key), length, trials)

    def _main_bracket(self, main: SearchProblem) -> tuple[int, int | None]:
        return self._state.strategy.bracket(main, self._state.evidence())

    def _problem(self, level: Level) -> SearchProblem:
        length = level.validator.baseline_length
        return SearchProblem(
            floor=length,
            ceiling=self._state.context_length,
            baseline=self._state.baseline(length, level.key),
            rule=attrs.evolve(
                LEVEL_RULE,
                first=1 if self._state.reads_anew else LEVEL_RULE.first,
                ratio=self._state.options.ratio,
                absolute=self._state.options.absolute,
            ),
            tolerance=max(LEVEL_TOLERANCE, self._state.options.search_tolerance),
        )


def level_bracket(state: State, problem: SearchProblem, level: Level) -> tuple[int, int | None]:
    """Largest length that passed below every failure, and the smallest failure."""
    verdicts: dict[int, Verdict] = {}
    for seen in state.history(level.key):
        if level.is_main and state.failed_level(seen.length_tokens):
            seen = attrs.evolve(seen, failure=None)  # noqa: PLW2901 - that is another level's
        verdicts[seen.length_tokens] = problem.rule.verdict(seen, problem.baseline)
    high = min((n for n, v in verdicts.items() if v is Verdict.FAIL), default=None)
    low = max(
        (n for n, v in verdicts.items() if v is Verdict.PASS and (high is None or n < high)),
        default=problem.floor,
    )
    return low, high
