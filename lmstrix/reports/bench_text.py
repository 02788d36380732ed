"""A `SpeedBench` as plain text: one line for each length, with a bar for either speed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from lmstrix.benches import BenchPoint, SpeedBench
from lmstrix.reports.escaping import escape_controls
from lmstrix.reports.quantities import say_percent, say_seconds, say_wait

__all__ = ["BENCH_HEAD", "bench_row", "render_bench"]

BENCH_HEAD = ("length", "prefill", "", "TTFT", "generate", "", "reused", "warm TTFT")
_BARS = frozenset({2, 5})
_BAR_CELLS = 8
_UNKNOWN = "-"


def render_bench(found: SpeedBench, *, width: int = 80) -> str:
    """The whole benchmark, without a final newline. Untrusted text in it is escaped."""
    blocks = [
        [escape_controls(found.model.key)],
        _table(found.points, width),
        [line for note in found.notes for line in _wrap(f"note: {note}", width)],
        list(_below(found, width)),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def bench_row(point: BenchPoint) -> tuple[str, ...]:
    """The cells of one length, as `BENCH_HEAD` names them; the bars are empty."""
    return (
        str(point.length_tokens),
        _speed(point.prefill_tokens_per_second),
        "",
        say_wait(point.ttft_s),
        _speed(point.tokens_per_second),
        "",
        _UNKNOWN if point.reused is None else say_percent(point.reused),
        say_wait(point.warm_ttft_s),
    )


def _table(points: Sequence[BenchPoint], width: int) -> list[str]:
    """Bars are left out where they do not fit in `width`."""
    fastest = (
        max((p.prefill_tokens_per_second or 0.0 for p in points), default=0.0),
        max((p.tokens_per_second or 0.0 for p in points), default=0.0),
    )
    rows = [BENCH_HEAD, *(_with_bars(point, fastest) for point in points)]
    lines = _lines(rows, range(len(BENCH_HEAD)))
    if max(map(len, lines)) <= width:
        return lines
    return _lines(rows, [column for column in range(len(BENCH_HEAD)) if column not in _BARS])


def _with_bars(point: BenchPoint, fastest: tuple[float, float]) -> tuple[str, ...]:
    cells = list(bench_row(point))
    speeds = (point.prefill_tokens_per_second, point.tokens_per_second)
    for column, speed, most in zip(sorted(_BARS), speeds, fastest, strict=True):
        cells[column] = _bar(speed or 0.0, most)
    return tuple(cells)


def _lines(rows: Sequence[Sequence[str]], columns: Sequence[int]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in columns]
    return [
        ("  " + "  ".join(_cell(row, c, w) for c, w in zip(columns, widths, strict=True))).rstrip()
        for row in rows
    ]


def _cell(row: Sequence[str], column: int, width: int) -> str:
    return row[column].ljust(width) if column in _BARS else row[column].rjust(width)


def _bar(speed: float, most: float) -> str:
    """As long as the speed is, beside the fastest one."""
    filled = round(_BAR_CELLS * speed / most) if most else 0
    return "[" + "#" * filled + "." * (_BAR_CELLS - filled) + "]"


def _below(found: SpeedBench, width: int) -> Iterator[str]:
    if not found.complete:
        yield from _wrap("ended before the longest length.", width)
    rounds = "once" if found.rounds == 1 else f"{found.rounds} times; medians are shown"
    yield from _wrap(
        "prefill (of a text never seen) and generate: tokens a second. warm: the same text with"
        f" another request, reused from the KV cache. each length was measured {rounds}.",
        width,
    )
    engine = found.environment.engine or found.environment.adapter
    yield from _wrap(
        f"loaded: {found.context_length} tokens in {engine}. took: {say_seconds(found.seconds)}.",
        width,
    )


def _speed(tokens_per_second: float | None) -> str:
    if tokens_per_second is None:
        return _UNKNOWN
    return f"{tokens_per_second:.1f}" if tokens_per_second < 1000 else f"{tokens_per_second:.0f}"


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(escape_controls(text), width, subsequent_indent="  ")
