"""``lmstrix list``: what was measured so far."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import click

from lmstrix.converter import dump_report
from lmstrix.models import UNFINISHED, ContextReport
from lmstrix.reports.quantities import say_seconds, say_tokens
from lmstrix.stores.archive import ReportSummary
from lmstrix_cli import safe_text, session
from lmstrix_cli.running import run_async
from lmstrix_cli.settings import Settings, pass_settings
from lmstrix_cli.tables import columns

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix list
  lmstrix list --json > reports.jsonl
"""

HEAD = ("MODEL", "DECLARED", "LOADABLE", "TRUE", "CAUSE", "CERTIFIED", "AGE")


@click.command(name="list", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="One report for each model (JSON Lines).")
@pass_settings
def command(settings: Settings, *, as_json: bool) -> None:
    """Show what was measured so far, newest first.

    Reads the store only: no engine and no server is needed.
    """
    if as_json:
        for report in run_async(lambda: _reports(settings)):
            safe_text.json_line(dump_report(report))
        return
    found = run_async(lambda: _summaries(settings))
    if found:
        now = datetime.now(UTC)
        rows = [_row(summary, now) for summary in found]
        safe_text.out(columns(HEAD, rows, right=(1, 2, 3)))
    else:
        safe_text.out(
            "Nothing measured yet.\n\nWhat next:\n"
            "  lmstrix scan         which models are there?\n"
            "  lmstrix test MODEL   measure one\n"
            "  lmstrix demo         get a small model and measure it"
        )


async def _reports(settings: Settings) -> Sequence[ContextReport]:
    async with session.open_client(settings) as client:
        return [stored.report for stored in await client.reports()]


async def _summaries(settings: Settings) -> Sequence[ReportSummary]:
    async with session.open_client(settings) as client:
        found = await client.summaries()
        for warning in client.store.warnings:
            safe_text.note(f"store: {safe_text.label(warning)}")
        return found


def _row(report: ReportSummary, now: datetime) -> tuple[str, ...]:
    partial = "+" if report.cause in UNFINISHED and report.true_context else ""
    return (
        report.model_key,
        say_tokens(report.declared_context, unknown="-"),
        say_tokens(report.loadable_context, unknown="-"),
        say_tokens(report.true_context, unknown="-") + partial,
        report.cause.replace("_", " "),
        "yes" if report.certified else "no",
        _age(report.finished_at, now),
    )


def _age(then: datetime, now: datetime) -> str:
    seconds = (now - then).total_seconds()
    if seconds < 60:
        return "now"  # also where the clock was set back
    if seconds < 3600:
        return f"{int(seconds // 60)} min"
    return f"{int(seconds // 3600)} h" if seconds < 48 * 3600 else say_seconds(seconds)
