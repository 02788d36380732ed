"""``lmstrix compare``: results side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import click
from rich.console import RenderableType
from rich.table import Table

from lmstrix.reports.compare import (
    NOT_KNOWN,
    OF_THE_MODEL,
    Comparison,
    compare,
    comparison_csv,
    comparison_json,
)
from lmstrix.reports.html import render_comparison
from lmstrix.reports.markdown import render_comparison_markdown
from lmstrix_cli import output
from lmstrix_cli.options import json_option
from lmstrix_cli.output import Column
from lmstrix_cli.results import (
    STDOUT,
    all_of,
    choose_format,
    gather,
    newest_of,
    newest_of_each,
    target_options,
    write_report,
)
from lmstrix_cli.settings import Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix compare
  lmstrix compare model-a model-b
  lmstrix compare model-a             all its results and their differences
  lmstrix compare --format html
  lmstrix compare --from mine.jsonl --from theirs.jsonl
"""

FILE = "lmstrix-comparison.html"
WIDEST = 120
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
    help="Output format. Default: by the ending of FILE, else table.",
)
@json_option("The same as --format json: one object.")
@target_options(FILE)
@pass_settings
def command(
    settings: Settings,
    *,
    models: tuple[str, ...],
    wanted: str | None,
    as_json: bool,
    target: str | None,
    sources: tuple[str, ...],
    force: bool,
) -> None:
    """Put results side by side: the newest of each MODEL, or all results of a single one.

    Settings, engine, method and date are listed where they differ; shared settings come last. Reads
    only the store and needs no engine.
    """
    wanted = output.choose_format(wanted, as_json=True) if as_json else wanted
    kind = choose_format(wanted, target, "table", _RENDERERS)
    if kind == "table" and target not in {None, STDOUT}:
        raise click.UsageError(
            "a table is not written to a file: add --format html, md, csv or json."
        )
    if sources.count(STDOUT) > 1:
        raise click.UsageError("stdin (-) can be read only once.")
    reports = gather(settings, sources)
    if len(models) == 1:
        reports = all_of(reports, models[0])
    elif models:
        reports = newest_of(reports, models)
    elif not sources:
        newest = newest_of_each(reports)
        reports = newest if len(newest) > 1 else reports
    compared = compare(reports)
    if len(compared.reports) == 1:
        output.note(
            "Only one result: there is nothing to compare it with. Measure another model, or the"
            " same one with other options: lmstrix test MODEL."
        )
    if kind == "table":
        output.out(*_side_by_side(compared))
        return
    target = target or (FILE if kind == "html" else STDOUT)
    write_report(target, _RENDERERS[kind](compared), kind, force=force)


def _side_by_side(compared: Comparison) -> Iterator[RenderableType]:
    """One column for each result; one line for each if the columns do not fit."""
    room = output.line_width(WIDEST)
    for heads, legend in _heads(compared):
        made = _columns(compared, heads)
        if output.cells(made) <= room:
            yield from ([*legend, ""] if legend else [])
            yield made
            break
    else:
        yield from _as_lines(compared)
    if compared.same:
        pairs = ", ".join(f"{name} {value}" for name, value in compared.same)
        of = "the same in all" if len(compared.names) > 1 else "settings"
        yield output.prose("", f"{of}: {pairs}")


def _as_lines(compared: Comparison) -> Iterator[RenderableType]:
    facts = {row.label: row.values for row in compared.found}

    def column(label: str, short: str = "", *, least: int = 0, right: bool = False) -> Column[int]:
        return Column(
            "", label.upper(), lambda n: facts[label][n], short=short, least=least, right=right
        )

    columns = [
        Column[int]("", "#", lambda n: str(n + 1), right=True),
        Column[int]("", "MODEL", lambda n: compared.names[n], least=16),
        column("declared", "DECL", right=True),
        column("loadable", "LOAD", right=True),
        column("true", right=True),
        column("certified", "CERT"),
        column("cause", least=14),
    ]
    yield output.rows_table(columns, range(len(compared.names)))
    apart = len(set(compared.names)) == len(compared.names)  # their files differ anyway
    details = [row for row in compared.differing if not (apart and row.label in OF_THE_MODEL)]
    known = [
        ", ".join(f"{row.label} {row.values[n]}" for row in details if row.values[n] != NOT_KNOWN)
        for n in range(len(compared.names))
    ]
    if any(known):
        yield "\ndifferences"
    for n, words in enumerate(known, start=1):
        if words:
            yield output.prose(output.grid((str(n), words), gap=2))
    yield output.prose("", "Regions, evidence, speed and cost: lmstrix compare --format html.")


def _heads(compared: Comparison) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
    """What may stand above the results, the best first, with the lines before the table."""
    names = compared.names
    parts = [name.rstrip("/\\").replace("\\", "/").rpartition("/")[2] for name in names]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    if len(set(names)) == 1:
        yield numbers, names[:1]
        return
    if len(set(names)) == len(names):
        yield names, ()
    if len(set(parts)) == len(parts):
        yield parts, ()
    yield numbers, [f"{n}  {name}" for n, name in zip(numbers, names, strict=True)]


def _columns(compared: Comparison, heads: Sequence[str]) -> Table:
    rows = [(row.label, *row.values) for row in compared.found]
    if compared.differing:
        blank = ("",) * len(heads)
        rows += [("", *blank), ("differences", *blank)]
        rows += [(row.label, *row.values) for row in compared.differing]
    return output.table(("", *heads), rows, right=range(1, len(heads) + 1))
