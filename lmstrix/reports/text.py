"""Reports, maps and benchmarks as plain text, for terminals and bug reports."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby

from lmstrix.models import (
    DEPTH_BINS,
    BenchPoint,
    ContextMap,
    ContextReport,
    CurvePoint,
    Layer,
    SpeedBench,
    Verdict,
)
from lmstrix.reports.words import (
    CURVE_HEAD,
    LEVEL_MEANINGS,
    REGION_HEAD,
    bar,
    base_name,
    continue_command,
    curve_notes,
    curve_row,
    escape_controls,
    in_order,
    level_rows,
    region_rows,
    repeat_command,
    say_cause,
    say_evidence,
    say_kept,
    say_model_facts,
    say_next,
    say_numbers,
    say_percent,
    say_provenance,
    say_regions,
    say_remarks,
    say_seconds,
    say_speed,
    say_summary,
    say_tokens,
    say_wait,
    say_why,
)

MOST_CLEAN = 8
"""So many lengths in a row without a miss or a verdict have a line each."""
NARROWEST = 40
"""The least width, in columns. A smaller one is taken as this."""

BENCH_HEAD = ("length", "prefill", "", "TTFT", "generate", "", "reused", "warm TTFT")
"""The columns of `bench_row`."""
_BENCH_BARS = (2, 5)

_MAP_TITLES = {
    "recall": "recall: correct answers, in percent",
    "copy": "copy: words of a passage copied in order, in percent",
}
_MAP_CELL = 4


def render_text(
    report: ContextReport,
    *,
    width: int = 80,
    options: Sequence[str] = (),
    limits: Sequence[str] = (),
) -> str:
    """The whole report without a final newline. Untrusted text in it is escaped.

    Lines are at most `width` columns wide; commands and long words are not wrapped. The command
    that repeats the measurement begins with `options`, and has `limits` too.
    """
    width = max(width, NARROWEST)
    name, facts = base_name(report.model.key), say_model_facts(report)
    goes_on = continue_command(report, options, limits)
    again = [f"continue: {goes_on}"] if goes_on else []
    again.append(f"repeat: {repeat_command(report, options, limits)}")
    return _join(
        [escape_controls(f"{name} ({facts})" if facts else name)],
        textwrap.wrap(say_summary(report), width),
        _columns(
            [(n.name, n.value, n.meaning) for n in say_numbers(report)], right=(1,), margin=""
        ),
        [
            *_wrap_all([say_regions(report)], width),
            *(
                _columns([REGION_HEAD, *region_rows(report)], right=(2, 3))
                if report.regions
                else []
            ),
        ],
        _wrap_all(
            [f"cause: {say_cause(report.cause)}. {say_why(report)}", *say_evidence(report)], width
        ),
        _curve(report.curve, width),
        ["levels", *_columns(_levels(report), right=(1,))] if report.levels else [],
        _wrap_all(say_remarks(report), width),
        [line] if (line := say_next(report, options)) else [],
        [*_wrap_all(say_provenance(report), width), *again],
    )


def _levels(report: ContextReport) -> list[tuple[str, ...]]:
    """The rows of the levels, with what each of ours is about."""
    return [(*row, LEVEL_MEANINGS.get(row[0], "")) for row in level_rows(report)]


def _curve(curve: Sequence[CurvePoint], width: int) -> list[str]:
    """The table of lengths. Columns that do not fit in `width` are left out from the right; the
    first four always stay.
    """
    if not curve:
        return []
    points = in_order(curve)
    rows = [(*CURVE_HEAD, ""), *((*curve_row(p), _bar_or_failure(p)) for p in points)]
    tables = (
        _columns([row[:shown] for row in rows], right=(0, 1, 2, 4, 5))
        for shown in range(len(rows[0]), 4, -1)
    )
    fits = (lines for lines in tables if max(map(len, lines)) <= width)
    table = next(fits, None) or _columns([row[:4] for row in rows], right=(0, 1, 2))
    lines = list(_folded(points, table[1:]))
    shown = [p for p, line in zip(points, table[1:], strict=True) if line in lines]
    notes = _wrap_all([f"  {note}" for note in curve_notes(shown)], width)
    return [table[0], *lines, *notes]


def _folded(points: Sequence[CurvePoint], lines: Sequence[str]) -> Iterator[str]:
    """The line of each point, and one line for many in a row without a miss or a verdict."""

    def clean(pair: tuple[CurvePoint, str]) -> bool:
        point, _ = pair
        right = 0 < point.trials == point.passes and not point.inconclusive
        return right and point.verdict is Verdict.UNDECIDED

    for is_clean, run in groupby(zip(points, lines, strict=True), key=clean):
        pairs = list(run)
        if not is_clean or len(pairs) <= MOST_CLEAN:
            yield from (line for _, line in pairs)
            continue
        first, last = pairs[0][0].length_tokens, pairs[-1][0].length_tokens
        answers = sum(point.trials for point, _ in pairs)
        yield (
            f"  {first:,} to {last:,}, {len(pairs)} lengths: all {answers:,} answers are correct,"
            " too few for a verdict"
        )


def _bar_or_failure(point: CurvePoint) -> str:
    if point.failure is not None:
        return say_cause(point.failure)
    return bar(point.passes / point.trials if point.trials > 0 else 0, 10)


def render_map(found: ContextMap, *, width: int = 80) -> str:
    """The whole map without a final newline: for each validator a table of lengths by depths.
    Untrusted text in it is escaped.
    """
    cost = found.cost
    share = cost.document_tokens / found.lengths[-1]
    spent = (
        f"cost: {cost.document_tokens:,} tokens of the document read ({share:.2f} times its"
        f" length), {cost.question_tokens:,} tokens of {cost.questions:,} questions,"
        f" {cost.cached_tokens:,} reused from cache, {cost.generated_tokens:,} generated,"
        f" {say_seconds(cost.seconds)}."
    )
    return _join(
        [escape_controls(found.model.key)],
        *(list(_layer(found, layer)) for layer in found.layers),
        _wrap_all((f"note: {note}" for note in found.notes), width),
        _wrap_all([spent], width),
    )


def _layer(found: ContextMap, layer: Layer) -> Iterator[str]:
    yield escape_controls(_MAP_TITLES.get(layer.name, f"{layer.name}: mean score, in percent"))
    yield "  by the depth of the answer, in percent from the start; . = not asked, all = mean"
    depths = "".join(f"{100 * i // DEPTH_BINS}".rjust(_MAP_CELL) for i in range(DEPTH_BINS))
    yield f"  length{depths}    all"
    for length in found.lengths:
        *row, all_depths = map(_score, layer.scores(length))
        yield f"{length:>8,}{''.join(row)}   {all_depths}"
    kept = say_kept(found, layer)
    if kept:
        yield kept


def _score(score: float | None) -> str:
    return ("." if score is None else f"{100 * score:.0f}").rjust(_MAP_CELL)


def render_bench(found: SpeedBench, *, width: int = 80) -> str:
    """The whole benchmark without a final newline: one line for each length, with a bar for each
    of its speeds. Untrusted text in it is escaped.
    """
    rounds = "once" if found.rounds == 1 else f"{found.rounds} times; medians are shown"
    engine = found.environment.engine or found.environment.adapter
    return _join(
        [escape_controls(found.model.key)],
        _bench_table(found.points, width),
        _wrap_all((f"note: {note}" for note in found.notes), width),
        _wrap_all(
            [
                "" if found.complete else "ended before the longest length.",
                (
                    "prefill (of a new text) and generate: tokens per second. warm: the same text"
                    " with another request, reused from the KV cache. Each length was measured"
                    f" {rounds}."
                ),
                (
                    f"loaded: {found.context_length:,} tokens in {engine}. took:"
                    f" {say_seconds(found.seconds)}."
                ),
            ],
            width,
        ),
    )


def bench_row(point: BenchPoint) -> tuple[str, ...]:
    """The cells of one length, as `BENCH_HEAD` names them. The bars are empty."""
    return (
        say_tokens(point.length_tokens),
        say_speed(point.prefill_tokens_per_second),
        "",
        say_wait(point.ttft_s),
        say_speed(point.tokens_per_second),
        "",
        "-" if point.reused is None else say_percent(point.reused),
        say_wait(point.warm_ttft_s),
    )


def _bench_table(points: Sequence[BenchPoint], width: int) -> list[str]:
    """Bars are left out if they do not fit in `width`."""
    speeds = [(p.prefill_tokens_per_second or 0, p.tokens_per_second or 0) for p in points]
    fastest = [max(of_a_kind, default=0) for of_a_kind in zip(*speeds, strict=True)]
    rows: list[Sequence[str]] = [BENCH_HEAD]
    for point, both in zip(points, speeds, strict=True):
        cells = list(bench_row(point))
        for column, speed, most in zip(_BENCH_BARS, both, fastest, strict=True):
            cells[column] = bar(speed / most if most else 0, 8)
        rows.append(cells)
    lines = _columns(rows, right=(0, 1, 3, 4, 6, 7))
    if max(map(len, lines)) <= width:
        return lines
    bare = [[c for i, c in enumerate(row) if i not in _BENCH_BARS] for row in rows]
    return _columns(bare, right=range(len(BENCH_HEAD)))


def _columns(
    rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), margin: str = "  "
) -> list[str]:
    """Lines of aligned cells, escaped; columns in `right` are aligned to the right."""
    rows = [[escape_controls(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        (
            margin
            + "  ".join(
                cell.rjust(width) if column in right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
        ).rstrip()
        for row in rows
    ]


def _wrap_all(texts: Iterator[str] | Sequence[str], width: int) -> list[str]:
    """Texts as lines of at most `width` columns, escaped; none for an empty text."""
    return [
        line
        for text in texts
        for line in textwrap.wrap(
            escape_controls(text), width, subsequent_indent="  ", break_on_hyphens=False
        )
    ]


def _join(*blocks: Sequence[str]) -> str:
    return "\n\n".join("\n".join(block) for block in blocks if block)
