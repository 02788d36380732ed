"""Reports, checks, maps and benchmarks as a terminal shows them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lmstrix import (
    Cause,
    ContextMap,
    ContextReport,
    CurvePoint,
    LevelReport,
    Outcome,
    SizeCheck,
    SpeedBench,
)
from lmstrix.reports.text import render_bench, render_map
from lmstrix.reports.words import (
    CAUSE_SENTENCES,
    CURVE_HEAD,
    REGION_HEAD,
    bar,
    curve_row,
    in_order,
    level_rows,
    region_rows,
    repeat_command,
    say_cause,
    say_cost,
    say_count,
    say_engine,
    say_evidence,
    say_model_facts,
    say_moment,
    say_numbers,
    say_percent,
    say_remarks,
    say_seconds,
    say_why,
)
from lmstrix_cli import output

__all__ = ["bench_screen", "check_screen", "map_screen", "report_screen"]

INDENT = 2
_LEAST = 4
"""Columns of the table of lengths that always stay."""


def report_screen(report: ContextReport, *, options: Sequence[str] = ()) -> RenderableType:
    """The whole report. `options` stand in the command that repeats it, before its own."""
    facts = say_model_facts(report)
    numbers = [
        (Text(f"{n.name} {n.value}", "bold"), Text(output.label(n.meaning)))
        for n in say_numbers(report)
    ]
    engine = say_engine(report)
    blocks: list[Iterable[RenderableType]] = [
        [_line(f"{report.model.key} ({facts})" if facts else report.model.key)],
        [output.grid(*numbers, gap=INDENT)],
        _lines([f"cause: {say_cause(report.cause)}. {say_why(report)}", *say_evidence(report)]),
        _curve(report.curve),
        [_indented(output.table(REGION_HEAD, region_rows(report), right=(2, 3)))]
        if report.regions
        else [],
        [Text("levels"), _indented(output.table(("", "", ""), level_rows(report), right=(1,)))]
        if report.levels
        else [],
        _lines(say_remarks(report)),
        [
            *_lines(
                [
                    say_cost(report),
                    f"engine: {engine}" if engine else "",
                    f"finished: {say_moment(report.finished_at)}",
                ]
            ),
            _command(f"repeat: {repeat_command(report, options)}"),
        ],
    ]
    return _blocks(blocks)


def _curve(curve: Sequence[CurvePoint]) -> list[RenderableType]:
    """The table of lengths. Columns that do not fit are left out from the right; the first four
    always stay.
    """
    if not curve:
        return []
    rows = [(*CURVE_HEAD, ""), *((*curve_row(p), _bar_or_failure(p)) for p in in_order(curve))]
    for shown in range(len(rows[0]), _LEAST - 1, -1):
        head, *cells = (row[:shown] for row in rows)
        made = output.table(head, cells, right=(0, 1, 2, 4, 5))
        if shown == _LEAST or output.cells(made) + INDENT <= output.line_width():
            return [_indented(made)]
    return []


def _bar_or_failure(point: CurvePoint) -> str:
    if point.failure is not None:
        return say_cause(point.failure)
    return bar(point.passes / point.trials if point.trials > 0 else 0, 10)


_NO_FAILURE = {Cause.DECLARED_MAXIMUM, Cause.MAX_CONTEXT, Cause.NOTHING_FAILED}
"""Their sentences say that nothing failed up to there; beyond it nothing was tried."""
NOT_TRIED = "not tried"


def check_screen(check: SizeCheck) -> RenderableType:
    """The verdict at one length and its evidence."""
    return _blocks([_lines(_check(check))])


def _check(check: SizeCheck) -> Iterator[str]:
    tried = check.trials or check.cause not in _NO_FAILURE
    found = check.outcome if tried else NOT_TRIED
    yield f"{check.model.key} at {check.length_tokens} tokens: {found}"
    if check.cause is not None:
        said = f". {CAUSE_SENTENCES[check.cause]}" if tried else ""
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
            yield f"{level.name}: {_at(level, check.length_tokens)}"
    if check.tokens_per_second is not None:
        yield f"speed: {check.tokens_per_second:.1f} tokens per second"
    yield from (f"note: {note}" for note in check.notes)
    cost = check.cost
    yield (
        f"cost: {say_count(cost.loads, 'load')}, {cost.prompt_tokens} prompt tokens,"
        f" {say_seconds(cost.seconds)}"
    )
    yield "No true context: no other length was tested, and nothing was stored."


def _at(level: LevelReport, length: int) -> Outcome:
    _, failed = level.bracket
    if failed is not None and failed <= length:
        return Outcome.FAIL
    return Outcome.PASS if (level.limit_tokens or 0) >= length else Outcome.INCONCLUSIVE


def map_screen(found: ContextMap) -> RenderableType:
    """The map: for each validator a table of lengths by depths."""
    return Text(render_map(found, width=output.line_width()), no_wrap=True, overflow="ignore")


def bench_screen(found: SpeedBench) -> RenderableType:
    """The benchmark: one line for each length."""
    return Text(render_bench(found, width=output.line_width()), no_wrap=True, overflow="ignore")


def _blocks(blocks: Iterable[Iterable[RenderableType]]) -> RenderableType:
    """The blocks with an empty line between them, not wider than is easy to read."""
    shown: list[RenderableType] = []
    for block in map(list, blocks):
        if block and shown:
            shown.append(Text())
        shown += block
    return output.prose(*shown)


def _line(text: str) -> Text:
    return Text(output.label(text), overflow="fold")


def _lines(texts: Iterable[str]) -> list[RenderableType]:
    return [_line(text) for text in texts if text]


def _command(text: str) -> Text:
    """A line that somebody may copy: never wrapped."""
    return Text(output.label(text), no_wrap=True, overflow="ignore")


def _indented(made: Table) -> Padding:
    return Padding(made, (0, 0, 0, INDENT), expand=False)
