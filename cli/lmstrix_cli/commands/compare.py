"""``lmstrix compare``: results side by side."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

import click

from lmstrix.models import ContextReport
from lmstrix.reports.compare import Comparison, compare, comparison_csv, comparison_json
from lmstrix.reports.html import render_comparison
from lmstrix.reports.markdown import render_comparison_markdown
from lmstrix_cli import safe_text
from lmstrix_cli.gathering import SOURCE, all_of, gather, newest_of, newest_of_each
from lmstrix_cli.report_file import STDOUT, choose_format, write_report
from lmstrix_cli.settings import Settings, pass_settings
from lmstrix_cli.side_by_side import side_by_side

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix compare
  lmstrix compare model-a model-b
  lmstrix compare model-a             all its results and their differences
  lmstrix compare --format html
  lmstrix compare --from mine.jsonl --from theirs.jsonl
"""

FILE = "lmstrix-comparison.html"
MOST_COLUMNS = 120
_RENDERERS: dict[str, Callable[[Comparison], str]] = {
    "json": comparison_json,
    "csv": comparison_csv,
    "md": render_comparison_markdown,
    "html": render_comparison,
}


@click.command(name="compare", epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["table", *_RENDERERS]),
    help="Default: as FILE ends, else table.",
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help=f"The file to write; - is stdout. Default: {FILE} here for html, else stdout.",
)
@click.option(
    "--from",
    "sources",
    type=SOURCE,
    multiple=True,
    metavar="FILE",
    help="Read the output of `lmstrix test --json` instead of the store; - is stdin.",
)
@click.option("--force", is_flag=True, help="Replace FILE even if it is not an LMStrix report.")
@pass_settings
def command(
    settings: Settings,
    *,
    models: tuple[str, ...],
    wanted: str | None,
    output: str | None,
    sources: tuple[str, ...],
    force: bool,
) -> None:
    """Put results side by side: the newest of every MODEL, or all results of one.

    Differences in settings, engine, method and date are shown apart from the settings that are
    the same. Reads only the store and needs no engine.
    """
    kind = choose_format(wanted, output, "table", _RENDERERS)
    if kind == "table" and output not in {None, STDOUT}:
        raise click.UsageError("a table is printed; a file needs another --format.")
    if sources.count(STDOUT) > 1:
        raise click.UsageError("stdin (-) can be read only once.")
    reports = gather(settings, sources)
    compared = compare(_choose(reports, models, everything=bool(sources)))
    if len(compared.reports) == 1:
        safe_text.note("Only one result: there is nothing to compare it with.")
    if kind == "table":
        width = min(MOST_COLUMNS, shutil.get_terminal_size().columns)
        safe_text.out(side_by_side(compared, width))
        return
    target = output or (FILE if kind == "html" else STDOUT)
    write_report(target, _RENDERERS[kind](compared), kind, force=force)


def _choose(
    reports: Sequence[ContextReport], models: Sequence[str], *, everything: bool
) -> Sequence[ContextReport]:
    """Which results: those of one model, the newest of several, or all that there are."""
    if len(models) == 1:
        return all_of(reports, models[0])
    if models:
        return newest_of(reports, models)
    return reports if everything else newest_of_each(reports)
