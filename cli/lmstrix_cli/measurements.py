"""Measures one or more models for `test` and `demo`: the plan, the known results, the batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import attrs
import click

from lmstrix import Event, Forecast, LMStrix, MeasurementFinished, MeasureOptions
from lmstrix.errors import ConfigurationError, LMStrixError, StoreError
from lmstrix.models import (
    Cause,
    ContextReport,
    LevelReport,
    ModelInfo,
    Outcome,
    SizeCheck,
    check_of,
)
from lmstrix.reports.text import render_text
from lmstrix.reports.words import (
    CAUSE_SENTENCES,
    dump_report,
    say_bytes,
    say_cause,
    say_percent,
    say_seconds,
)
from lmstrix.serialize import to_json
from lmstrix_cli import safe_text
from lmstrix_cli.errors import ExitCode, code_of_report, explain_known, worst
from lmstrix_cli.formats import Column, show_rows
from lmstrix_cli.progress import Progress
from lmstrix_cli.running import Interrupted, run_async
from lmstrix_cli.safe_text import fold, label

__all__ = [
    "Batch",
    "Plan",
    "check_lines",
    "code_of_check",
    "plan_models",
    "show_plans",
]


UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Plan:
    """One model: `known` is its valid result, if it has one; else the forecast counts."""

    model: ModelInfo
    forecast: Forecast
    known: ContextReport | None = None
    seconds_per_token: float | None = None
    """By an earlier measurement of this very model with this adapter; None: there is none."""

    @property
    def fits(self) -> bool | None:
        """Whether memory is expected to hold the largest wanted length; None: not known."""
        return self.forecast.memory.fits if self.forecast.memory else None

    @property
    def seconds(self) -> float | None:
        """Expected seconds; None if no speed is known."""
        speed = self.seconds_per_token
        return None if speed is None else speed * self.forecast.usual_prompt_tokens


async def plan_models(
    client: LMStrix,
    models: Sequence[str | ModelInfo],
    options: MeasureOptions,
    known: Mapping[str, ContextReport],
) -> tuple[list[Plan], list[ExitCode]]:
    """A plan for each model that is found; for the others, a message and an exit code."""
    plans: list[Plan] = []
    codes: list[ExitCode] = []
    speeds = await _speeds(client)
    for model in models:
        try:
            forecast = await client.forecast(model, options)
            found, adapter = forecast.model, client.adapter_for(model).name
            plans.append(
                Plan(
                    model=found,
                    forecast=forecast,
                    known=known.get(found.key),
                    seconds_per_token=speeds.get((adapter, found.key, found.digest)),
                )
            )
        except (ConfigurationError, StoreError):
            raise
        except LMStrixError as error:
            codes.append(explain_known(error))
    return plans, codes


async def _speeds(client: LMStrix) -> dict[tuple[str, str, str], float]:
    """Seconds for each prompt token that was read, all included, in the newest measurements."""
    speeds: dict[tuple[str, str, str], float] = {}
    for stored in await client.reports():
        report, cost = stored.report, stored.report.cost
        if cost.prompt_tokens > 0 and cost.seconds > 0:
            of = (report.environment.adapter, report.model.key, report.model.digest)
            speeds.setdefault(of, cost.seconds / cost.prompt_tokens)
    return speeds


def show_plans(plans: Sequence[Plan], options: MeasureOptions, *, as_json: bool) -> None:
    """Print them: a table, or one object for each model."""
    if as_json:
        for plan in plans:
            safe_text.json_line(json.dumps(_facts(plan, options), ensure_ascii=False))
        return
    if not plans:
        return  # the errors were printed
    show_rows("table", _COLUMNS, plans)
    safe_text.out("\n" + "\n".join(_sum_up(plans, options)) + "\nNothing was loaded.")


def _sum_up(plans: Sequence[Plan], options: MeasureOptions) -> Iterator[str]:
    fresh = [plan for plan in plans if plan.known is None]
    if not fresh:
        yield f"Nothing to measure: {len(plans)} known. --fresh measures again."
        return
    tokens = sum(plan.forecast.usual_prompt_tokens for plan in fresh)
    times = [plan.seconds for plan in fresh]
    time = UNKNOWN if None in times else say_seconds(sum(filter(None, times)))
    budget = "" if options.budget_s is None else f" ({say_seconds(options.budget_s)} each at most)"
    loads = sum(plan.forecast.loads for plan in fresh)
    yield f"{len(fresh)} to measure{budget}, {len(plans) - len(fresh)} known."
    yield f"About {_say_count(tokens)} prompt tokens, {loads} loads or more, time: {time}."
    yield "TOKENS: if the answer is LARGEST and the engine reuses its KV cache; then the"
    yield "worst case. An engine that reuses nothing reads several times as many."


def _facts(plan: Plan, options: MeasureOptions) -> dict[str, object]:
    forecast, memory = plan.forecast, plan.forecast.memory
    return {
        "model": plan.model.key,
        "known": plan.known is not None,
        "true_context": plan.known.true_context if plan.known else None,
        "largest_length": forecast.largest_length,
        "memory_length": memory.context_length if memory else None,
        "memory_bytes": memory.total_bytes if memory else None,
        "available_bytes": memory.available_bytes if memory else None,
        "fits": plan.fits,
        "usual_prompt_tokens": forecast.usual_prompt_tokens,
        "most_prompt_tokens": forecast.most_prompt_tokens,
        "least_loads": forecast.loads,
        "seconds": plan.seconds,
        "budget_s": options.budget_s,
    }


def _say_memory(plan: Plan) -> str:
    memory = plan.forecast.memory
    return say_bytes(memory.total_bytes) if memory else UNKNOWN


def _say_fits(plan: Plan) -> str:
    return UNKNOWN if plan.fits is None else "yes" if plan.fits else "no"


def _say_known(plan: Plan) -> str:
    return "measure" if plan.known is None else "known"


def _say_tokens(plan: Plan) -> str:
    usual, most = plan.forecast.usual_prompt_tokens, plan.forecast.most_prompt_tokens
    if plan.known is not None:
        return "0"
    return _say_count(usual) if usual == most else f"{_say_count(usual)} to {_say_count(most)}"


def _say_count(tokens: int) -> str:
    """It is an estimate: no more digits than that, and the same unit in all rows."""
    return f"{max(1, round(tokens / 1024))}k" if tokens else "0"


def _say_time(plan: Plan) -> str:
    if plan.known is not None:
        return "-"
    return UNKNOWN if plan.seconds is None else say_seconds(plan.seconds)


_COLUMNS: list[Column[Plan]] = [
    Column(head="MODEL", least=14, text=lambda plan: plan.model.key),
    Column(head="PLAN", text=_say_known),
    Column(head="LARGEST", right=True, text=lambda plan: str(plan.forecast.largest_length)),
    Column(head="MEMORY", right=True, text=_say_memory),
    Column(head="FITS", text=_say_fits),
    Column(head="TOKENS", right=True, text=_say_tokens),
    Column(head="TIME", text=_say_time),
]


_NO_FAILURE = {Cause.DECLARED_MAXIMUM, Cause.MAX_CONTEXT, Cause.NOTHING_FAILED}
"""Their sentences say that nothing failed up to there; beyond it nothing was tried."""


def code_of_check(check: SizeCheck, report: ContextReport) -> ExitCode:
    """0 for a pass, 1 for a fail; if the check is inconclusive, the code of `report`."""
    if check.outcome is Outcome.PASS:
        return ExitCode.MEASURED
    code = code_of_report(report)
    untold = check.outcome is Outcome.INCONCLUSIVE and code is not ExitCode.MEASURED
    return code if untold else ExitCode.OTHER


def check_lines(check: SizeCheck) -> Iterator[str]:
    """The verdict and its evidence. Escaped."""
    yield f"{label(check.model.key)} at {check.length_tokens} tokens: {check.outcome}"
    if check.cause is not None:
        said = "" if check.cause in _NO_FAILURE else f". {CAUSE_SENTENCES[check.cause]}"
        yield f"cause: {say_cause(check.cause)}{said}"
    if check.trials:
        low, high = check.wilson.low, check.wilson.high
        short = check.baseline
        yield (
            f"{check.passes} of {check.trials} correct"
            f" (95% interval {100 * low:.0f} to {say_percent(high)}),"
            f" at {short.length_tokens} tokens {short.passes} of {short.trials}"
        )
    for level in check.levels:
        if level.name != check.method.validator:
            yield f"{label(level.name)}: {_at(level, check.length_tokens)}"
    if check.tokens_per_second is not None:
        yield f"speed: {check.tokens_per_second:.1f} tokens a second"
    yield from (f"note: {label(note)}" for note in check.notes)
    cost = check.cost
    loads = "1 load" if cost.loads == 1 else f"{cost.loads} loads"
    yield f"cost: {loads}, {cost.prompt_tokens} prompt tokens, {say_seconds(cost.seconds)}"
    yield "No true context: no other length was tested, and nothing was stored."


def _at(level: LevelReport, length: int) -> Outcome:
    _, failed = level.bracket
    if failed is not None and failed <= length:
        return Outcome.FAIL
    return Outcome.PASS if (level.limit_tokens or 0) >= length else Outcome.INCONCLUSIVE


WIDEST_REPORT = 100


class Batch:
    """Measures, prints each result as soon as it is there, and remembers the exit codes."""

    def __init__(
        self, *, options: MeasureOptions, progress: Progress, as_json: bool, again: str
    ) -> None:
        self._options = options
        self._progress = progress
        self._as_json = as_json
        self._again = again
        self._codes: list[ExitCode] = []
        self._client: LMStrix | None = None
        self._finished: MeasurementFinished | None = None
        self._printed = 0

    def run(self, body: Callable[[], Awaitable[None]]) -> ExitCode:
        """Run `body`, which calls `measure`, and give the exit code of the whole batch."""
        try:
            run_async(body, self._give_up_load)
        except Interrupted:
            self._report_interruption()
        return worst(self._codes)

    def record(self, code: ExitCode) -> None:
        """Count something other than a measurement."""
        self._codes.append(code)

    async def measure(
        self,
        client: LMStrix,
        models: Sequence[str | ModelInfo],
        known: Mapping[str, ContextReport] | None = None,
    ) -> None:
        """Measure `models`; one that cannot be measured does not keep the next from it.

        Those in `known`, by their key, are skipped: their report is what is printed.
        """
        for model in models:
            if isinstance(model, ModelInfo) and known and model.key in known:
                self._skip(known[model.key])
                continue
            try:
                report = await self._measure_one(client, model)
            except (ConfigurationError, StoreError):
                raise  # not about this model: the next would meet the same
            except LMStrixError as error:
                explain_known(error)
                name = model if isinstance(model, str) else model.key
                report = client.unmeasured(name, error, self._options)
                self._record(report, shown=False)
            else:
                self._record(report, shown=True)

    async def _measure_one(self, client: LMStrix, model: str | ModelInfo) -> ContextReport:
        self._client = client
        observers = [self._progress, self._hear]
        with self._progress:
            return await client.find_true_context(model, self._options, observers=observers)

    def _hear(self, event: Event) -> None:
        if isinstance(event, MeasurementFinished):
            self._finished = event

    async def _give_up_load(self) -> None:
        """Forget the load in progress, so that a second Ctrl-C does not count it as failed."""
        if self._client is not None:
            await self._client.give_up_loads()

    def _skip(self, report: ContextReport) -> None:
        """Name the stored result; with ``--json`` print it."""
        found = "not measurable" if report.true_context is None else f"true {report.true_context}"
        name = safe_text.label(report.model.key)
        safe_text.note(f"skipped: {name} ({found}) has a valid result; --fresh measures it again")
        self._codes.append(code_of_report(report))
        if self._as_json:
            safe_text.json_line(dump_report(report))

    def _record(self, report: ContextReport, *, shown: bool) -> None:
        """Print `report`; as text only if `shown`, else the error has said everything."""
        finished, self._finished = self._finished, None
        code, document, text = self._told(report)
        self._codes.append(code)
        if self._as_json:
            safe_text.json_line(document)
        elif shown:
            if self._printed:
                click.echo()
            safe_text.out(text)
            self._printed += 1
        if finished is not None and finished.store_error is not None:
            explain_known(finished.store_error)
            safe_text.note("This result was not stored: save the printed report.")
            self._codes.append(ExitCode.OTHER)
        if report.cause is Cause.BUDGET_SPENT:
            safe_text.note(f"The budget is spent. {self._go_on('To continue')}")

    def _told(self, report: ContextReport) -> tuple[ExitCode, str, str]:
        """Exit code, JSON and text: of the report, or of what it says about one length."""
        width = min(WIDEST_REPORT, shutil.get_terminal_size().columns)
        if self._options.only_at is not None:
            check = check_of(report, self._options.only_at)
            text = fold("\n".join(check_lines(check)), width)
            return code_of_check(check, report), to_json(check), text
        return code_of_report(report), dump_report(report), render_text(report, width=width)

    def _report_interruption(self) -> None:
        self._codes.append(ExitCode.PARTIAL)
        if self._finished is not None:
            self._record(self._finished.report, shown=True)
        safe_text.note(f"Interrupted. {self._go_on('To continue')}")

    def _go_on(self, words: str) -> str:
        """How to continue; a check of one length stores nothing."""
        kept = self._options.only_at is None
        return f"{words}: {self._again}" if kept else "Nothing was stored."
