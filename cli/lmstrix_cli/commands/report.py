"""``lmstrix report``: results as a page to keep or to show."""

from __future__ import annotations

import webbrowser
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from lmstrix.models import ContextMap, ContextReport
from lmstrix.reports.html import render_html
from lmstrix.reports.markdown import render_markdown
from lmstrix.reports.words import dump_report
from lmstrix_cli import safe_text
from lmstrix_cli.gathering import SOURCE, gather, newest_of, newest_of_each, read_maps
from lmstrix_cli.report_file import STDOUT, choose_format, write_report
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix report --open
  lmstrix report model-key -o model.html
  lmstrix report model-key --map map.json
  lmstrix report model-key --format md
  lmstrix test model-key --json | lmstrix report --from -
"""

FILE = "lmstrix-report.html"
KINDS = ("html", "md", "json")


@attrs.frozen(kw_only=True)
class _Wish:
    """What was asked for."""

    models: tuple[str, ...]
    all_models: bool
    sources: tuple[str, ...]
    map_files: tuple[str, ...]
    output: str | None
    wanted: str | None
    open_it: bool
    force: bool

    @property
    def kind(self) -> str:
        """The format."""
        return choose_format(self.wanted, self.output, "html", KINDS)

    @property
    def target(self) -> str:
        """The file, or ``-``."""
        return self.output or (FILE if self.kind == "html" else STDOUT)


@click.command(name="report", epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--all", "all_models", is_flag=True, help="Every model, as if you name none.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help=f"The file to write; - is stdout. Default: {FILE} here for html, else stdout.",
)
@click.option(
    "--format",
    "wanted",
    type=click.Choice(KINDS),
    help="One HTML page, Markdown, or JSON Lines. Default: as FILE ends, else html.",
)
@click.option(
    "--from",
    "sources",
    type=SOURCE,
    multiple=True,
    metavar="FILE",
    help="Read the output of `lmstrix test --json` instead of the store; - is stdin.",
)
@click.option(
    "--map",
    "map_files",
    type=SOURCE,
    multiple=True,
    metavar="FILE",
    help="Also show a map: the output of `lmstrix map --json`.",
)
@click.option("--open", "open_it", is_flag=True, help="Show the page in your browser.")
@click.option("--force", is_flag=True, help="Replace FILE even if it is not an LMStrix report.")
@pass_settings
def command(settings: Settings, **wished: object) -> None:
    """Write a report of every measured model, or of each MODEL you name.

    It shows the newest result of each. The page is one file that loads nothing and runs no
    script, so you can mail, print and keep it. Needs no engine.
    """
    wish = _Wish(**wished)  # pyright: ignore[reportArgumentType] - click gives each option by its name
    _check_usage(wish)
    reports = gather(settings, wish.sources)
    if wish.models:
        reports = newest_of(reports, wish.models)
    elif not wish.sources:
        reports = newest_of_each(reports)
    text = _render(wish.kind, reports, read_maps(wish.map_files))
    write_report(wish.target, text, wish.kind, force=wish.force)
    if wish.open_it:
        _open(Path(wish.target))


def _check_usage(wish: _Wish) -> None:
    if wish.all_models and wish.models:
        raise click.UsageError("name models or use --all, not both.")
    if wish.open_it and (wish.kind != "html" or wish.target == STDOUT):
        raise click.UsageError("--open needs an HTML page in a file, not stdout.")
    if wish.map_files and wish.kind == "json":
        raise click.UsageError("--map works with html and md only.")
    if (*wish.sources, *wish.map_files).count(STDOUT) > 1:
        raise click.UsageError("stdin (-) can be read only once.")


def _render(kind: str, reports: Sequence[ContextReport], maps: Sequence[ContextMap]) -> str:
    if kind == "json":
        return "".join(f"{dump_report(report)}\n" for report in reports)
    return (render_html if kind == "html" else render_markdown)(reports, maps)


def _open(path: Path) -> None:
    if not webbrowser.open(path.absolute().as_uri()):
        safe_text.note("No browser could be started; open the file yourself.")
