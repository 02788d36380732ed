"""The table of lengths in a text report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from lmstrix.models import CurvePoint, Verdict
from lmstrix.reports.quantities import say_percent, say_wait

__all__ = ["CURVE_HEAD", "curve_row", "curve_table", "in_order", "say_verdict"]

BAR_CELLS = 10
CURVE_HEAD = ("length", "k of n", "95 % interval", "verdict", "TTFT", "tok/s", "")
"""The columns of `curve_row`."""


def in_order(curve: Iterable[CurvePoint]) -> list[CurvePoint]:
    """The points as a table shows them: the shortest length first, and one kind of time.

    Where the time for a fresh prompt is known at any length, the time of a prompt that was
    cached in part is shown at none: beside the others it would seem that a longer prompt is faster.
    """
    points = sorted(curve, key=lambda point: point.length_tokens)
    if any(point.full_ttft_s is not None for point in points):
        return [attrs.evolve(point, ttft_s=None) for point in points]
    return points


def curve_table(curve: Sequence[CurvePoint], width: int) -> list[str]:
    """One line for each length, shortest first. Columns that do not fit `width` are left out
    from the right; the first four always stay.
    """
    rows = [CURVE_HEAD, *(curve_row(point) for point in in_order(curve))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(CURVE_HEAD))]
    shown = len(CURVE_HEAD)
    while shown > 4 and sum(widths[:shown]) + 2 * shown > width:
        shown -= 1
    return [_line(row[:shown], widths) for row in rows]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    aligned = (
        cell.ljust(width) if column in {3, 6} else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=False))
    )
    return ("  " + "  ".join(aligned)).rstrip()


def curve_row(point: CurvePoint) -> tuple[str, ...]:
    """What is known at one length, cell by cell; the last one is a bar or the engine's failure."""
    asked = point.trials > 0
    counts = f"{point.passes} of {point.trials}" if asked else "-"
    interval = f"{point.wilson.low * 100:.0f} to {say_percent(point.wilson.high)}" if asked else "-"
    wait = point.ttft_s if point.full_ttft_s is None else point.full_ttft_s
    speed = "-" if point.tokens_per_second is None else f"{point.tokens_per_second:.1f}"
    length = str(point.length_tokens)
    verdict = say_verdict(point.verdict, passes=point.passes, trials=point.trials)
    return (length, counts, interval, verdict, say_wait(wait), speed, _bar(point))


def say_verdict(verdict: Verdict, *, passes: int, trials: int) -> str:
    """The verdict in a word. Few answers that were all right settle nothing, and are no doubt."""
    if verdict is Verdict.UNDECIDED:
        return "no miss" if passes == trials > 0 else "open"
    return str(verdict)


def _bar(point: CurvePoint) -> str:
    """Part of the answers that were right, rounded down, so that only 100 % fills it; where
    the engine itself failed, how.
    """
    if point.failure is not None:
        return point.failure.replace("_", " ")
    filled = BAR_CELLS * point.passes // point.trials if point.trials > 0 else 0
    filled = min(max(filled, 0), BAR_CELLS)  # a stored report may say anything
    return "[" + "#" * filled + "." * (BAR_CELLS - filled) + "]"
