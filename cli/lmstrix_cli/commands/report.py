"""``lmstrix report``: results as a page to keep or to show."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

import click

from lmstrix import ContextMap, ContextReport, dump_report
from lmstrix.reports.html import render_html
from lmstrix.reports.markdown import render_markdown
from lmstrix.reports.text import render_text
from lmstrix_cli import output
from lmstrix_cli.options import json_option
from lmstrix_cli.results import (
    SOURCE,
    STDOUT,
    choose_format,
    gather,
    newest_of,
    newest_of_each,
    read_maps,
    target_options,
    write_report,
)
from lmstrix_cli.settings import Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix report --open
  lmstrix report model-key -o model.html
  lmstrix report model-key --map map.json
  lmstrix report model-key --format md
  lmstrix test model-key --json | lmstrix report --from -
"""

FILE = "lmstrix-report.html"
KINDS = ("html", "md", "txt", "json")


@click.command(name="report", epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--all", "all_models", is_flag=True, help="Every measured model; the same as naming none."
)
@click.option(
    "--format",
    "wanted",
    type=click.Choice(KINDS),
    help="One HTML page, Markdown, text as `lmstrix test` prints it, or JSON Lines. Default: by"
    " the ending of FILE, else html.",
)
@json_option("The same as --format json: one report on each line (JSON Lines).")
@target_options(FILE)
@click.option(
    "--map",
    "map_files",
    type=SOURCE,
    multiple=True,
    metavar="FILE",
    help="Also show a map: the output of `lmstrix map --json`.",
)
@click.option("--open", "open_it", is_flag=True, help="Show the page in your browser.")
@pass_settings
def command(  # noqa: PLR0913 - one for each option
    settings: Settings,
    *,
    models: tuple[str, ...],
    all_models: bool,
    target: str | None,
    wanted: str | None,
    as_json: bool,
    sources: tuple[str, ...],
    map_files: tuple[str, ...],
    open_it: bool,
    force: bool,
) -> None:
    """Write a report of every measured model, or of each MODEL you name.

    It shows the newest result of each. The page is one file that loads nothing and runs no
    script, so you can mail, print and keep it. Needs no engine.
    """
    wanted = output.choose_format(wanted, as_json=True) if as_json else wanted
    kind = choose_format(wanted, target, "html", KINDS)
    target = target or (FILE if kind == "html" else STDOUT)
    if all_models and models:
        raise click.UsageError("name models or use --all, not both.")
    if open_it and (kind != "html" or target == STDOUT):
        raise click.UsageError("--open needs an HTML page in a file, not stdout.")
    if map_files and kind not in {"html", "md"}:
        raise click.UsageError("--map works with html and md only.")
    if (*sources, *map_files).count(STDOUT) > 1:
        raise click.UsageError("stdin (-) can be read only once.")
    reports = gather(settings, sources)
    if models:
        reports = newest_of(reports, models)
    elif not sources:
        reports = newest_of_each(reports)
    # What the store kept, its commands find again.
    options = ["--store", settings.store] if settings.store and not sources else []
    text = _render(kind, reports, read_maps(map_files), options)
    write_report(target, text, kind, force=force)
    if open_it and not webbrowser.open(Path(target).absolute().as_uri()):
        output.note("No browser could be started; open the file yourself.")


def _render(
    kind: str,
    reports: Sequence[ContextReport],
    maps: Sequence[ContextMap],
    options: Sequence[str],
) -> str:
    if kind == "json":
        return "".join(f"{dump_report(report)}\n" for report in reports)
    if kind == "txt":
        return "\n\n\n".join(render_text(report, options=options) for report in reports)
    return (render_html if kind == "html" else render_markdown)(reports, maps)
