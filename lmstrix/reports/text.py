"""A `ContextReport` as plain text: what a terminal shows and a bug report quotes."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator

from lmstrix.models import ContextReport
from lmstrix.reports.escaping import escape_controls
from lmstrix.reports.quantities import say_moment
from lmstrix.reports.sentences import (
    say_baseline,
    say_bracket,
    say_certified,
    say_cost,
    say_engine,
    say_model_facts,
    say_numbers,
    say_reach,
    say_remarks,
)
from lmstrix.reports.table import curve_table
from lmstrix.reports.words import REGION_HEAD, region_rows, say_cause, say_regions, say_why

__all__ = ["render_text", "repeat_command"]

NO_LEVELS = "none"
"""The word for measuring nothing but the validator's own questions."""

NARROWEST = 40
"""Columns below which nothing readable fits; a smaller width is taken as this."""


def render_text(report: ContextReport, *, width: int = 80) -> str:
    """The whole report in at most `width` columns where words can be broken, without a final
    newline. Untrusted text in it is escaped; commands are never broken.
    """
    width = max(width, NARROWEST)
    blocks = (
        [_model_line(report)],
        list(_numbers(report)),
        list(_evidence(report, width)),
        curve_table(report.curve, width) if report.curve else [],
        list(_regions(report)),
        list(_levels(report)),
        list(_remarks(report, width)),
        list(_provenance(report, width)),
    )
    return "\n\n".join("\n".join(block) for block in blocks if block)


def repeat_command(report: ContextReport) -> str:
    """The command line that asks the same questions again, quoted for a POSIX shell."""
    method, environment = report.method, report.environment
    words = ["lmstrix"]
    if environment.adapter:
        words += ["--adapter", environment.adapter]
    words += ["test", "--fresh", "--seed", str(method.seed)]
    words += ["--strategy", method.strategy, "--validator", method.validator]
    words += ["--tolerance", f"{method.tolerance:.6g}", "--ratio", f"{method.ratio:.6g}"]
    if method.absolute:
        words.append("--absolute")
    if method.average:
        words.append("--average")
    words += ["--levels", ",".join(method.levels) or NO_LEVELS]
    if method.max_context is not None:
        words += ["--max-context", str(method.max_context)]
    if report.model.key.startswith("-"):
        words.append("--")
    words.append(report.model.key)
    return escape_controls(shlex.join(words))


def _model_line(report: ContextReport) -> str:
    described = say_model_facts(report)
    return escape_controls(f"{report.model.key} ({described})" if described else report.model.key)


def _numbers(report: ContextReport) -> Iterator[str]:
    numbers = say_numbers(report)
    labels = [f"{number.name} {number.value}" for number in numbers]
    widest = max(len(label) for label in labels)
    for label, number in zip(labels, numbers, strict=True):
        yield f"{label.ljust(widest)}   {number.meaning}"


def _evidence(report: ContextReport, width: int) -> Iterator[str]:
    yield from _wrap(f"cause: {say_cause(report.cause)}. {say_why(report)}", width)
    if report.true_context is not None:
        yield from _wrap(say_regions(report), width)
        for sentence in (say_certified(report), say_bracket(report), say_baseline(report)):
            yield from _wrap(sentence, width)


def _regions(report: ContextReport) -> Iterator[str]:
    """One line for each region of the window."""
    rows = region_rows(report)
    if not rows:
        return
    cells = [REGION_HEAD, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(REGION_HEAD))]
    for name, part, limit, failed, cause in cells:
        line = (
            f"  {name.ljust(widths[0])}  {part.ljust(widths[1])}  {limit.rjust(widths[2])}"
            f"  {failed.rjust(widths[3])}  {cause}"
        )
        yield line


def _levels(report: ContextReport) -> Iterator[str]:
    """One line for each kind of use: how far it reaches, and why no further."""
    if not report.levels:
        return
    yield "levels"
    rows = [
        (level.name, say_reach(level), str(level.cause).replace("_", " "))
        for level in report.levels
    ]
    names = max(len(name) for name, _, _ in rows)
    limits = max(len(limit) for _, limit, _ in rows)
    for name, limit, why in rows:
        yield escape_controls(f"  {name.ljust(names)}  {limit.rjust(limits)}  {why}")


def _remarks(report: ContextReport, width: int) -> Iterator[str]:
    for remark in say_remarks(report):
        yield from _wrap(remark, width)


def _provenance(report: ContextReport, width: int) -> Iterator[str]:
    yield from _wrap(say_cost(report), width)
    where = say_engine(report)
    if where:
        yield from _wrap(f"engine: {where}", width)
    yield from _wrap(f"finished: {say_moment(report.finished_at)}", width)
    yield f"repeat: {repeat_command(report)}"


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns; none for no text."""
    return textwrap.wrap(
        escape_controls(text), width, subsequent_indent="  ", break_on_hyphens=False
    )
