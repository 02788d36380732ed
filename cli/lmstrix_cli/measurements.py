"""Measures one or more models for `test` and `demo`: the plan, the known results, the batch."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import attrs
from rich.console import RenderableType

from lmstrix import (
    EMBEDDED_ADAPTER,
    UNFINISHED,
    Cause,
    ConfigurationError,
    ContextReport,
    Event,
    Forecast,
    LevelReport,
    LMStrix,
    LMStrixError,
    MeasurementFinished,
    MeasureOptions,
    ModelInfo,
    Outcome,
    SizeCheck,
    StoreError,
    TrialFinished,
    check_of,
    dump_report,
    to_json,
)
from lmstrix.reports.text import render_text
from lmstrix.reports.words import (
    CAUSE_SENTENCES,
    base_name,
    say_bytes,
    say_cause,
    say_count,
    say_percent,
    say_seconds,
    say_tokens,
)
from lmstrix_cli import output
from lmstrix_cli.errors import ExitCode, code_of_report, explain_known, worst
from lmstrix_cli.output import Column, show_rows
from lmstrix_cli.progress import choose_progress
from lmstrix_cli.session import Interrupted, run
from lmstrix_cli.settings import Settings

UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Plan:
    """One model: `known` is its valid result, if it has one; else the forecast counts."""

    model: ModelInfo
    forecast: Forecast
    known: ContextReport | None = None
    seconds: float | None = None
    """Those of an earlier measurement of this very model, for the lengths of this one. None:
    there is none.
    """
    allowed_bytes: int | None = None
    """The most memory that a load may take, if there is a limit."""

    @property
    def fits(self) -> bool | None:
        """Whether memory is expected to hold the largest wanted length; None: not known."""
        memory = self.forecast.memory
        if memory and self.allowed_bytes is not None and memory.total_bytes > self.allowed_bytes:
            return False
        return memory.fits if memory else None


async def plan_models(
    client: LMStrix,
    models: Sequence[str | ModelInfo],
    options: MeasureOptions,
    known: Mapping[str, ContextReport],
) -> tuple[list[Plan], list[ExitCode]]:
    """A plan for each model that is found; for the others, a message and an exit code."""
    plans: list[Plan] = []
    codes: list[ExitCode] = []
    times = await _times(client)
    for model in models:
        try:
            forecast = await client.forecast(model, options)
            found, adapter = forecast.model, client.adapter_for(model).name
            took = times.get((adapter, found.identity))
            plans.append(
                Plan(
                    model=found,
                    forecast=forecast,
                    known=known.get(found.key),
                    seconds=None if took is None else took * forecast.largest_length,
                    allowed_bytes=options.max_memory_bytes,
                )
            )
        except (ConfigurationError, StoreError):
            raise
        except LMStrixError as error:
            codes.append(explain_known(error))
    return plans, codes


async def _times(client: LMStrix) -> dict[tuple[str, str], float]:
    """Seconds of the newest measurements, all included, for each token of the largest length."""
    times: dict[tuple[str, str], float] = {}
    for stored in await client.reports():
        report = stored.report
        if report.loadable_context and report.cost.seconds > 0 and report.cause not in UNFINISHED:
            of = (report.environment.adapter, report.model.identity)
            times.setdefault(of, report.cost.seconds / report.loadable_context)
    return times


def show_plans(plans: Sequence[Plan], options: MeasureOptions, *, as_json: bool) -> None:
    """Print them: a table, or one object for each model."""
    if as_json:
        for plan in plans:
            facts = {column.key: column.of(plan) for column in _COLUMNS}
            output.json_object(facts | {"budget_s": options.budget_s})
        return
    if not plans:
        return  # the errors were printed
    show_rows("table", _COLUMNS, plans)
    output.out(output.prose("", *_sum_up(plans, options), "Nothing was loaded."))


def _sum_up(plans: Sequence[Plan], options: MeasureOptions) -> Iterator[str]:
    fresh = [plan for plan in plans if plan.known is None]
    if not fresh:
        yield (
            f"Nothing to measure: {say_count(len(plans), 'stored result')} still valid. Use --fresh"
            " to measure again."
        )
        return
    tokens = sum(plan.forecast.usual_prompt_tokens for plan in fresh)
    times = [plan.seconds for plan in fresh if plan.seconds is not None]
    time = say_seconds(sum(times)) if times else UNKNOWN
    if 0 < len(times) < len(fresh):
        time += f", and {len(fresh) - len(times)} unknown"
    budget = "" if options.budget_s is None else f" ({say_seconds(options.budget_s)} each at most)"
    loads = sum(plan.forecast.loads for plan in fresh)
    yield f"{len(fresh)} to measure{budget}, {len(plans) - len(fresh)} to skip."
    yield (
        f"About {_say_thousands(tokens)} prompt tokens, at least {say_count(loads, 'load')}, time:"
        f" {time}."
    )
    yield (
        "LARGEST: the longest prompt that would be tried. MEMORY: for the context that was asked"
        " for, or is declared; if it does not fit, LARGEST is what does."
    )
    yield (
        "TOKENS: the usual number if the model works up to LARGEST, and about the most. A model"
        " that fades slowly costs most. An engine that does not reuse its KV cache reads several"
        " times as many."
    )


def _say_reading(plan: Plan) -> str:
    """The usual number of prompt tokens and the most; none for what is known."""
    counts = (plan.forecast.usual_prompt_tokens, plan.forecast.most_prompt_tokens)
    return "0" if plan.known else " to ".join(dict.fromkeys(map(_say_thousands, counts)))


def _say_time(plan: Plan) -> str:
    if plan.known:
        return "-"
    return UNKNOWN if plan.seconds is None else say_seconds(plan.seconds)


def _say_thousands(tokens: int) -> str:
    """It is an estimate: no more digits than that."""
    thousands = tokens / 1024
    if thousands >= 10_000:
        return f"{thousands / 1024:.0f}M"
    return f"{max(1, round(thousands))}k" if tokens else "0"


def _of_memory(fact: str) -> Callable[[Plan], int | None]:
    return lambda plan: getattr(plan.forecast.memory, fact, None)


def _of_forecast(fact: str) -> Callable[[Plan], int]:
    return lambda plan: getattr(plan.forecast, fact)


_COLUMNS: list[Column[Plan]] = [
    Column("model", "MODEL", value=lambda plan: plan.model.key, least=14),
    Column(
        "known",
        "PLAN",
        lambda plan: "skip" if plan.known else "measure",
        lambda plan: plan.known is not None,
    ),
    Column("true_context", value=lambda plan: plan.known.true_context if plan.known else None),
    Column("largest_length", "LARGEST", value=_of_forecast("largest_length"), right=True),
    Column("memory_length", value=_of_memory("context_length")),
    Column(
        "memory_bytes",
        "MEMORY",
        lambda p: say_bytes(p.forecast.memory.total_bytes) if p.forecast.memory else UNKNOWN,
        _of_memory("total_bytes"),
        right=True,
    ),
    Column("available_bytes", value=_of_memory("available_bytes")),
    Column("fits", "FITS", lambda plan: {True: "yes", False: "no", None: "-"}[plan.fits]),
    Column(
        "usual_prompt_tokens",
        "TOKENS",
        _say_reading,
        _of_forecast("usual_prompt_tokens"),
        right=True,
    ),
    Column("most_prompt_tokens", value=_of_forecast("most_prompt_tokens")),
    Column("least_loads", value=_of_forecast("loads")),
    Column("seconds", "TIME", _say_time),
]
"""The facts of a plan: those with a head are for people too."""


def code_of_check(check: SizeCheck, report: ContextReport) -> ExitCode:
    """0 for a pass, 1 for a fail; if the check is inconclusive, the code of `report`."""
    if check.outcome is Outcome.PASS:
        return ExitCode.MEASURED
    code = code_of_report(report)
    untold = check.outcome is Outcome.INCONCLUSIVE and code is not ExitCode.MEASURED
    return code if untold else ExitCode.OTHER


class Batch:
    """Measures, prints each result as soon as it is there, and remembers the exit codes."""

    def __init__(
        self,
        settings: Settings,
        *,
        options: MeasureOptions,
        as_json: bool,
        explains: bool = False,
    ) -> None:
        self._settings = settings
        self._options = options
        self._progress = choose_progress(explains=explains)
        self._as_json = as_json
        self._codes: list[ExitCode] = []
        self._client: LMStrix | None = None
        self._finished: MeasurementFinished | None = None
        self._printed = 0
        self._answers = 0
        """Those of the measurement that runs, without the ones of earlier runs."""
        self._failed: list[ContextReport] = []
        self._checked: list[SizeCheck] = []

    def run(self, body: Callable[[], Awaitable[None]]) -> ExitCode:
        """Run `body`, which calls `measure`, and give the exit code of the whole batch."""
        try:
            run(body, self._give_up_load)
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
        for number, model in enumerate(models, start=1):
            key = model if isinstance(model, str) else model.key
            if isinstance(model, ModelInfo) and known and key in known:
                self._skip(known[key])
                continue
            if len(models) > 1:
                output.note(f"model {number} of {len(models)}: {output.label(base_name(key))}")
            try:
                report = await self._measure_one(client, model)
            except (ConfigurationError, StoreError):
                raise  # not about this model: the next would meet the same
            except LMStrixError as error:
                explain_known(error)
                if self._finished:
                    report = self._finished.report
                else:
                    report = client.unmeasured(model, error, self._options)
                kept = self._options.only_at is None and report.baseline.trials > 0
                self._record(report, shown=False)
                if kept and report.resumable and len(models) == 1:
                    output.note(f"The answers so far are kept. {self._go_on()}")
            else:
                self._record(report, shown=True)
                await self._tell_of_full(client, report)
        if len(models) > 1:
            self._sum_up(len(models))

    async def _tell_of_full(self, client: LMStrix, report: ContextReport) -> None:
        """A quick result does not take the place of a full one: say which counts."""
        if self._options.quick and not self._options.fresh and report.measured:
            full = attrs.evolve(self._options, quick=False, certify=False)
            known = (await client.known_reports([report.model], full)).get(report.model.key)
            if known is not None and known.true_context is not None:
                output.note(
                    f"A full result of this model is stored, and still counts: true"
                    f" {known.true_context:,}."
                )

    def _sum_up(self, models: int) -> None:
        """The results or the failures in one table, and where all results are."""
        if self._checked:
            output.note(f"\nat {self._options.only_at:,} tokens:")
            output.note(_checks(self._checked))
        elif self._failed:
            output.note(f"\nnot fully measured: {len(self._failed)} of {models} models")
            output.note(_failures(self._failed))
        store = self._settings.store
        if self._options.only_at is None and store != "memory":
            words = ["lmstrix", *(["--store", store] if store else []), "list"]
            output.note(f"\nAll results: {shlex.join(words)}")

    async def _measure_one(self, client: LMStrix, model: str | ModelInfo) -> ContextReport:
        self._client = client
        self._answers = 0
        observers = [self._progress, self._hear]
        with self._progress:
            return await client.find_true_context(model, self._options, observers=observers)

    def _hear(self, event: Event) -> None:
        if isinstance(event, MeasurementFinished):
            self._finished = event
        self._answers += isinstance(event, TrialFinished)

    async def _give_up_load(self) -> None:
        """Forget the load in progress, so that a second Ctrl-C does not count it as failed."""
        if self._client is not None:
            await self._client.give_up_loads()

    def _skip(self, report: ContextReport) -> None:
        """Name the stored result; with ``--json`` print it."""
        true = report.true_context
        found = "not measurable" if true is None else f"true {true:,}"
        output.note(
            f"skipped: {output.label(report.model.key)} ({found}) has a valid result;"
            " --fresh measures it again"
        )
        self._codes.append(code_of_report(report))
        if self._as_json:
            output.json_line(dump_report(report))

    def _record(self, report: ContextReport, *, shown: bool) -> None:
        """Print `report`; as text only if `shown`, else the error has said everything."""
        finished, self._finished = self._finished, None
        code, document, screen = self._shown(report)
        if code is not ExitCode.MEASURED:
            self._failed.append(report)
        self._codes.append(code)
        if self._as_json:
            output.json_line(document)
        elif shown:
            if self._printed:
                output.out("")
            output.out(screen)
            self._printed += 1
        if finished is not None and finished.store_error is not None:
            explain_known(finished.store_error)
            output.note("This result was not stored: save the printed report.")
            self._codes.append(ExitCode.OTHER)
        if report.cause is Cause.BUDGET_SPENT:
            spent = "The budget is spent" + ("" if self._answers else " without a further answer")
            larger = "" if self._answers else " Give a larger one."
            output.note(f"{spent}.{larger} {self._go_on()}")

    def _shown(self, report: ContextReport) -> tuple[ExitCode, str, RenderableType]:
        """Exit code, JSON and screen: of the report, or of what it says about one length."""
        if self._options.only_at is not None:
            check = check_of(report, self._options.only_at)
            self._checked.append(check)
            return code_of_check(check, report), to_json(check), output.prose(*_check(check))
        screen = report_screen(
            report, options=_options_of(self._settings, report), limits=_limits_of(self._options)
        )
        return code_of_report(report), dump_report(report), screen

    def _report_interruption(self) -> None:
        self._codes.append(ExitCode.PARTIAL)
        if self._finished is not None:
            self._record(self._finished.report, shown=True)
        output.note(f"Interrupted. {self._go_on()}")

    def _go_on(self) -> str:
        if self._options.only_at is not None:
            return "Nothing was stored."  # a check of one length never is
        return f"To continue: {self._settings.command_again()}"


def _checks(checks: Sequence[SizeCheck]) -> RenderableType:
    return output.table(
        ("MODEL", "RESULT", "CORRECT", "CAUSE"),
        [
            (
                base_name(check.model.key),
                say_outcome(check),
                f"{check.passes} of {check.trials}" if check.trials else "-",
                "-" if check.cause is None else say_cause(check.cause),
            )
            for check in checks
        ],
        right=(2,),
    )


def _failures(reports: Sequence[ContextReport]) -> RenderableType:
    return output.table(
        ("MODEL", "DECLARED", "TRUE", "CAUSE", "TIME"),
        [
            (
                base_name(report.model.key),
                say_tokens(report.declared_context),
                say_tokens(report.true_context),
                say_cause(report.cause),
                say_seconds(report.cost.seconds) if report.cost.seconds else "-",
            )
            for report in reports
        ],
        right=(1, 2, 4),
    )


def _limits_of(options: MeasureOptions) -> list[str]:
    """The options of ``test`` that a report does not tell."""
    memory, documents = options.max_memory_bytes, options.documents
    return [
        *(["--max-memory", str(memory)] if memory is not None else []),
        *(["--documents", str(documents)] if documents != MeasureOptions().documents else []),
        *([] if options.certify else ["--no-certify"]),
        *(["--force"] if options.force else []),
    ]


def _options_of(settings: Settings, report: ContextReport) -> list[str]:
    """The shared options that another run needs to find the same server and store."""
    served = report.environment.adapter != EMBEDDED_ADAPTER
    store = ["--store", settings.store] if settings.store else []
    return [*(settings.server_options() if served else []), *store]


# Reports and checks on a terminal

_STYLES = {
    r"(?m)^(declared|loadable|true|usable)  .*?\S(?=  )": "bold",
    r"(?<=  )passed(?=  |$)": "green",
    r"(?<=  )failed(?=  |$)": "red",
    r"(?<=  )undecided(?=  |$)": "yellow",
}
"""The numbers of a report, and the cells of its table that hold a verdict."""


def report_screen(
    report: ContextReport, *, options: Sequence[str] = (), limits: Sequence[str] = ()
) -> RenderableType:
    """The whole report. `options` and `limits` stand in the command that repeats it."""
    width = output.line_width()
    text = output.verbatim(render_text(report, width=width, options=options, limits=limits))
    for words, style in _STYLES.items():
        text.highlight_regex(words, style)
    return text


_NO_FAILURE = {Cause.DECLARED_MAXIMUM, Cause.MAX_CONTEXT, Cause.NOTHING_FAILED}
"""Their sentences say that nothing failed up to there; beyond it nothing was tried."""
_AT_ONE_LENGTH = {
    Cause.LOAD_REFUSED: "It was refused before it was loaded: it may not fit into memory.",
    Cause.LOAD_FAILED: "The engine could not load this context.",
    Cause.LOAD_HUNG: "Loading this context made no progress, although the server answered.",
    Cause.CRASHED_ON_FILL: "This context loads, but the engine crashes once it is filled.",
    Cause.OVERFLOW: "The engine says that the prompt does not fit into the context it loaded.",
    Cause.GIBBERISH: "With a prompt of this length the model answers gibberish or nothing.",
    Cause.FORGETS: "With a prompt of this length the model forgets part of it.",
    Cause.TOO_SLOW: "With a prompt of this length a reply takes too long.",
    Cause.BUDGET_SPENT: "The budget was spent before there was a verdict.",
}
"""Where the sentence of a report would speak of larger contexts or longer prompts."""
NOT_TRIED = "not tried"
_WORDS = {Outcome.PASS: "passed", Outcome.FAIL: "failed"}


def say_outcome(check: SizeCheck) -> str:
    """``passed``, ``failed``, ``inconclusive``, or that the length was not tried."""
    tried = check.trials or check.cause not in _NO_FAILURE
    return str(_WORDS.get(check.outcome, check.outcome)) if tried else NOT_TRIED


def _check(check: SizeCheck) -> Iterator[str]:
    """The verdict at one length and its evidence."""
    found = say_outcome(check)
    tried = found != NOT_TRIED
    yield f"{check.model.key} at {check.length_tokens:,} tokens: {found}"
    if check.cause is not None:
        sentence = _AT_ONE_LENGTH.get(check.cause) or CAUSE_SENTENCES[check.cause]
        said = f". {sentence}" if tried else ""
        yield f"cause: {say_cause(check.cause)}{said}"
    if check.trials:
        low, high = check.wilson.low, check.wilson.high
        short = check.baseline
        yield (
            f"{check.passes} of {check.trials} correct"
            f" (95% interval {100 * low:.0f} to {say_percent(high)});"
            f" at {short.length_tokens:,} tokens: {short.passes} of {short.trials}"
        )
    for level in check.levels:
        if level.name != check.method.validator:
            found = _at(level, check.length_tokens)
            yield f"{level.name}: {_WORDS.get(found, found)}"
    if check.tokens_per_second is not None:
        yield f"speed: {check.tokens_per_second:.1f} tokens per second"
    yield from (f"note: {note}" for note in check.notes)
    cost = check.cost
    yield (
        f"cost: {say_count(cost.loads, 'load')}, {cost.prompt_tokens:,} prompt tokens,"
        f" {say_seconds(cost.seconds)}"
    )
    yield "Nothing was stored: one length alone is not a true context."


def _at(level: LevelReport, length: int) -> Outcome:
    _, failed = level.bracket
    if failed is not None and failed <= length:
        return Outcome.FAIL
    return Outcome.PASS if (level.limit_tokens or 0) >= length else Outcome.INCONCLUSIVE
