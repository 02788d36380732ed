"""``lmstrix list``: the stored results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter

import attrs
import click

from lmstrix import UNFINISHED, ContextReport, ReportSummary
from lmstrix.reports.words import (
    dump_report,
    say_cause,
    say_count,
    say_seconds,
    say_speed,
    say_tokens,
)
from lmstrix_cli import output, session
from lmstrix_cli.options import ReportFilter, report_filters
from lmstrix_cli.output import JSON, TABLE, Column, choose_format, format_options, show_rows
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix list
  lmstrix list --sort true --min-true 32k
  lmstrix list --name 'qwen*' --cause forgets
  lmstrix list --json > reports.jsonl
  lmstrix list --format csv > results.csv
"""

_Row = ReportSummary
_SORTS: dict[str, Callable[[_Row], str | float | None]] = {
    "age": lambda row: row.finished_at.timestamp(),
    "declared": lambda row: row.declared_context,
    "name": lambda row: row.model_key.casefold(),
    "size": lambda row: row.size_bytes or None,
    "speed": lambda row: row.tokens_per_second,
    "true": lambda row: row.true_context,
}
FOOTNOTE = "+ at least: the measurement did not end; the same `lmstrix test` continues it."
_UPWARDS = frozenset({"name"})
"""Keys that sort upwards; the others show the largest or newest first."""


@attrs.frozen(kw_only=True)
class _Known:
    """The contents of the store."""

    rows: Sequence[ReportSummary]
    reports: Mapping[str, ContextReport]
    """Only if whole reports are printed."""


@click.command(name="list", epilog=EPILOG)
@report_filters
@click.option(
    "--sort",
    "key",
    type=click.Choice(sorted(_SORTS)),
    default="age",
    show_default=True,
    help="Newest, largest or fastest first; names from A to Z.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order. Unknown values stay last.")
@format_options("one report for each result")
@pass_settings
def command(
    settings: Settings,
    *,
    chosen: ReportFilter,
    key: str,
    reverse: bool,
    kind: str | None,
    as_json: bool,
) -> None:
    """Show the stored results, newest first.

    SPEED is generation in tokens per second at the true context. A + after the true context
    marks an unfinished measurement. Reads only the store and needs no engine or server.
    """
    kind = choose_format(kind, as_json=as_json)
    known = session.run(lambda: _read(settings, in_full=kind == JSON))
    kept = _sorted(chosen.keep(known.rows), key, reverse=reverse)
    if kind == JSON:
        for summary in kept:
            output.json_line(dump_report(known.reports[summary.id]))
    elif kept or kind == "csv":
        show_rows(kind, _columns(datetime.now(UTC)), kept)
        if kind == TABLE and any(_is_partial(row) for row in kept):
            output.out(f"\n{FOOTNOTE}")
    elif known.rows:
        output.note(f"No match among {say_count(len(known.rows), 'result')}.")
    else:
        output.out(
            "Nothing measured yet.\n\nWhat next:\n"
            "  lmstrix scan         list the models that are there\n"
            "  lmstrix test MODEL   measure one\n"
            "  lmstrix demo         get a small model and measure it"
        )


async def _read(settings: Settings, *, in_full: bool) -> _Known:
    """Summaries, which are quick to read; whole reports only if they are printed."""
    async with session.client(settings) as client:
        found = await client.summaries()
        stored = await client.reports() if in_full else ()
        reports = {one.id: one.report for one in stored}
        rows = [row for row in found if not in_full or row.id in reports]
        return _Known(rows=rows, reports=reports)


def _sorted(rows: Sequence[_Row], key: str, *, reverse: bool) -> list[_Row]:
    """Rows by a key, in a stable order; rows without it come last."""
    known = [(value, row) for row in rows if (value := _SORTS[key](row)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=(key in _UPWARDS) == reverse)
    return [row for _, row in known] + [row for row in rows if _SORTS[key](row) is None]


def _columns(now: datetime) -> list[Column[_Row]]:
    """The columns that are shown, then those of CSV only."""
    return [
        Column(key="model", head="MODEL", least=16, value=lambda r: r.model_key),
        Column(
            key="declared_context",
            head="DECLARED",
            short="DECL",
            right=True,
            value=lambda r: r.declared_context,
        ),
        Column(
            key="loadable_context",
            head="LOADABLE",
            short="LOAD",
            right=True,
            value=lambda r: r.loadable_context,
        ),
        Column(
            key="true_context",
            head="TRUE",
            right=True,
            value=lambda r: r.true_context,
            text=_say_true,
        ),
        Column(
            key="cause",
            head="CAUSE",
            least=10,
            value=lambda r: str(r.cause),
            text=lambda r: say_cause(r.cause),
        ),
        Column(
            key="certified",
            head="CERTIFIED",
            short="CERT",
            value=lambda r: r.certified,
            text=lambda r: "yes" if r.certified else "no",
        ),
        Column(
            key="tokens_per_second",
            head="SPEED",
            right=True,
            value=lambda r: r.tokens_per_second,
            text=lambda r: say_speed(r.tokens_per_second),
        ),
        Column(
            key="finished_at",
            head="AGE",
            value=lambda r: r.finished_at.isoformat(),
            text=lambda r: _age(r.finished_at, now),
        ),
        *_ONLY_IN_CSV,
    ]


_ONLY_IN_CSV: list[Column[_Row]] = [
    Column(key="size_bytes", value=lambda r: r.size_bytes or None),
    *(
        Column(key=name, value=attrgetter(name))
        for name in (
            "ttft_s",
            "quantization",
            "architecture",
            "model_path",
            "model_digest",
            "adapter",
            "validator",
            "seconds",
        )
    ),
]


def _say_true(row: _Row) -> str:
    return say_tokens(row.true_context, unknown="-") + ("+" if _is_partial(row) else "")


def _is_partial(row: _Row) -> bool:
    """Whether more is known than nothing, but the measurement did not end."""
    return row.cause in UNFINISHED and bool(row.true_context)


def _age(then: datetime, now: datetime) -> str:
    seconds = (now - then).total_seconds()
    if seconds < 60:
        return "now"  # also if the clock was set back
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    return f"{int(seconds // 3600)} h" if seconds < 48 * 3600 else say_seconds(seconds)
