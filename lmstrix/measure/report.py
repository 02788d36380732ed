"""From the state of a run to its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from statistics import median

import attrs

from lmstrix.errors import (
    InfrastructureError,
    InvalidModel,
    LMStrixError,
    LoadError,
    ModelInUse,
    ModelNotFound,
    UnsupportedModel,
)
from lmstrix.measure.levels import level_bracket
from lmstrix.measure.loading import load_cause
from lmstrix.measure.state import ANSWERS, MAIN, Level, State, limit_of
from lmstrix.models import (
    UNFINISHED,
    Baseline,
    Cause,
    ContextReport,
    Cost,
    CurvePoint,
    Environment,
    Interval,
    LevelReport,
    Method,
    ModelInfo,
    Region,
    RegionReport,
    Status,
    Usable,
    Verdict,
)
from lmstrix.problem import Done, SearchProblem, with_counts
from lmstrix.speed import ReadingTimes, usable_context
from lmstrix.stats import wilson

NO_INTERVAL = Interval(low=0, high=None, level=0.0)


def build_report(state: State, cause: Cause | None) -> ContextReport:
    """The report that the evidence carries; `cause` if something else ended the run."""
    problem, loadable = state.problem, state.loadable
    bracket: tuple[int, int | None] = (0, None)
    interval = NO_INTERVAL
    true_context: int | None = None
    estimate: int | None = None
    levels: tuple[LevelReport, ...] = ()
    regions: tuple[RegionReport, ...] = ()
    curve = tuple(curve_of(state, problem))
    notes = state.announcer.notes
    if problem and cause is not Cause.INCONCLUSIVE:
        history = state.evidence()
        low, high = state.strategy.bracket(problem, history)
        interval = state.strategy.interval(problem, history)
        if high in state.disputed(state.history()):
            high = state.upper_end(state.history()) or high
            notes = [
                *notes,
                f"between {low:,} and {high:,} tokens answers neither clearly pass nor fail",
            ]
            # Never narrower than the bracket.
            interval = attrs.evolve(interval, high=interval.high and max(interval.high, high))
        true_context = low if state.options.only_at is None else None
        cause = cause or _cause(state, problem, (low, high))
        # If nothing failed, the size that did not load is the upper end.
        bracket = (low, high if high is not None or loadable is None else loadable.failed_at)
        step = state.strategy.next_step(problem, history)
        estimate = step.estimate if isinstance(step, Done) else None
        regions = tuple(_regions(state, problem, cause, low))
        levels = tuple(_levels(state, problem, bracket, cause))
    report = ContextReport(
        model=state.model,
        declared_context=state.model.declared_context,
        loadable_context=loadable.context_length if loadable else None,
        true_context=true_context,
        cause=cause or Cause.INCONCLUSIVE,
        certified=state.certified,
        bracket=bracket,
        interval=interval,
        monotone=_is_monotone(state, problem),
        baseline=problem.baseline if problem else state.baseline(state.validator.baseline_length),
        curve=curve,
        cost=state.told_cost(state.total_cost()),
        method=state.method,
        environment=environment_of(state.status, state.model)
        if state.status
        else Environment(adapter=""),
        started_at=state.started_at,
        finished_at=datetime.now(UTC),
        levels=levels,
        regions=regions,
        estimate=estimate,
        usable=_usable(state, curve, true_context),
        notes=tuple(notes),
    )
    if not (report.certified and report.vague):
        return report
    note = "not certified: the answers vary so much that the limit may be far higher"
    return attrs.evolve(report, certified=False, notes=(*report.notes, note))


def unmeasured_report(
    *,
    model: ModelInfo,
    error: LMStrixError,
    method: Method,
    environment: Environment,
) -> ContextReport:
    """The report of a model that could not be measured at all, with the cause in `error`."""
    now = datetime.now(UTC)
    notes = (str(error), *((error.hint,) if error.hint else ()))
    return ContextReport(
        model=model,
        declared_context=model.declared_context,
        loadable_context=None,
        true_context=None,
        cause=cause_of(error),
        certified=False,
        bracket=(0, None),
        interval=NO_INTERVAL,
        monotone=True,
        baseline=Baseline(passes=0, trials=0),
        curve=(),
        cost=Cost(),
        method=method,
        environment=environment,
        started_at=now,
        finished_at=now,
        notes=notes,
    )


def _usable(state: State, curve: Sequence[CurvePoint], true_context: int | None) -> Usable | None:
    speed, wait = state.options.min_tokens_per_second, state.options.max_ttft_s
    if speed is None and wait is None:
        return None
    limit = usable_context(curve, true_context or 0, min_tokens_per_second=speed, max_ttft_s=wait)
    return Usable(limit_tokens=limit, min_tokens_per_second=speed, max_ttft_s=wait)


def cause_of(error: LMStrixError) -> Cause:
    """The cause of a measurement that ended with this error."""
    if isinstance(error, LoadError):
        return load_cause(error)
    causes: tuple[tuple[type[LMStrixError], Cause], ...] = (
        (ModelNotFound, Cause.MODEL_NOT_FOUND),
        (InvalidModel, Cause.INVALID_MODEL),
        (UnsupportedModel, Cause.UNSUPPORTED_MODEL),
        (ModelInUse, Cause.MODEL_IN_USE),
        (InfrastructureError, Cause.INFRASTRUCTURE),
    )
    return next((cause for kind, cause in causes if isinstance(error, kind)), Cause.INCONCLUSIVE)


def _cause(state: State, problem: SearchProblem, bracket: tuple[int, int | None]) -> Cause:
    """Why the true context is not larger."""
    _, high = bracket
    if high is None:
        return _end_of(state)
    failure = state.failures.get(high)
    if not state.engine_failed(high) and state.truncated_to is not None:
        return Cause.TRUNCATED
    return failure or _limit_at(state, problem, high)


def _end_of(state: State) -> Cause:
    """Why nothing larger was tried than what was loaded."""
    if state.loadable is None:
        return Cause.INCONCLUSIVE
    if state.loadable.limit is not None:
        return state.loadable.limit
    declared = state.model.declared_context == state.loadable.context_length
    return Cause.DECLARED_MAXIMUM if declared else Cause.MAX_CONTEXT


def _limit_at(state: State, problem: SearchProblem, length: int) -> Cause:
    """Why the answers at `length` are wrong: no language any more, or facts forgotten."""
    if level := state.failed_level(length):
        return limit_of(state.at(length, level.key))
    lost = problem.rule.lost(state.observation(length), problem.baseline)
    return limit_of(t for t in state.at(length) if not lost or t.region in lost)


def _is_monotone(state: State, problem: SearchProblem | None) -> bool:
    """Whether no length failed below one that passed."""
    failed = False
    for seen in state.history() if problem else ():
        verdict = problem.rule.verdict(seen, problem.baseline) if problem else None
        if verdict is Verdict.PASS and failed:
            return False
        failed = failed or verdict is Verdict.FAIL
    return True


def environment_of(status: Status, model: ModelInfo) -> Environment:
    """The part of `status` that a result of `model` depends on."""
    return Environment(
        adapter=status.adapter,
        engine=status.engine,
        versions=dict(status.versions),
        load_config={**status.load_config, **model.load_config},
    )


def curve_of(
    state: State, problem: SearchProblem | None, level: str = MAIN
) -> Iterator[CurvePoint]:
    """What is known at each length that was tried for one level, in ascending order."""
    times = ReadingTimes(with_counts(state.trials))
    disputed = state.disputed(state.history()) if level == MAIN else ()
    for seen in state.history(level):
        open_to_doubt = seen.length_tokens in disputed
        trials = state.at(seen.length_tokens, level)
        waits = [t.ttft_s for t in trials if t.ttft_s is not None]
        speeds = [t.tokens_per_second for t in trials if t.tokens_per_second]
        full = times.ttft_s(max((t.prompt_tokens for t in trials), default=0))
        yield CurvePoint(
            length_tokens=seen.length_tokens,
            trials=seen.trials,
            passes=seen.passes,
            verdict=problem.rule.verdict(seen, problem.baseline)
            if problem and not open_to_doubt
            else Verdict.UNDECIDED,
            wilson=wilson(seen.passes, seen.trials),
            ttft_s=max(waits, default=None),
            tokens_per_second=median(speeds) if speeds else None,
            full_ttft_s=None if full is None else round(full, 3),
            inconclusive=seen.inconclusive,
            depths=seen.regions,
            failure=None if open_to_doubt else seen.failure,
        )


def _regions(
    state: State, problem: SearchProblem, ended: Cause, true_context: int
) -> Iterator[RegionReport]:
    """The limit of each region. A failure of the engine itself is the end of all of them.

    Beyond the `true_context`, where some region fails, another one works only if its own answers
    say so: few of them may be taken together with those of the others, and pass so.
    """
    rule, baseline = problem.rule, problem.baseline
    verdicts = [
        (o.length_tokens, rule.region_verdicts(o, baseline), rule.clearly_lost(o, baseline))
        for o in state.history()
    ]
    enough = rule.threshold(baseline)
    bad = {
        (o.length_tokens, tally.region)
        for o in state.history()
        for tally in o.regions
        if o.length_tokens > true_context and tally.passes < enough * tally.trials
    }
    disputed = state.disputed(state.history())
    dead = min((n for n, _, _ in verdicts if state.engine_failed(n)), default=None)
    # A certificate that did not hold is the end of the regions that did not pass there.
    unheld = [
        o.length_tokens
        for o in state.history()
        if o.failure in ANSWERS and not state.failed_level(o.length_tokens)
    ]
    for region in rule.regions:
        lost = [n for n, _, failed in verdicts if region in failed]
        ends = [*lost, *(n for n in unheld if _is_weakest(state, region, n))]
        end = min(ends, default=None)
        high = min((n for n in ends if n not in disputed), default=None)
        if dead is not None and (end is None or dead < end):
            end = high = dead
        limit = max(
            (
                n
                for n, found, _ in verdicts
                if found.get(region) is Verdict.PASS
                and n < (end or n + 1)
                and (n, region) not in bad
                and not state.engine_failed(n)
            ),
            default=problem.floor,
        )
        if dead is not None and end == dead:
            cause = state.failures[dead]
        elif end is not None:
            cause = limit_of(t for t in state.at(high or end) if t.region is region)
            cause = Cause.TRUNCATED if state.truncated_to is not None else cause
        elif ended in UNFINISHED:
            cause = ended
        else:
            at_the_end = state.loadable and limit == state.loadable.context_length
            cause = _end_of(state) if at_the_end else Cause.NOTHING_FAILED
        yield RegionReport(region=region, limit_tokens=limit, bracket=(limit, high), cause=cause)


def _is_weakest(state: State, region: Region, length: int) -> bool:
    """Whether no other region has a lower pass rate at `length`, and this one has misses."""
    told = (t for t in state.observation(length).regions if t.trials)
    rates = {t.region: t.passes / t.trials for t in told}
    return bool(rates) and rates.get(region, 1.0) == min(rates.values()) < 1.0


def _levels(
    state: State, problem: SearchProblem, bracket: tuple[int, int | None], cause: Cause
) -> Iterator[LevelReport]:
    """The levels that count first, then the validator itself, then the deeper ones.

    `bracket` and `cause` are the main search's, which a level that counts may have ended. Nothing
    if only the validator was measured.
    """
    if not state.levels:
        return
    required = [level for level in state.levels if level.required]
    for level in required:
        yield _level(state, level, cause)
    if bracket[1] is not None and state.failed_level(bracket[1]):
        bracket = level_bracket(state, problem, state.main)
        cause = Cause.NOTHING_FAILED if bracket[1] is None else limit_of(state.at(bracket[1]))
    yield LevelReport(
        name=state.validator.name,
        limit_tokens=bracket[0],
        bracket=bracket,
        cause=cause,
        baseline=problem.baseline,
        curve=tuple(curve_of(state, problem)),
    )
    for level in state.levels:
        if level not in required:
            yield _level(state, level, cause)


def _level(state: State, level: Level, ended: Cause) -> LevelReport:
    """`ended` is why the measurement ended: if too early, it is the cause of its levels too."""
    problem = state.level_problems.get(level.key)
    baseline = state.baseline(level.validator.baseline_length, level.key)
    if problem is None:
        return LevelReport(
            name=level.key,
            limit_tokens=None,
            bracket=(0, None),
            cause=ended if ended in UNFINISHED else Cause.NOT_MEASURABLE,
            baseline=baseline,
        )
    low, high = level_bracket(state, problem, level)
    if high is not None:
        cause = limit_of(state.at(high, level.key))
    elif ended in UNFINISHED:
        cause = ended
    elif state.loadable is not None and low == state.loadable.context_length:
        cause = _end_of(state)
    else:
        cause = Cause.NOTHING_FAILED
    return LevelReport(
        name=level.key,
        limit_tokens=low,
        bracket=(low, high),
        cause=cause,
        baseline=baseline,
        curve=tuple(curve_of(state, problem, level.key)),
    )
