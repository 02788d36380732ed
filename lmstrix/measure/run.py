"""One measurement: its phases from the load to the report, as docs/method.md tells them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import takewhile
from time import monotonic

import anyio
import attrs

from lmstrix.errors import (
    ConfigurationError,
    EngineUnavailable,
    InfrastructureError,
    LMStrixError,
    LoadError,
)
from lmstrix.events import (
    BaselineMeasured,
    BracketChanged,
    MeasurementFinished,
    MeasurementStarted,
)
from lmstrix.measure.engine import Engine
from lmstrix.measure.levels import Levels
from lmstrix.measure.loading import find_loadable, load_cause, wanted_context
from lmstrix.measure.options import MeasureOptions
from lmstrix.measure.report import build_report, cause_of
from lmstrix.measure.state import (
    BASELINE,
    CERTIFY,
    ELSEWHERE,
    MAIN,
    MOST_CERTIFICATES,
    SEARCH,
    SEVERAL,
    TRUNCATION,
    WEAK,
    Announcer,
    BudgetSpent,
    Level,
    State,
    its_turn,
    limit_of,
    server_of,
)
from lmstrix.measure.trials import Asker, Keeper, attempts
from lmstrix.models import (
    RESUMABLE,
    Cause,
    ContextReport,
    Judgement,
    ModelInfo,
    Observation,
    Region,
    Status,
    Trial,
    Verdict,
)
from lmstrix.ports import Adapter, Observer, SearchStrategy, SeveralValidator, Store, Validator
from lmstrix.problem import (
    APART,
    MUTE,
    POOLED_FIRST,
    Ask,
    Done,
    SearchProblem,
    missing_at,
    spread,
)
from lmstrix.stats import fisher_tail

BASELINE_TRIALS = 30
"""A model that misses one answer in 25 passes twelve of twelve six times in ten. Then it seems
perfect, and the limit of one that fades (slope 12, `benchmarks/search.py`) was put 6 % too low."""
FEWEST_BASELINE = 12
"""The same if the engine reads the whole prompt again for each request."""
LOWEST_BASELINE = 0.5
"""A model that misses more than half at short length is not measurable by this validator."""

SEVERAL_TRIALS = 30
SEVERAL_RATE = 0.8
"""Part of its own rate that a model must reach when it is asked several questions at once. A rate
that is worse by more than chance (Fisher's exact test, 5 %) is not enough either."""

CERTIFY_IN_REGION = 10
"""Fresh questions about each region. A third of a region that is lost slips through ten with a
chance of 2 % if each needle stood at random, and with less as they stand evenly."""
CERTIFY_SEVERAL = 6
"""The same for an engine that reads the whole prompt again for each request."""
CERTIFY_TRIALS = 14
"""Fresh questions if they are about no one place. Fourteen passes of fourteen show a rate above
80 % at one-sided 95 %: .8 ** 14 < .05."""
NEAR_ENOUGH = 7 / 8
"""An answer is certified on a load made for it, or for one larger by an eighth at most."""

FAR, NEAR = 2, 5 / 4
"""How many times the answer the prompt is that shows a truncation, and at least must be."""
KEPT_WITHIN = 1 / 8
"""How near the tokens that survive must be to the answer: facts stand that far apart."""

HARDLY_LOST = 0.9
"""A prompt of which so much is answered lost too little for its place to be seen."""

SAVE_DEADLINE_S = 10.0
"""For the last words to the store when the measurement is being cancelled."""


class _Unjudged(Exception):
    """Too few replies at a certificate's length can be judged: it says neither yes nor no."""


class Measurement:
    """One search on one model. Run it once."""

    def __init__(
        self,
        *,
        adapter: Adapter,
        model: ModelInfo,
        strategy: SearchStrategy,
        validator: Validator,
        store: Store,
        levels: Sequence[Level] = (),
        options: MeasureOptions | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._adapter = adapter
        self._announcer = Announcer(model.key, tuple(observers))
        state = self._state = State(
            model=model,
            strategy=strategy,
            validator=validator,
            levels=tuple(levels),
            options=options or MeasureOptions(),
            announcer=self._announcer,
        )
        self._keeper = Keeper(store, state)
        self._engine = Engine(
            adapter, model, self._announcer.emit, state.add_load, self._keeper.mark
        )
        self._asker = Asker(self._engine, state, self._keeper)
        self._levels = Levels(state, self._asker)

    async def run(self) -> ContextReport:
        """Wait for our turn, measure, store and report.

        Also returns a report if the model is not measurable, if it cannot be loaded, and if the
        budget is spent (then `ContextReport.cause` says so, and a later run goes on). Cancelling
        releases the model, keeps every trial, announces the report so far, and propagates.

        Raises:
            InfrastructureError: the engine is away, and stayed away.
            PredictionError: the engine keeps answering with an error of its own.
            ModelError: the model turned out to be broken or of the wrong kind at loading.
            StoreError: the store cannot be opened. One that fails later does not end the
                measurement: see `lmstrix.events.MeasurementFinished`.
        """
        state, keeper, options = self._state, self._keeper, self._state.options
        state.status = await self._status()
        async with its_turn(self._adapter, self._announcer):
            # The wait is not part of what the measurement took.
            state.clock, state.started_at = monotonic(), datetime.now(UTC)
            key = state.key(state.status, server_of(self._adapter))
            state.resume(await keeper.begin(key))
            self._asker.resume()
            self._announcer.emit(
                MeasurementStarted(
                    model_key=state.model.key,
                    model=state.model,
                    resumed_trials=state.resumed,
                    certifies=options.certifies,
                )
            )
            cause: Cause | None = Cause.BUDGET_SPENT
            ended: Cause | None = Cause.INTERRUPTED
            try:
                with anyio.move_on_after(options.budget_s), suppress(BudgetSpent):
                    async with self._engine:
                        stuck: Cause | None = None
                        retried = (InfrastructureError,)
                        async for attempt in attempts(options.retry, retried, self._announcer):
                            with attempt:
                                stuck = await self._load()
                        stuck = stuck or await self._baseline()
                        cause = stuck or await self._search_and_certify()
                ended = None
            except LMStrixError as error:
                ended = cause_of(error)
                self._announcer.note(str(error))
                raise
            finally:
                with anyio.move_on_after(SAVE_DEADLINE_S, shield=True):
                    await keeper.save_cost()
                    await keeper.clear_load()
                    if ended in RESUMABLE:
                        report = self._report(ended)
                        await keeper.finish(report)
                        self._finish(report)
            report = self._report(cause)
            await keeper.finish(report)
            if keeper.error is not None:
                report = self._report(cause)  # with the note on what was not kept
            return self._finish(report)

    async def give_up_load(self) -> None:
        """Say that a load which may be under way is being broken off, not deadly for its size.

        For a caller that cancels `run` and may then end the process before `run` does. Raises
        nothing.
        """
        await self._keeper.clear_load()

    async def key(self) -> str:
        """The key under which the store keeps its report: model, engine, method, versions."""
        return self._state.key(await self._adapter.status(), server_of(self._adapter))

    def _report(self, cause: Cause | None) -> ContextReport:
        """The report of what is known. A certificate under way counts once it has failed."""
        state = self._state
        if state.problem is not None and state.verdict(state.bracket()[0]) is Verdict.FAIL:
            state.settled = None
        return build_report(state, cause)

    def _finish(self, report: ContextReport) -> ContextReport:
        self._announcer.emit(
            MeasurementFinished(
                model_key=report.model.key, report=report, store_error=self._keeper.error
            )
        )
        return report

    async def _status(self) -> Status:
        """The engine's, once it answers: results are stored by the versions that it reports."""
        retry = self._state.options.retry
        async for attempt in attempts(retry, (InfrastructureError,), self._announcer):
            with attempt:
                status = await self._adapter.status()
                if not status.available:
                    raise EngineUnavailable(status.detail, hint=status.hint)
                return status
        raise AssertionError  # the last attempt returns or raises

    # 1. Load.

    async def _load(self) -> Cause | None:
        """Load the largest context that loads; a cause if there will be no number."""
        state, options, model = self._state, self._state.options, self._state.model
        self._announcer.phase("load")
        shortest = state.validator.baseline_length
        wanted = wanted_context(model, options.max_context)
        if model.declared_context is None and options.max_context is None:
            self._announcer.note(
                f"the model declares no context, so at most {wanted:,} tokens are tried"
            )
        elif wanted < (options.max_context or 0) and options.only_at is None:
            self._announcer.note(f"the model declares {wanted:,} tokens: no more is tried")
        if wanted < (options.only_at or 0):
            self._announcer.note(
                f"the model declares {wanted:,} tokens, so {options.only_at:,} were not tried"
            )
            return Cause.DECLARED_MAXIMUM
        try:
            loadable = state.loadable = await find_loadable(
                self._adapter,
                model,
                self._engine,
                wanted=wanted,
                floor=options.only_at or min(shortest, wanted),
                force=options.force,
                deaths=state.deaths,
                loaded_before=state.largest_loaded() or None,
                max_memory_bytes=options.max_memory_bytes,
                load_timeout_s=options.load_timeout_s,
            )
        except LoadError as error:
            self._announcer.note(str(error))
            return load_cause(error)
        for note in (loadable.detail, *self._engine.notes):
            if note:
                self._announcer.note(note)
        if loadable.context_length < (options.only_at or 0):
            return Cause.CLAMPED
        if loadable.context_length < shortest:
            self._announcer.note(
                f"the context is too small: the engine loaded {loadable.context_length:,} tokens,"
                f" and the first questions need {shortest:,}"
            )
            return Cause.NOT_MEASURABLE
        # From now on that much is loaded, and no more of what earlier runs found counts.
        state.context_length = state.reach = loadable.context_length
        if beyond := state.beyond():
            self._announcer.note(
                f"an earlier run loaded a larger context: its answers at {min(beyond):,} tokens"
                f"{' and more' if len(beyond) > 1 else ''} are not used"
            )
        return None

    # 2. Baseline.

    async def _baseline(self) -> Cause | None:
        """The model's own rate at short length: half on a document of its own, half on the one
        that the search goes on with. Fewer questions if the engine reuses nothing.
        """
        self._announcer.phase(BASELINE)
        state, main = self._state, self._state.main
        length, regions = main.validator.baseline_length, tuple(main.validator.regions)
        for document in (state.document(-1), state.document(0)):
            for count in (FEWEST_BASELINE, BASELINE_TRIALS):
                half = spread(regions, (), length, count // 2)
                missing = half[state.asked(BASELINE, length, document).total() :]
                try:
                    await self._asker.ask(main, BASELINE, length, document, missing)
                except ConfigurationError as error:  # a chat template may be longer than that
                    self._announcer.note(f"at {length:,} tokens nothing can be asked: {error}")
                    return Cause.NOT_MEASURABLE
                if length in state.failures:
                    return state.failures[length]
                if state.reads_anew:
                    break
        baseline = state.baseline(length)
        self._announcer.emit(BaselineMeasured(model_key=state.model.key, baseline=baseline))
        if baseline.inconclusive > baseline.trials:
            return Cause.INCONCLUSIVE
        problem = SearchProblem(
            floor=length,
            ceiling=state.context_length,
            baseline=baseline,
            rule=state.rule,
            tolerance=state.options.search_tolerance,
        )
        at_floor = Observation(length_tokens=length, passes=baseline.passes, trials=baseline.trials)
        # With an absolute pass rate the baseline itself may miss it.
        if baseline.rate < LOWEST_BASELINE or problem.rule.refutes(at_floor, baseline):
            self._announcer.note(
                f"at {length:,} tokens it passes {baseline.passes} of {baseline.trials} "
                f"{main.validator.name} questions, so nothing can be said about longer prompts"
            )
            return Cause.NOT_MEASURABLE
        state.problem = await self._several(problem)
        await self._levels.baselines(state.problem, state.document(0))
        return None

    async def _several(self, problem: SearchProblem) -> SearchProblem:
        """`problem` for several questions in one request, if the engine reuses nothing and the
        model answers several at short length as well as single ones. A request for several may
        need twice the baseline's length.
        """
        state, validator = self._state, self._state.validator
        if not state.reads_anew or not isinstance(validator, SeveralValidator):
            return problem
        document, level = state.document(0), Level(validator=validator, name=SEVERAL)
        for length in (problem.floor, min(2 * problem.floor, problem.ceiling)):
            asked = state.asked(BASELINE, length, document, SEVERAL).total()
            missing = spread(tuple(validator.regions), (), length, SEVERAL_TRIALS)[asked:]
            try:
                await self._asker.ask(
                    level, BASELINE, length, document, missing, facts=validator.most_facts
                )
            except ConfigurationError:  # so many do not fit, with their answers
                continue
            break
        found, single = state.baseline(problem.floor, SEVERAL), problem.baseline
        if found.trials < SEVERAL_TRIALS:
            return problem
        worse = fisher_tail(
            found.passes,
            found.trials,
            found.passes + single.passes,
            found.trials + single.trials,
        )
        if found.rate < SEVERAL_RATE * single.rate or worse < APART:
            return problem
        state.facts = validator.most_facts
        return attrs.evolve(
            problem,
            # Where each request costs a whole reading, a certificate has to do with fewer.
            rule=attrs.evolve(problem.rule, first=1),
            baseline=found,
        )

    # 3. Search: climb and refine.  4. Certify.

    async def _search_and_certify(self) -> Cause | None:
        """Search, and put the answer to the test, until one holds."""
        state = self._state
        problem = self._problem
        going_on = state.settled_certificates() + 1
        # One that was under way is gone through again, with the answers that it has.
        state.forget_failures_of(going_on)
        # After the last one an answer that an earlier one has confirmed may be left.
        for certificate in range(going_on, MOST_CERTIFICATES + 2):
            state.settled = certificate - 1 if state.options.certifies else None
            if certificate > 2:  # so few answers at each length were not enough twice
                first = state.options.rule.first
                state.problem = attrs.evolve(problem, rule=attrs.evolve(problem.rule, first=first))
            state.beware()
            stuck = await self._search(self._searched(certificate))
            if stuck is not None or not state.options.certifies:
                return stuck
            if certificate > MOST_CERTIFICATES and not self._held(certificate):
                break
            if not (
                self._held(certificate)
                or state.affords(problem, state.bracket()[0], CERTIFY_TRIALS)
            ):
                return Cause.BUDGET_SPENT
            try:
                held = await self._certify(certificate)
            except _Unjudged as unjudged:
                self._note_unjudged(unjudged.args[0])
                return Cause.INCONCLUSIVE
            if held:
                state.settled = None
                untried = state.loadable is not None and state.loadable.untried
                state.certified = not untried and self._engine.counts_tokens
                if not self._engine.counts_tokens:
                    for note in self._engine.notes:
                        self._announcer.note(note)
                return None
            state.context_length = problem.ceiling
        self._announcer.note(f"not certified: {MOST_CERTIFICATES} results were not confirmed")
        # The last one has moved the bracket too, perhaps wide open.
        state.settled = None
        state.beware()
        return await self._search(self._searched(MOST_CERTIFICATES + 2))

    async def _look_for_truncation(self, document: int) -> None:
        """Whether a server cuts the middle out of long prompts without saying so.

        Then the number of tokens that survive stays the same however long the prompt is, while
        a middle that a model forgets grows or stays in proportion. A prompt that is far longer
        than the answer tells: the tokens before the first lost fact and after the last one.
        """
        state, problem = self._state, self._problem
        state.truncated_to = None
        low, high = state.bracket()
        if high is None or state.engine_failed(high) or not problem.rule.regions:
            return
        # At the longest length every region was asked about: see `Levels`.
        longest = state.observation(max(high, state.longest()))
        # Each by its own answers: early and late parts may be lost too.
        verdicts = {t.region: problem.rule.alone(t, problem.baseline) for t in longest.regions}
        ends = {verdicts.get(Region.HEAD), verdicts.get(Region.TAIL)}
        length = min(problem.ceiling, FAR * low)
        before = [t for t in state.of() if t.phase == TRUNCATION]
        if before:  # asked before a certificate that did not hold
            last = max(before, key=lambda t: t.length_tokens)
            length, document = last.length_tokens, last.seed
        elif verdicts.get(Region.MIDDLE) is not Verdict.FAIL or ends != {Verdict.PASS}:
            return
        if length < NEAR * low:
            return
        kept = await self._kept(length, document)
        if kept is None or abs(kept - low) >= low * KEPT_WITHIN:
            return
        # A part of the window that is lost keeps a share of any prompt; a cut keeps the tokens.
        other = high if high != length else (low + high) // 2
        nearer = await self._kept(other, document)
        if nearer is not None and abs(nearer - kept) < abs(nearer - kept * other / length):
            state.truncated_to = kept
            self._announcer.note(
                f"of {length:,} tokens the server seems to read about {kept:,}: it drops the "
                "middle of longer prompts without saying so"
            )

    async def _kept(self, length: int, document: int) -> int | None:
        """How many tokens of a prompt of `length` survive around a part that is lost, if known.

        Asks a full stage of questions about each region.
        """
        state, problem = self._state, self._problem
        count = len(Region) * problem.rule.full
        asked = state.asked(TRUNCATION, length, document).total()
        fitting = state.fitting(problem, document, length, max(0, count - asked))
        if fitting:
            regions = self._regions_of(Ask(length_tokens=length, trials=fitting), state)
            with self._probe(TRUNCATION, length, fitting):
                await self._asker.ask(state.main, TRUNCATION, length, document, regions)
        seen = state.observation(length)
        whole = length if seen.passes >= HARDLY_LOST * seen.trials else None
        return _kept_tokens(state.at(length), length) or whole

    async def _search(self, document: int) -> Cause | None:
        """Do what the strategy says until it is done, and the levels too: one that counts moves
        the answer if it fails below.

        Returns a cause if that gives no answer.
        """
        state, problem = self._state, self._problem
        self._announcer.phase(SEARCH)
        shown: tuple[int, int | None] | None = None
        await self._finish_step(document)
        while True:
            history = state.evidence()
            bracket = state.strategy.bracket(problem, history)
            if bracket != shown:
                shown = bracket
                self._announcer.emit(
                    BracketChanged(model_key=state.model.key, low=bracket[0], high=bracket[1])
                )
            limited = state.refreshed(problem, document)
            step = state.strategy.next_step(limited, history)
            _check_step(state.strategy.name, limited, step)
            if isinstance(step, Ask):
                length = step.length_tokens
                if length < state.longest():
                    await self._levels.at_longest(problem, document)
                regions = self._regions_of(step, state)
                with self._probe(SEARCH, length, len(regions)):
                    await self._asker.ask(state.main, SEARCH, length, document, regions)
                seen = state.observation(length)
                if seen.failure is None and problem.rule.is_mute(seen, problem.baseline):
                    self._note_unjudged(length)
                    return Cause.INCONCLUSIVE
            elif isinstance(state.strategy.next_step(_unlimited(limited), history), Ask):
                # Nothing is left to spend: it goes on another time.
                return Cause.BUDGET_SPENT
            elif await self._levels.measure(problem, document):
                break
            else:
                self._announcer.phase(SEARCH)
        if state.options.only_at is not None:
            return None
        if state.verdict(problem.floor) is Verdict.FAIL:
            self._announcer.note(f"its answers at {problem.floor:,} tokens contradict the baseline")
            return Cause.INCONCLUSIVE
        await self._look_for_truncation(document)
        return None

    async def _finish_step(self, document: int) -> None:
        """Ask the rest of the questions of a step in the middle of which an earlier run was
        killed, so that the search takes the same path.

        All questions of a step are about one length, so a step begins where the length changes;
        from there on each step is what the strategy says to the answers before it.
        """
        state, problem = self._state, self._problem
        count = len(state.trials)
        last = _probe_of(state.trials[-1])
        length = state.trials[-1].length_tokens
        searching = last == (MAIN, SEARCH, document, length)
        if count > state.resumed or length in state.failures or not searching:
            return
        done = count - sum(1 for _ in takewhile(lambda t: _probe_of(t) == last, state.trials[::-1]))
        while done < count:
            before = state.before(done)
            costing = _unlimited(before.refreshed(problem, document))
            step = state.strategy.next_step(costing, before.evidence())
            if isinstance(step, Done) or step.length_tokens != length:
                return
            planned = self._regions_of(step, before)
            asked = [t.region for t in state.trials[done:][: len(planned)]]
            if planned[: len(asked)] != asked:
                return
            done += len(planned)
            missing = planned[len(asked) :]
            fitting = state.fitting(problem, document, length, len(missing))
            if fitting:
                with self._probe(SEARCH, length, fitting):
                    await self._asker.ask(state.main, SEARCH, length, document, missing[:fitting])

    def _note_unjudged(self, length: int) -> None:
        """With what is known all the same: below that length there may have been an answer."""
        right = [
            o
            for o in self._state.evidence()
            if o.length_tokens < length and 0 < o.trials == o.passes
        ]
        known = ""
        if right:
            at = max(right, key=lambda o: o.length_tokens)
            known = f"; at {at.length_tokens:,} tokens {at.passes} of {at.trials} were right"
        self._announcer.note(f"at {length:,} tokens too few replies could be judged{known}")

    async def _certify(  # noqa: C901 - one certificate, from its load to its weak regions
        self, certificate: int
    ) -> bool:
        """Whether both ends of the bracket hold on a fresh load, on each of fresh documents, and
        the answer also in its weak regions, on one more.

        The load holds both ends, so that one reading serves both. If the answer does not hold and
        another one is known just below, that one is put to the test at once: the document is read
        already. If texts disagree between the answer and the length that failed, that length is
        asked about once, and may also turn out to be such a one.
        """
        self._announcer.phase(CERTIFY)
        await self._engine.release()
        state, spare = self._state, self._spare(certificate)
        low, high = state.bracket()
        beyond = self._unconfirmed(certificate)
        size = state.context_length = max(self._certified_at(low, high), beyond)
        while True:
            held = self._held(certificate)
            if certificate > MOST_CERTIFICATES and not held:
                return False
            for document in () if held else self._certifying(certificate):
                while not await self._holds(low, document):
                    if not await self._steps_down(low, size, document):
                        return False
                    low, high = state.bracket()
                if beyond:
                    await self._fails_again(beyond, document)
                if high is None or high in state.failures:
                    continue
                if not await self._fails_again(high, document):
                    self._announcer.note(
                        f"at {high:,} tokens the first text failed, but a fresh one did not"
                    )
                    return False
            if await self._holds_where_weak(low, spare):
                return True
            if not await self._steps_down(low, size, spare):
                return False
            low, high = state.bracket()

    def _held(self, certificate: int) -> bool:
        """Whether an earlier certificate than this one has confirmed the present answer: it was
        its upper end, or a longer answer, that did not hold.
        """
        state, low = self._state, self._state.bracket()[0]
        own = self._certifying(certificate)
        # One that has asked about a longer answer already goes on in its own text.
        asked = (t for t in state.of() if t.phase == CERTIFY and t.seed in own)
        if any(t.length_tokens > low for t in asked):
            return False
        return any(
            all(
                self._is_asked(low, document) and self._stands(low, document)
                for document in self._certifying(earlier)
            )
            for earlier in range(1, certificate)
        )

    def _is_asked(self, length: int, document: int) -> bool:
        """Whether a certificate has asked all of its questions about a lower end."""
        alone, regions = self._state.certificate(length, document), self._problem.rule.regions
        asked = {t.region: t.trials + t.inconclusive for t in alone.regions}
        if not regions:
            return alone.trials + alone.inconclusive >= CERTIFY_TRIALS
        return all(asked.get(region, 0) >= self._fresh_in_region for region in regions)

    @property
    def _fresh_in_region(self) -> int:
        """How many fresh questions about each region the lower end of a bracket is asked first."""
        return CERTIFY_IN_REGION if self._state.facts == 1 else CERTIFY_SEVERAL

    def _stands(self, length: int, document: int) -> bool:
        """Whether all that is known at a length passes, and the answers on `document` alone do not
        refute it.
        """
        state, problem = self._state, self._problem
        alone = state.certificate(length, document)
        # All answers decide by their rate; the new ones alone, by what chance cannot explain.
        refuting = attrs.evolve(problem.rule, most=alone.trials + 1)
        return (
            state.verdict(length) is Verdict.PASS
            and refuting.verdict(alone, problem.baseline) is not Verdict.FAIL
        )

    def _certified_at(self, low: int, high: int | None) -> int:
        """The size to load for a certificate of `low`. If the answers failed at `high`, with room
        for a search that goes on a little higher in the same text.
        """
        if high is None or high in self._state.failures:
            return low
        step = self._problem.step_at(low)
        room = int(low / NEAR_ENOUGH) // step * step
        return min(self._problem.ceiling, max(high, room))

    def _unconfirmed(self, certificate: int) -> int:
        """The length that ends the bracket beyond disputed ones, if only the text of the search
        was asked about there and a load for it serves the answer too; else 0.
        """
        state, own = self._state, self._certifying(certificate)
        (low, high), history = state.bracket(), state.evidence()
        upper = state.upper_end(history) if high in state.disputed(history) else None
        if upper is None or upper in state.failures or low < NEAR_ENOUGH * upper:
            return 0
        asked = (t for t in state.of() if t.phase == CERTIFY and t.length_tokens == upper)
        return 0 if any(t.seed not in own for t in asked) else upper

    async def _steps_down(self, low: int, size: int, document: int) -> bool:
        """Note that an answer did not hold. True if another one is known just below it, near
        enough to `size`, which is loaded, and the engine need not read it anew; else the search has
        to go on.
        """
        state, problem = self._state, self._problem
        failed = state.engine_failed(low)
        self._announcer.note(
            f"the engine failed at {low:,} tokens, where it had answered before"
            if failed
            else f"{low:,} tokens passed on the first text, but not on a fresh one"
        )
        if low <= problem.floor:  # the baseline's own length: there is no lower answer
            return False
        if not failed:
            await self._asker.record_failure(low, limit_of(state.at(low)))
            state.beware()
        if state.reads_anew:
            return False
        costing = _unlimited(state.refreshed(self._problem, document))
        step = state.strategy.next_step(costing, state.evidence())
        return isinstance(step, Done) and step.low >= NEAR_ENOUGH * size

    async def _holds(self, length: int, document: int) -> bool:
        """Whether all that is known at this length, the old document's answers and the new one's,
        still passes, and the new ones alone do not refute it.

        Raises `_Unjudged` if most of the new ones say nothing either way.
        """
        state, problem = self._state, self._problem
        rule = problem.rule
        count = self._fresh_in_region * len(rule.regions) or CERTIFY_TRIALS
        await self._ask_fresh(length, document, count)
        alone = state.certificate(length, document)
        unjudged = alone.failure is None and alone.inconclusive * 2 > count
        if unjudged and state.verdict(length) is not Verdict.FAIL:
            raise _Unjudged(length)
        unjudged_steps = 0
        while state.verdict(length) is Verdict.UNDECIDED:
            costing = state.refreshed(problem, document)
            ask = missing_at(costing, length, state.observation(length))
            if ask is None:
                break
            fitting = state.fitting(problem, document, length, ask.trials)
            before = state.observation(length)
            regions = self._regions_of(attrs.evolve(ask, trials=fitting), state)
            with self._probe(CERTIFY, length, fitting):
                await self._asker.ask(state.main, CERTIFY, length, document, regions)
            after = state.observation(length)
            unjudged_steps = unjudged_steps + 1 if after.trials == before.trials else 0
            useless = unjudged_steps >= MUTE or rule.is_mute(after, problem.baseline)
            if after.failure is None and useless:
                # Hardly one could be judged: asked again, it would be so again.
                raise _Unjudged(length)
        return self._stands(length, document)

    async def _holds_where_weak(self, length: int, document: int) -> bool:
        """Whether each region that did badly at `length` holds on one more document: its answers
        there do not refute it, and all answers together pass.

        The rule judges regions that do not differ from the rest by all answers together, so one
        that fades a little earlier than the others may have passed by theirs. And the worst of
        five regions may be bad luck: only new questions tell.
        """
        state, problem = self._state, self._problem
        rule = problem.rule
        regions = rule.weak(state.without_phases(length, WEAK), problem.baseline)
        if not regions:
            return True
        await self._ask_fresh(length, document, rule.most * len(regions), regions, WEAK)
        alone = state.certificate(length, document, WEAK)
        if alone.failure is None and any(rule.hides(t, problem.baseline) for t in alone.regions):
            raise _Unjudged(length)
        refuting = attrs.evolve(rule, most=alone.trials + 1)
        return Verdict.FAIL not in (
            rule.verdict(state.observation(length), problem.baseline),
            *(refuting.alone(tally, problem.baseline) for tally in alone.regions),
        )

    async def _fails_again(self, length: int, document: int) -> bool:
        """Whether a length that failed also fails on a fresh document: the regions that were
        lost there, or all if none stands out.

        Where a lost region holds but a fact or two, the fresh ones may stand beside what is lost.
        So facts at the same places are asked for too, on other documents, before they overrule it.
        """
        state, problem = self._state, self._problem
        rule = problem.rule
        # As it was before the first of these questions, also if the run was killed since.
        before = state.without_certificate(length, document)
        lost = rule.lost(before, problem.baseline)
        apart = [r for r in rule.regions if r in lost] if len(lost) < len(rule.regions) else []
        first = max(POOLED_FIRST, state.facts)
        # About a region alone, until its answers here decide.
        counts = (first, rule.full, rule.most) if apart else (first, rule.full)
        for count in counts:
            await self._ask_fresh(length, document, count * max(1, len(apart)), apart)
            alone = state.certificate(length, document)
            if rule.verdict(alone, problem.baseline) is Verdict.FAIL:
                break
            if alone.trials >= rule.full and state.verdict(length) is not Verdict.FAIL:
                break
        alone = state.certificate(length, document)
        few = [t.region for t in alone.regions if t.region in lost and t.lost_facts is None]
        contradicts = rule.verdict(alone, problem.baseline) is not Verdict.FAIL
        for other in state.other_documents if contradicts else ():
            for region in few:
                count = state.options.rule.first
                await self._ask_fresh(length, other, count, [region], ELSEWHERE)
        return state.verdict(length) is Verdict.FAIL

    async def _ask_fresh(
        self,
        length: int,
        document: int,
        count: int,
        regions: Sequence[Region | None] = (),
        phase: str = CERTIFY,
    ) -> None:
        """Bring a certificate's questions at one length up to `count`, about `regions` or all.

        Raises `BudgetSpent` if they are not expected to fit, after those that are.
        """
        state, problem = self._state, self._problem
        asked = state.asked(phase, length, document)
        if regions:
            planned = [regions[at % len(regions)] for at in range(count)]
        else:
            planned = spread(problem.rule.regions, (), length, count)
        missing: list[Region | None] = []
        for region in planned:
            if asked[region]:
                asked[region] -= 1
            else:
                missing.append(region)
        fitting = state.fitting(problem, document, length, len(missing))
        with self._probe(phase, length, fitting):
            await self._asker.ask(state.main, phase, length, document, missing[:fitting])
        if fitting < len(missing) and length not in state.failures:
            raise BudgetSpent

    def _regions_of(self, step: Ask, state: State) -> list[Region | None]:
        """The region of each question of `step`, if `state` is what was known before it."""
        if step.region is not None:
            return [step.region] * step.trials
        regions = self._problem.rule.regions or tuple(state.validator.regions)
        return spread(regions, state.history(), step.length_tokens, step.trials)

    @contextmanager
    def _probe(self, phase: str, length: int, trials: int) -> Generator[None]:
        """Announce `trials` questions at a length, and what is known there after them."""
        self._announcer.probe(phase, length, trials)
        yield
        self._announcer.probed(phase, self._state.observation(length), self._state.verdict(length))

    def _searched(self, certificate: int) -> int:
        """The document of the search before a certificate: after a broken one the document that
        was read last, which may be in the cache.
        """
        state = self._state
        return state.document(0) if certificate == 1 else state.read_before(certificate)

    def _certifying(self, certificate: int) -> Sequence[int]:
        """The fresh documents of a certificate; the first has the number 1."""
        fresh = self._state.fresh
        first = 1 + (certificate - 1) * fresh
        return [self._state.document(number) for number in range(first, first + fresh)]

    def _spare(self, certificate: int) -> int:
        """One more fresh document, beyond those of all certificates."""
        return self._state.document(MOST_CERTIFICATES * self._state.fresh + certificate)

    @property
    def _problem(self) -> SearchProblem:
        if self._state.problem is None:
            raise RuntimeError("the baseline is not measured yet")
        return self._state.problem


def _probe_of(trial: Trial) -> tuple[str, str, int, int]:
    return trial.level, trial.phase, trial.seed, trial.length_tokens


def _check_step(strategy: str, problem: SearchProblem, step: object) -> None:
    """Raises `ConfigurationError` for what is no step: nobody else would end the search."""
    asks = (
        isinstance(step, Ask)
        and step.trials >= 1
        and problem.floor <= step.length_tokens <= problem.ceiling
    )
    if not (asks or isinstance(step, Done)):
        raise ConfigurationError(
            f"the strategy {strategy!r} gave {step!r:.200}, which is no step",
            hint="A step is `Done`, or an `Ask` for one question or more at a length between the"
            " problem's floor and ceiling.",
        )


def _unlimited(problem: SearchProblem) -> SearchProblem:
    """The same, with as much to spend as it takes."""
    return attrs.evolve(problem, remaining_tokens=None, remaining_s=None)


def _kept_tokens(trials: Sequence[Trial], length: int) -> int | None:
    """Tokens before the first lost fact and after the last one; None if none or all are lost.

    A miss counts as a loss only next to another one, for it may be a lapse.
    """
    told = sorted((t.depth, t.judgement is Judgement.PASS) for t in trials if t.depth is not None)
    right = [True, *(passed for _, passed in told), True]
    missed = [
        at
        for at in range(len(told))
        # `right` is shifted by one: these are the neighbours.
        if not right[at + 1] and not (right[at] and right[at + 2])
    ]
    if not missed or missed[0] == 0 or missed[-1] == len(told) - 1:
        return None
    first = (told[missed[0] - 1][0] + told[missed[0]][0]) / 2
    last = (told[missed[-1]][0] + told[missed[-1] + 1][0]) / 2
    return round(length * (1 - (last - first)))
