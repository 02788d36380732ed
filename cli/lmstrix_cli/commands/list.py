"""``lmstrix list``: the stored results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import click

from lmstrix import UNFINISHED, Cause, ContextReport, ReportSummary
from lmstrix.reports.words import (
    LOADS_NOTHING,
    dump_report,
    say_cause,
    say_count,
    say_seconds,
    say_speed,
    say_tokens,
)
from lmstrix_cli import output, session
from lmstrix_cli.options import TOKENS, name_matches, name_option
from lmstrix_cli.output import JSON, TABLE, Column, choose_format, format_options, show_rows
from lmstrix_cli.results import is_of
from lmstrix_cli.settings import Settings, pass_settings

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
NOTHING = """\
Nothing measured yet.

What next:
  lmstrix scan         list the available models
  lmstrix test MODEL   measure one
  lmstrix demo         get a small model and measure it"""
FOOTNOTE = "With +: at least. `lmstrix status` shows how to continue what is unfinished."
NOT_FURTHER = "With +: at least. --max-context allowed no more."
SEVERAL = "Several results of one model: `lmstrix compare MODEL` shows how they differ."
_UPWARDS = frozenset({"name"})
"""Keys that sort upwards; the others show the largest or newest first."""


@click.command(name="list", epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@name_option
@click.option(
    "--cause",
    "causes",
    multiple=True,
    type=click.Choice([str(cause) for cause in Cause]),
    metavar="CAUSE",
    help="Only results with this cause: forgets, declared_maximum, ... May be repeated.",
)
@click.option(
    "--certified/--not-certified", default=None, help="Only results that are certified, or not."
)
@click.option(
    "--min-true", type=TOKENS, metavar="N", help="Only a true context of N tokens or more: 32k."
)
@click.option(
    "--sort",
    "key",
    type=click.Choice(sorted(_SORTS)),
    default="age",
    show_default=True,
    help="Newest, largest or fastest first; names from A to Z.",
)
@click.option("--reverse", is_flag=True, help="Reverse the order. Unknown values stay last.")
@format_options("one report on each line (JSON Lines)")
@pass_settings
def command(  # noqa: PLR0913 - one for each option
    settings: Settings,
    *,
    models: tuple[str, ...],
    names: tuple[str, ...],
    causes: tuple[str, ...],
    certified: bool | None,
    min_true: int | None,
    key: str,
    reverse: bool,
    kind: str | None,
    as_json: bool,
) -> None:
    """Show the stored results, newest first, or those of MODEL: a name, or a part of one.

    A later quick or unfinished run does not replace a full result. SPEED is
    generation in tokens per second at the true context. Reads only the store and needs no engine or
    server.
    """
    kind = choose_format(kind, as_json=as_json)
    found, reports = session.run(lambda: _read(settings, in_full=kind == JSON))
    kept = [
        row
        for row in found
        if is_of(settings, row.adapter)
        and (not models or row.model_path in models or name_matches(row.model_key, models))
        and name_matches(row.model_key, names)
        and (not causes or row.cause in causes)
        and certified in {None, row.certified}
        and (min_true is None or (row.true_context or 0) >= min_true)
    ]
    kept = _sorted(kept, key, reverse=reverse)
    if kind == JSON:
        for row in kept:
            output.json_line(dump_report(reports[row.id]))
    elif kept or kind == "csv":
        show_rows(kind, _columns(kept, datetime.now(UTC)), kept)
        notes = [
            *([FOOTNOTE] if any(map(_is_partial, kept)) else []),
            *([NOT_FURTHER] if any(_says_at_least(row) for row in kept) else []),
            *([SEVERAL] if len({row.model_key for row in kept}) < len(kept) else []),
        ]
        if kind == TABLE and notes:
            output.out("", *notes)
    elif found:
        of = f" of the adapter {output.label(settings.adapter)}" if settings.adapter else ""
        output.note(f"No match{of} among {say_count(len(found), 'result')}.")
    else:
        output.out(NOTHING)


async def _read(
    settings: Settings, *, in_full: bool
) -> tuple[Sequence[_Row], Mapping[str, ContextReport]]:
    """Summaries, which are quick to read; whole reports only if they are printed."""
    async with session.client(settings) as client:
        found = await client.summaries()
        stored = await client.reports() if in_full else ()
        reports = {one.id: one.report for one in stored}
        return [row for row in found if not in_full or row.id in reports], reports


def _sorted(rows: Sequence[_Row], key: str, *, reverse: bool) -> list[_Row]:
    """Rows by a key, in a stable order; rows without it come last."""
    known = [(value, row) for row in rows if (value := _SORTS[key](row)) is not None]
    known.sort(key=lambda pair: pair[0], reverse=(key in _UPWARDS) == reverse)
    return [row for _, row in known] + [row for row in rows if _SORTS[key](row) is None]


def _columns(rows: Sequence[_Row], now: datetime) -> list[Column[_Row]]:
    """The columns of people, then those of CSV only. SERVER is shown if results are of several."""
    server = "SERVER" if len({row.adapter for row in rows}) > 1 else ""
    return [
        Column("model", "MODEL", value=lambda row: row.model_key, least=12),
        Column("declared_context", "DECLARED", short="DECL", right=True),
        Column("loadable_context", "LOADABLE", _say_loadable, short="LOAD", right=True),
        Column("true_context", "TRUE", _say_true, right=True),
        Column("cause", "CAUSE", lambda row: say_cause(row.cause), least=12),
        Column(
            "certified", "CERTIFIED", lambda row: "yes" if row.certified else "no", short="CERT"
        ),
        Column(
            "tokens_per_second",
            "SPEED",
            lambda row: say_speed(row.tokens_per_second),
            right=True,
            spared=True,
        ),
        Column(
            "finished_at",
            "AGE",
            lambda row: _age(row.finished_at, now),
            lambda row: row.finished_at.isoformat(),
        ),
        Column("size_bytes", value=lambda row: row.size_bytes or None),
        *map(Column[_Row], _ONLY_IN_CSV),
        Column("adapter", server),
        *map(Column[_Row], ("validator", "seconds")),
    ]


_ONLY_IN_CSV = ("ttft_s", "quantization", "architecture", "model_path", "model_digest")


def _say_loadable(row: _Row) -> str:
    if row.adapter in LOADS_NOTHING:
        return "-"
    known = say_tokens(row.loadable_context, unknown="-")
    least = row.loadable_context == row.max_context != row.declared_context
    return f"{known}+" if least and row.max_context else known


def _says_at_least(row: _Row) -> bool:
    return row.cause is Cause.MAX_CONTEXT or _say_loadable(row).endswith("+")


def _say_true(row: _Row) -> str:
    more = _is_partial(row) or row.cause is Cause.MAX_CONTEXT
    known = say_tokens(row.true_context, unknown="-")
    return f"{known}+" if more and row.true_context else known


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
