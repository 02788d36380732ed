"""The one state of a run: what was asked and answered, what it cost, and what may still be spent.

Everything else is derived from it. No engine, no store, no clock but the budget's. Observers are
told here, and the run waits here for its turn.
"""

from __future__ import annotations

import inspect
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.events import (
    Event,
    Noted,
    PhaseStarted,
    PrefillProgressed,
    ProbeFinished,
    ProbeStarted,
    Retrying,
    WaitingForTurn,
)
from lmstrix.locks import THIS_MACHINE, Holder, hold_turn
from lmstrix.measure.loading import Loadable
from lmstrix.measure.options import MeasureOptions
from lmstrix.models import (
    Baseline,
    Cause,
    Cost,
    DepthTally,
    Judgement,
    Method,
    ModelInfo,
    Observation,
    PrefillProgress,
    Region,
    Reply,
    Status,
    StoredMeasurement,
    Trial,
    Verdict,
)
from lmstrix.ports import Adapter, NamesModels, Observer, SearchStrategy, TakesTurns, Validator
from lmstrix.problem import (
    APART,
    DOCUMENTS,
    LIKE_THE_FIRST,
    PassRule,
    Reuse,
    SearchProblem,
    learn_costs,
    with_counts,
)
from lmstrix.stats import fisher_tail

BASELINE, SEARCH, CERTIFY = "baseline", "search", "certify"
MOST_CERTIFICATES = 6
"""After so many that did not hold, a measurement ends without one."""
REGIONS = "regions"
"""The phase of questions about regions that have not failed, at the longest length."""
WEAK = "weak"
"""The phase of a certificate's last questions: about regions that did badly, on one more text.
They decide whether the certificate holds, and move the answer only by that."""
ELSEWHERE = "elsewhere"
"""The phase of questions on other texts about a region that failed on few facts, before a
certificate's document overrules it."""
TRUNCATION = "truncation"
"""The phase of questions far beyond the answer: they tell a truncation, and are no evidence on the
limit."""
MAIN = ""
"""The level of the measurement's own validator."""
SEVERAL = "several"
"""The level under which the check is kept whether the model answers several questions at once."""
ANSWERS = (Cause.FORGETS, Cause.GIBBERISH)
"""Causes of a failed length that are about the answers, not the engine."""

FACTS_TO_FORGIVE = 3
"""Facts of a region from which one lost fact may be a dislike of the model's."""

LEVEL_RULE = PassRule(first=2, full=4, most=8)
"""Fewer trials than for the main number: with a perfect baseline a length passes at 2 of 2, 4 of
4 and 7 of 8, and fails at 0 of 2, 1 of 4 and 6 of 8."""


class BudgetSpent(Exception):
    """The next question is not expected to fit into the rest of the budget."""


@attrs.frozen(kw_only=True)
class Level:
    """A validator besides the measurement's own.

    A `required` level is part of the true context: if it fails, the model does not work.
    """

    validator: Validator
    required: bool = False
    is_main: bool = False
    name: str = ""
    """What it is called if not by its validator's name."""

    @property
    def key(self) -> str:
        """How its trials are marked."""
        return MAIN if self.is_main else self.name or self.validator.name


@attrs.frozen
class Announcer:
    """Tells observers what happens to one model, and keeps the notes of its report.

    `observers` hear every event in the order of events; what one of them raises is dropped.
    """

    model_key: str
    observers: Sequence[Observer]
    notes: list[str] = attrs.field(factory=list[str])

    def __attrs_post_init__(self) -> None:
        if any(map(inspect.iscoroutinefunction, self.observers)):
            raise ConfigurationError("an observer is a plain function: nothing awaits it")
        if not all(map(callable, self.observers)):
            raise ConfigurationError("an observer is a function: it is called with each event")

    def emit(self, event: Event) -> None:
        """Let every observer hear `event`."""
        for observer in self.observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001, S112 - by contract an observer cannot hurt
                continue

    def phase(self, name: str) -> None:
        """A phase begins."""
        self.emit(PhaseStarted(model_key=self.model_key, phase=name))

    def note(self, text: str) -> None:
        """A sentence for the user, now and in the report. The same one is said once."""
        if text not in self.notes:
            self.notes.append(text)
            self.emit(Noted(model_key=self.model_key, text=text))

    def retry(self, attempt: int, reason: str) -> None:
        """Attempt number `attempt` comes next, because of `reason`."""
        self.emit(Retrying(model_key=self.model_key, attempt=attempt, reason=reason))

    def prefill(self, length_tokens: int) -> Callable[[PrefillProgress], None]:
        """A callback for how far the engine has read a prompt of `length_tokens`."""

        def tell(progress: PrefillProgress) -> None:
            self.emit(
                PrefillProgressed(
                    model_key=self.model_key, length_tokens=length_tokens, progress=progress
                )
            )

        return tell

    def probe(self, phase: str, length_tokens: int, trials: int) -> None:
        """`trials` questions at `length_tokens` come next."""
        self.emit(
            ProbeStarted(
                model_key=self.model_key, phase=phase, length_tokens=length_tokens, trials=trials
            )
        )

    def probed(self, phase: str, seen: Observation, verdict: Verdict) -> None:
        """All that is known at a length so far."""
        self.emit(
            ProbeFinished(
                model_key=self.model_key,
                phase=phase,
                length_tokens=seen.length_tokens,
                passes=seen.passes,
                trials=seen.trials,
                verdict=verdict,
                failure=seen.failure,
                inconclusive=seen.inconclusive,
            )
        )


def method_of(
    options: MeasureOptions,
    strategy: SearchStrategy,
    validator: Validator,
    levels: Sequence[Level],
) -> Method:
    """How a number is found, as a report tells it."""
    return Method(
        strategy=strategy.name,
        validator=validator.name,
        tolerance=options.tolerance,
        ratio=options.ratio,
        seed=options.seed,
        max_context=options.max_context,
        absolute=options.absolute,
        average=options.average,
        quick=options.quick,
        levels=tuple(level.validator.name for level in levels),
    )


def turn_of(adapter: Adapter) -> str | None:
    """What `adapter` contends for; None: nothing."""
    return adapter.turn if isinstance(adapter, TakesTurns) else None


def server_of(adapter: Adapter) -> str | None:
    """The server whose models these are, if they are not this machine's: one elsewhere, or one
    whose models are known by their names alone.
    """
    if isinstance(adapter, NamesModels):
        return adapter.address
    turn = turn_of(adapter)
    return None if turn == THIS_MACHINE else turn


@asynccontextmanager
async def its_turn(adapter: Adapter, announcer: Announcer) -> AsyncGenerator[None, None]:
    """Hold the turn on what `adapter` contends for; at once where that is nothing.

    Where no lock can be made, as on a read-only disk, it goes on and says so: a measurement that
    runs alone, as most do, needs none.
    """

    def waiting(holder: Holder) -> None:
        announcer.emit(
            WaitingForTurn(
                model_key=announcer.model_key, pid=holder.pid, holder_key=holder.model_key
            )
        )

    resource = turn_of(adapter)
    async with AsyncExitStack() as stack:
        if resource is not None:
            try:
                turn = hold_turn(resource, announcer.model_key, waiting)
                await stack.enter_async_context(turn)
            except OSError as error:
                announcer.note(
                    f"no lock was created, so another measurement may have run too: {error}"
                )
        yield


@attrs.define(kw_only=True)
class State:
    """The facts of one measurement, filled in as it goes on. A report can be made at any time."""

    model: ModelInfo
    strategy: SearchStrategy
    validator: Validator
    options: MeasureOptions
    announcer: Announcer
    levels: tuple[Level, ...] = ()
    started_at: datetime = attrs.field(factory=lambda: datetime.now(UTC))
    clock: float = attrs.field(factory=time.monotonic)
    status: Status | None = None
    loadable: Loadable | None = None
    problem: SearchProblem | None = None
    level_problems: dict[str, SearchProblem] = attrs.field(factory=dict[str, SearchProblem])
    """By level; a level that the model cannot do at short length either has none."""
    certified: bool = False
    facts: int = 1
    """Questions that one request asks."""
    settled: int | None = None
    """How many certificates are evidence for the search: not the one that is under way, whatever
    part of it was asked before a run was killed. None: all."""
    truncated_to: int | None = None
    """How many tokens of a longer prompt the server really reads, if it drops some."""
    context_length: int = 0
    """What to load when nothing is loaded, in tokens."""
    trials: list[Trial] = attrs.field(factory=list[Trial])
    failures: dict[int, Cause] = attrs.field(factory=dict[int, Cause])
    """Lengths at which the engine failed, or the certificate did not hold."""
    cost: Cost = attrs.field(factory=Cost)
    deaths: tuple[int, ...] = ()
    """Sizes of loads during which earlier runs died, in tokens."""
    resumed: int = 0
    """Trials that were taken over from an interrupted run."""
    reach: int | None = None
    """The longest length that counts, in tokens: the size that this run has loaded. What an
    interrupted run found out above says nothing about now. None: any length counts."""
    _elsewhere: dict[int, int] = attrs.field(factory=dict[int, int])
    """By length, the number of the certificate that asked on other texts there."""
    _overruling: set[int] = attrs.field(factory=set[int])
    """Seeds of a certificate's documents that overruled the text of the search."""
    _at_load: int = 0
    _spent_before: int = 0
    _by_length: dict[tuple[str, int], list[Trial]] = attrs.field(
        factory=lambda: defaultdict[tuple[str, int], list[Trial]](list)
    )

    @property
    def main(self) -> Level:
        """The measurement's own validator as a level."""
        return Level(validator=self.validator, required=True, is_main=True)

    @property
    def rule(self) -> PassRule:
        """When a length passes."""
        regions = () if self.options.average else tuple(self.validator.regions)
        return attrs.evolve(self.options.rule, regions=regions)

    @property
    def method(self) -> Method:
        """How the number is being found."""
        return method_of(self.options, self.strategy, self.validator, self.levels)

    def document(self, number: int) -> int:
        """A seed of its own for each document of a measurement; -1 is the baseline's own."""
        return self.options.seed * DOCUMENTS + number + 1

    @property
    def other_documents(self) -> Sequence[int]:
        """Documents of neither the search nor a certificate, with facts at the same places as the
        first one: that of the baseline, and one more.
        """
        return self.document(-1), self.document(DOCUMENTS - LIKE_THE_FIRST)

    def key(self, status: Status, server: str | None) -> str:
        """What a result depends on: under another key it is another result. `server` is as
        `server_of` tells.
        """
        depends: dict[str, object] = {
            "adapter": status.adapter,
            "versions": dict(sorted(status.versions.items())),
            "model": [self.model.identity, self.model.size_bytes],
            "declared": self.model.declared_context,
            "method": attrs.asdict(attrs.evolve(self.method, quick=False)),
        }
        if load_config := {**status.load_config, **self.model.load_config}:
            depends["load_config"] = load_config
        if self.options.documents != MeasureOptions().documents:
            depends["documents"] = self.options.documents
        if server is not None:
            depends["server"] = server
        if self.options.max_memory_bytes is not None:
            depends["memory"] = self.options.max_memory_bytes
        return json.dumps(depends, sort_keys=True)

    # Facts come in.

    def resume(self, stored: StoredMeasurement) -> None:
        """Take over what an interrupted run has found out."""
        for trial in stored.trials:
            self._add(trial)
        self.failures = {
            f.length_tokens: f.failure for f in stored.failures if f.failure is not None
        }
        self.cost = _at_least(stored.cost, self.trials)
        self.resumed = self._at_load = len(stored.trials)
        self.deaths = stored.deaths
        self._spent_before = self._spent()

    def add_load(self) -> None:
        """One more load tried; its cache is empty."""
        self._at_load = len(self.trials)
        self.cost = attrs.evolve(self.cost, loads=self.cost.loads + 1)

    def add_reply(self, reply: Reply, trials: Sequence[Trial]) -> None:
        """One more request, its questions, and what it cost by the engine's own numbers."""
        cached = reply.cached_tokens or 0
        self.cost = attrs.evolve(
            self.cost,
            prompt_tokens=self.cost.prompt_tokens + reply.prompt_tokens - cached,
            cached_tokens=self.cost.cached_tokens + cached,
            generated_tokens=self.cost.generated_tokens + reply.generated_tokens,
        )
        for trial in trials:
            self._add(trial)

    def _add(self, trial: Trial) -> None:
        self.trials.append(trial)
        if trial.phase == BASELINE:
            return
        self._by_length[trial.level, trial.length_tokens].append(trial)
        if trial.phase not in {CERTIFY, ELSEWHERE} or trial.level != MAIN:
            return
        certifying = next((t.seed for t in reversed(self.trials) if t.phase == CERTIFY), None)
        if certifying is None:  # the store was changed
            return
        if trial.phase == ELSEWHERE:
            number = self._certificate_of(certifying)
            self._elsewhere.setdefault(trial.length_tokens, number)
        overruled = self._overruled(trial.length_tokens, certifying)
        if overruled:
            self._overruling.add(certifying)
            self._drop(trial.length_tokens, certifying, overruled)

    def _drop(self, at: int, seed: int, regions: set[Region | None]) -> None:
        """Forget what texts other than `seed` answered about `regions` from the length `at` on; not
        where it is worse by more than chance than there, for then more is lost than a few facts.
        """
        main = {n: found for (level, n), found in self._by_length.items() if level == MAIN}
        for region in regions:
            theirs = {
                length: _tally(
                    t
                    for t in found
                    if t.seed != seed and t.region == region and t.phase != ELSEWHERE
                )
                for length, found in main.items()
                if length >= at
            }
            passes, trials, _ = theirs[at]
            for length, (few, of, _) in theirs.items():
                if length == at or fisher_tail(few, of, few + passes, of + trials) >= APART:
                    main[length][:] = [
                        t for t in main[length] if t.seed == seed or t.region != region
                    ]

    def _overruled(self, length: int, seed: int) -> set[Region | None]:
        """The regions that a certificate's document has now passed in full, and better than by
        chance, at a length which failed in some of them on another text. Then that text was hard
        there, not the length: what was answered about these regions from that length on no longer
        counts. Empty otherwise.
        """
        rule = self.rule
        if length in self.failures:
            return set()
        baseline = self.baseline(self.validator.baseline_length)
        alone = self.certificate(length, seed)
        passed: set[Region | None] = {
            t.region
            for t in alone.regions
            if (0 < t.trials == t.passes and not rule.hides(t, baseline))
            or rule.alone(t, baseline) is Verdict.PASS
        }
        if alone.trials < rule.full or len(passed) < len(alone.regions):
            return set()
        before = self.without_certificate(length, seed)
        lost = rule.lost(before, baseline)
        few, of = _sums(before, lost)
        fresh = [t for t in self.at(length) if (t.phase, t.seed) == (CERTIFY, seed)]
        fresh += [t for t in self.at(length) if t.phase == ELSEWHERE]
        passes, trials = _sums(_observe(length, fresh, None), lost)
        apart = fisher_tail(few, of, few + passes, of + trials) < APART
        certain = apart and all(self._is_confirmed(region, length, alone) for region in lost)
        return passed if lost and lost <= passed and certain else set()

    def _is_confirmed(self, region: Region, length: int, alone: Observation) -> bool:
        """Whether a region that a certificate's document passes may overrule another text: it holds
        several facts there, or other texts were asked about it too, and missed none. In a short
        text it may hold one fact, asked about again and again, beside what is lost.
        """
        own = next((t for t in alone.regions if t.region is region), None)
        if own is not None and own.lost_facts is not None:
            return True
        for document in self.other_documents:
            if self.asked(ELSEWHERE, length, document)[region] < self.options.rule.first:
                return False
        elsewhere = [t for t in self.at(length) if t.phase == ELSEWHERE and t.region is region]
        # One miss of two may be a lapse.
        return all(balance >= 0 for balance in _balances(elsewhere).values())

    # What is known.

    def of(self, level: str = MAIN) -> Iterable[Trial]:
        """The trials of one level."""
        return (t for t in self.trials if t.level == level)

    def asked(
        self, phase: str, length_tokens: int, seed: int, level: str = MAIN
    ) -> Counter[Region | None]:
        """How many questions of a document were asked at a length in a phase, by region."""
        wanted = (phase, length_tokens, seed)
        return Counter(
            t.region for t in self.of(level) if (t.phase, t.length_tokens, t.seed) == wanted
        )

    def baseline(self, length_tokens: int, level: str = MAIN) -> Baseline:
        """The model's own rate at short length."""
        passes, trials, unjudged = _tally(t for t in self.of(level) if t.phase == BASELINE)
        return Baseline(
            passes=passes, trials=trials, length_tokens=length_tokens, inconclusive=unjudged
        )

    @property
    def reads_anew(self) -> bool:
        """Whether the engine reused nothing of the baseline's prompts. A resumed run knows more by
        then, and may not decide otherwise because of it.
        """
        first = [t for t in self.of() if t.phase == BASELINE]
        return learn_costs(first).reuse is Reuse.NONE

    def baseline_replies(self, level: str, kind: str) -> Sequence[str]:
        """What the model wrote at short length to one kind of question, in their order."""
        asked = (t for t in self.of(level) if t.phase == BASELINE and t.kind == kind)
        return [t.reply for t in sorted(asked, key=lambda t: t.index)]

    def engine_failed(self, length_tokens: int) -> bool:
        """Whether the engine itself failed at a length, instead of the answers to a certificate."""
        return self.failures.get(length_tokens) not in {None, *ANSWERS}

    def disputed(self, history: Sequence[Observation]) -> set[int]:
        """Lengths that failed, although all their answers together do not refute a rate that
        passes: too few of the most questions allowed were answered correctly, or a certificate
        did not hold. They are neither a pass nor a failure, so the bracket spans them, unless no
        longer length failed by its answers.
        """
        problem = self.problem
        if problem is None:
            return set()
        rule, baseline = problem.rule, problem.baseline
        last, disputed = 0, set[int]()
        for seen in history:
            answers = seen
            if seen.failure in ANSWERS and not self.failed_level(seen.length_tokens):
                answers = attrs.evolve(seen, failure=None)
            if answers.failure is None and rule.verdict(answers, baseline) is Verdict.FAIL:
                last = seen.length_tokens
            # More questions would decide by what chance cannot explain.
            patient = attrs.evolve(rule, most=seen.trials + 1)
            failed = rule.verdict(seen, baseline) is Verdict.FAIL
            if failed and patient.verdict(answers, baseline) is not Verdict.FAIL:
                disputed.add(seen.length_tokens)
        return {n for n in disputed if n < last}

    def upper_end(self, history: Sequence[Observation]) -> int | None:
        """The smallest length that failed, disputed ones left out; None if none failed. The
        problem must be known.
        """
        problem, disputed = self._problem(), self.disputed(history)
        failed = (
            o.length_tokens
            for o in history
            if problem.rule.verdict(o, problem.baseline) is Verdict.FAIL
        )
        return min((n for n in failed if n not in disputed), default=None)

    def beware(self) -> None:
        """Let the rule be careful with the regions that were lost at a length which a certificate
        did not confirm: it had passed with few questions about them.
        """
        problem = self._problem()
        careful = set[Region]()
        for length, cause in self.failures.items():
            if cause in ANSWERS and not self.failed_level(length):
                seen = attrs.evolve(self.observation(length), failure=None)
                careful |= problem.rule.lost(seen, problem.baseline)
        rule = attrs.evolve(problem.rule, careful=frozenset(careful))
        self.problem = attrs.evolve(problem, rule=rule)

    def failed_level(self, length_tokens: int) -> Level | None:
        """The required level, if any, whose own answers fail at a length."""
        for level in self.levels:
            theirs = self.level_problems.get(level.key)
            if level.required and theirs is not None:
                seen = self.observation(length_tokens, level.key)
                if theirs.rule.verdict(seen, theirs.baseline) is Verdict.FAIL:
                    return level
        return None

    def at(self, length_tokens: int, level: str = MAIN) -> Sequence[Trial]:
        """All trials at a length except the baseline's."""
        return self._by_length.get((level, length_tokens), [])

    def observation(self, length_tokens: int, level: str = MAIN) -> Observation:
        """All that is known at one length."""
        failure = self.failures.get(length_tokens) if level == MAIN else None
        return _observe(length_tokens, self.at(length_tokens, level), failure)

    def certificate(self, length_tokens: int, seed: int, phase: str = CERTIFY) -> Observation:
        """The answers to one certificate's questions alone."""
        asked = (t for t in self.at(length_tokens) if t.phase == phase and t.seed == seed)
        return _observe(length_tokens, list(asked), self.failures.get(length_tokens))

    def without_phases(self, length_tokens: int, *phases: str) -> Observation:
        """All answers at a length but those of some phases."""
        asked = [t for t in self.at(length_tokens) if t.phase not in phases]
        return _observe(length_tokens, asked, self.failures.get(length_tokens))

    def without_certificate(self, length_tokens: int, seed: int) -> Observation:
        """All answers but those to one certificate's questions, and those that confirm them."""
        asked = [
            t
            for t in self.at(length_tokens)
            if (t.phase, t.seed) != (CERTIFY, seed) and t.phase != ELSEWHERE
        ]
        return _observe(length_tokens, asked, self.failures.get(length_tokens))

    def settled_certificates(self) -> int:
        """How many certificates are settled, as seen by a measurement that goes on.

        They follow each other, so all but the last one that was asked about are. The search goes on
        in a document of a certificate that did not hold, so the last one is settled too if a seed
        of it was asked about in both phases, or overruled the search.
        """
        searched = {t.seed for t in self.of() if t.phase == SEARCH}
        certifying = {t.seed for t in self.of() if t.phase in {CERTIFY, WEAK}}
        last = max((self._certificate_of(seed) for seed in certifying), default=1)
        both = certifying & searched | self._overruling
        return max(last - 1, *(self._certificate_of(seed) for seed in both), 0)

    def forget_failures_of(self, certificate: int) -> None:
        """Drop the failures of lengths that the answers to a certificate refuted."""
        asked = {
            t.length_tokens
            for t in self.of()
            if t.phase in {CERTIFY, WEAK} and self._certificate_of(t.seed) == certificate
        }
        self.failures = {
            n: cause
            for n, cause in self.failures.items()
            if n not in asked or cause not in ANSWERS or self.failed_level(n)
        }

    def history(self, level: str = MAIN) -> Sequence[Observation]:
        """Every length tried within reach, in ascending order."""
        lengths = {n for (key, n), found in self._by_length.items() if key == level and found}
        if level == MAIN:
            lengths |= set(self.failures)
        return [self.observation(n, level) for n in sorted(self._within(lengths))]

    def evidence(self) -> Sequence[Observation]:
        """The history for a strategy: without lengths at which no reply could be judged, and
        without the questions that follow a search: `REGIONS`, `TRUNCATION`, those of a certificate
        that is under way, and `WEAK` unless they have failed the length.
        """
        found: list[Observation] = []
        for seen in self.history():
            length, failure = seen.length_tokens, seen.failure
            after = (REGIONS, TRUNCATION) if failure else (REGIONS, TRUNCATION, WEAK)
            asked = [t for t in self.at(length) if t.phase not in after and self._counts(t)]
            found.append(_observe(length, asked, failure))
        return [o for o in found if o.trials or o.failure is not None]

    def read_before(self, certificate: int) -> int:
        """The document that was read last before those of a certificate."""
        return next(
            t.seed
            for t in reversed(self.trials)
            if t.phase != ELSEWHERE
            and (t.phase not in {CERTIFY, WEAK} or self._certificate_of(t.seed) != certificate)
        )

    def _counts(self, trial: Trial) -> bool:
        """Whether a trial is not of a certificate that is under way."""
        if trial.phase not in {CERTIFY, ELSEWHERE} or self.settled is None:
            return True
        if trial.phase == ELSEWHERE:
            return self._elsewhere.get(trial.length_tokens, 0) <= self.settled
        return self._certificate_of(trial.seed) <= self.settled

    def _certificate_of(self, seed: int) -> int:
        """The number of the certificate that a fresh document belongs to; the first is 1."""
        number, spares = seed - self.document(1), MOST_CERTIFICATES * self.fresh
        return number - spares + 1 if number >= spares else number // self.fresh + 1

    @property
    def fresh(self) -> int:
        """The fresh documents of each certificate, without that for its weak regions."""
        return self.options.documents - 1

    def before(self, trial: int) -> State:
        """What was known before trial number `trial`: for a look back, not to go on with."""
        known = attrs.evolve(
            self,
            trials=[],
            failures={},  # of those that came later none stood in the way of an overruling
            at_load=0,
            elsewhere=dict[int, int](),
            overruling=set[int](),
            by_length=defaultdict[tuple[str, int], list[Trial]](list),
        )
        for earlier in self.trials[:trial]:
            known._add(earlier)  # noqa: SLF001 - another state
        known.failures = dict(self.failures)
        return known

    def bracket(self) -> tuple[int, int | None]:
        """The strategy's bracket so far; the problem must be known."""
        return self.strategy.bracket(self._problem(), self.evidence())

    def verdict(self, length_tokens: int) -> Verdict:
        """The rule's verdict on a length, without the questions that are no evidence for the
        search; the problem must be known.
        """
        problem = self._problem()
        seen = self.without_phases(length_tokens, REGIONS, TRUNCATION, WEAK)
        return problem.rule.verdict(seen, problem.baseline)

    def cached(self, seed: int) -> int:
        """The length whose document an engine that reuses prefixes has now, if it is that of
        `seed`; 0 if the last question was about another, or asked before the last load.
        """
        return self._last_read(seed) if len(self.trials) > self._at_load else 0

    def _last_read(self, seed: int) -> int:
        """The same, as if no engine had been loaded again since."""
        last = self.trials[-1] if self.trials else None
        return last.length_tokens if last is not None and last.seed == seed else 0

    def longest(self) -> int:
        """The longest length within reach that was answered, questions about a truncation left
        out; 0 if none was.
        """
        lengths = {t.length_tokens for t in self.trials if t.phase != TRUNCATION}
        return max(self._within(lengths), default=0)

    def largest_loaded(self) -> int:
        """A size that some run of this measurement has loaded for certain, in tokens."""
        return max((t.length_tokens for t in self.trials), default=0)

    def beyond(self) -> set[int]:
        """Lengths out of reach that were tried."""
        tried = {t.length_tokens for t in self.trials} | set(self.failures)
        return tried - self._within(tried)

    def _within(self, lengths: set[int]) -> set[int]:
        return {n for n in lengths if self.reach is None or n <= self.reach}

    def _problem(self) -> SearchProblem:
        if self.problem is None:
            raise RuntimeError("the baseline is not measured yet")
        return self.problem

    # What may still be spent.

    def refreshed(self, problem: SearchProblem, document: int) -> SearchProblem:
        """`problem` with costs as the engine's own numbers have them by now, how much of
        `document` is cached, and what remains of the budget.

        Without a budget an empty cache after another load does not count: a measurement that
        goes on takes the same path as one that was not interrupted.
        """
        limited = self.options.budget_tokens is not None or self.options.budget_s is not None
        return attrs.evolve(
            problem,
            costs=attrs.evolve(learn_costs(self.trials), facts=self.facts),
            cached_tokens=self.cached(document) if limited else self._last_read(document),
            remaining_tokens=self._tokens_left(),
            remaining_s=self._seconds_left(),
        )

    def affords(self, problem: SearchProblem, length_tokens: int, trials: int) -> bool:
        """Whether `trials` questions on a document that was never read are expected to fit."""
        fresh = attrs.evolve(self.refreshed(problem, -1), cached_tokens=0)
        return fresh.affordable(length_tokens, trials) == trials

    def fitting(
        self, problem: SearchProblem, document: int, length_tokens: int, trials: int
    ) -> int:
        """How many of `trials` questions on `document` are expected to fit.

        Raises `BudgetSpent` if not one does.
        """
        found = self.refreshed(problem, document).affordable(length_tokens, trials)
        if trials and not found:
            raise BudgetSpent
        return found

    def seconds(self) -> float:
        """How long this run has taken so far."""
        return time.monotonic() - self.clock

    def total_cost(self) -> Cost:
        """The cost of all runs, with the time of this one."""
        return attrs.evolve(self.cost, seconds=self.cost.seconds + self.seconds())

    def _tokens_left(self) -> int | None:
        if self.options.budget_tokens is None:
            return None
        return max(0, self.options.budget_tokens - (self._spent() - self._spent_before))

    def _spent(self) -> int:
        cost = self.told_cost(self.cost)
        return cost.prompt_tokens + cost.generated_tokens

    def told_cost(self, cost: Cost) -> Cost:
        """`cost`. If the engine counts no cached tokens, with what its times suggest."""
        if cost.cached_tokens:
            return cost
        cached = sum(t.cached_tokens or 0 for t in with_counts(self.trials))
        return attrs.evolve(
            cost, prompt_tokens=max(0, cost.prompt_tokens - cached), cached_tokens=cached
        )

    def _seconds_left(self) -> float | None:
        if self.options.budget_s is None:
            return None
        return max(0.0, self.options.budget_s - self.seconds())


def limit_of(trials: Iterable[Trial]) -> Cause:
    """What the wrong answers at a failed length have in common."""
    judged = Counter(t.judgement for t in trials)
    broken = judged[Judgement.GIBBERISH] + judged[Judgement.EMPTY]
    return Cause.GIBBERISH if broken > judged[Judgement.WRONG] else Cause.FORGETS


def _observe(length_tokens: int, trials: Sequence[Trial], failure: Cause | None) -> Observation:
    passes, counted, inconclusive = _tally(trials)
    about: dict[Region | None, list[Trial]] = {}
    for trial in trials:
        about.setdefault(trial.region, []).append(trial)
    return Observation(
        length_tokens=length_tokens,
        passes=passes,
        trials=counted,
        inconclusive=inconclusive,
        failure=failure,
        regions=tuple(_region_tally(region, about[region]) for region in Region if region in about),
    )


def _sums(seen: Observation, regions: Collection[Region]) -> tuple[int, int]:
    """Passes and trials in `regions`."""
    found = [tally for tally in seen.regions if tally.region in regions]
    return sum(t.passes for t in found), sum(t.trials for t in found)


def _region_tally(region: Region, about: Sequence[Trial]) -> DepthTally:
    passes, counted, inconclusive = _tally(about)
    right = _balances(about)
    lost = sum(balance <= 0 for balance in right.values())
    # One of two facts is half of what is known about the region, so it is not forgiven.
    forgives = len(right) >= FACTS_TO_FORGIVE
    return DepthTally(
        region=region,
        passes=passes,
        trials=counted,
        inconclusive=inconclusive,
        lost_facts=lost if forgives else None,
    )


def _balances(trials: Iterable[Trial]) -> Counter[tuple[int, str]]:
    """By document and value of a fact: how many more answers were right than wrong."""
    right: Counter[tuple[int, str]] = Counter()
    for t in trials:
        if t.judgement is not Judgement.INCONCLUSIVE:
            right[t.seed, t.expected] += 1 if t.judgement is Judgement.PASS else -1
    return right


def _tally(trials: Iterable[Trial]) -> tuple[int, int, int]:
    """Passes, counted trials, inconclusive ones."""
    judged = Counter(trial.judgement for trial in trials)
    inconclusive = judged.pop(Judgement.INCONCLUSIVE, 0)
    return judged[Judgement.PASS], judged.total(), inconclusive


def _at_least(cost: Cost, trials: Sequence[Trial]) -> Cost:
    """`cost`, or what `trials` cost if that is more: a run that is killed saves no cost."""
    cached = sum(t.cached_tokens or 0 for t in trials)
    return attrs.evolve(
        cost,
        prompt_tokens=max(cost.prompt_tokens, sum(t.prompt_tokens for t in trials) - cached),
        cached_tokens=max(cost.cached_tokens, cached),
        generated_tokens=max(cost.generated_tokens, sum(t.generated_tokens for t in trials)),
    )
