"""Rows for people and for programs: a table, JSON Lines, CSV or Markdown.

On a terminal, long cells of a table are shortened to fit; in a pipe they are not.
"""

from __future__ import annotations

import csv
import io
import shutil
import sys
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import attrs
import click
from rich.cells import cell_len

from lmstrix.reports.compare import csv_cell
from lmstrix.reports.markdown import escape_markdown
from lmstrix_cli import safe_text
from lmstrix_cli.options import Decorator, chain, json_option
from lmstrix_cli.tables import columns

__all__ = [
    "JSON",
    "TABLE",
    "Column",
    "choose_format",
    "csv_text",
    "format_options",
    "markdown_text",
    "show_rows",
    "table_text",
]

T = TypeVar("T")

JSON = "json"
TABLE = "table"
_KINDS = (TABLE, JSON, "csv", "md")
_GAP = 2
_DOTS = "..."


@attrs.frozen(kw_only=True)
class Column(Generic[T]):
    """One fact about each row. Texts are escaped when they are printed, not here."""

    key: str = ""
    """Its name in CSV; empty if it is for people only."""
    value: Callable[[T], object] = str
    """The value in CSV; None is an empty cell."""
    head: str = ""
    """Its name for people; empty if it is in CSV only."""
    text: Callable[[T], str] = str
    """The text for people."""
    short: str = ""
    """Its name if there is little room."""
    least: int = 0
    """The least width of a shortened text, in cells; 0 if it is never shortened."""
    right: bool = False


def format_options(what: str) -> Decorator:
    """``--format`` as `kind` and ``--json`` as `as_json`, for `choose_format`."""
    return chain(
        click.option(
            "--format",
            "kind",
            type=click.Choice(_KINDS),
            help="Default: table, which fits the terminal.",
        ),
        json_option(f"Short for --format json: {what} (JSON Lines)."),
    )


def choose_format(kind: str | None, *, as_json: bool) -> str:
    """The format that was asked for. Two different ones are a usage error."""
    if as_json and kind not in {None, JSON}:
        raise click.UsageError(f"--json and --format {kind} contradict each other.")
    return JSON if as_json else kind or _KINDS[0]


def show_rows(kind: str, shown: Sequence[Column[T]], rows: Sequence[T]) -> None:
    """Print `rows` as a table, as CSV or as Markdown. Each command prints its own JSON."""
    if kind == "csv":
        click.echo(csv_text(shown, rows), nl=False)
    elif kind == "md":
        click.echo(markdown_text(shown, rows))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        safe_text.out(table_text(shown, rows, width))


def csv_text(shown: Sequence[Column[T]], rows: Sequence[T]) -> str:
    """A head and one line for each row. Controls are escaped, and a text that a spreadsheet
    would read as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kept = [column for column in shown if column.key]
    writer.writerow(column.key for column in kept)
    writer.writerows([csv_cell(column.value(row)) for column in kept] for row in rows)
    return text.getvalue()


def markdown_text(shown: Sequence[Column[T]], rows: Sequence[T]) -> str:
    """A GitHub table, without a final newline."""
    kept = [column for column in shown if column.head]
    heads = [column.head.lower() for column in kept]
    lines = [heads, ["---:" if column.right else "---" for column in kept]]
    lines += [[escape_markdown(column.text(row)) for column in kept] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def table_text(shown: Sequence[Column[T]], rows: Sequence[T], width: int | None = None) -> str:
    """Columns; with a `width` in cells, long texts are cut in the middle to fit, as far as
    `Column.least` allows.
    """
    kept = [column for column in shown if column.head]
    heads = [column.head for column in kept]
    cells = [[safe_text.label(column.text(row)) for column in kept] for row in rows]
    if width is not None and _total(_widths(heads, cells)) > width:
        heads = [column.short or column.head for column in kept]
        least = [column.least for column in kept]
        limits = _fitted(_widths(heads, cells), least, width)
        cells = [[_shorten(c, n) for c, n in zip(row, limits, strict=True)] for row in cells]
    right = [index for index, column in enumerate(kept) if column.right]
    return columns(heads, cells, right=right)


def _widths(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(heads, *cells, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _fitted(widths: Sequence[int], least: Sequence[int], width: int) -> list[int]:
    """The widest column that may shrink does, until all fit or none may shrink any more."""
    fitted = list(widths)
    for _ in range(_total(widths) - width):
        able = [i for i, floor in enumerate(least) if floor and fitted[i] > floor]
        if not able:
            break
        fitted[max(able, key=fitted.__getitem__)] -= 1
    return fitted


def _shorten(text: str, cells: int) -> str:
    if cell_len(text) <= cells:
        return text
    room = max(0, cells - len(_DOTS))
    tail = _beginning(text[::-1], room // 2)[::-1]
    return _beginning(text, room - room // 2) + _DOTS + tail


def _beginning(text: str, cells: int) -> str:
    """As much of `text` as fits into `cells`; a wide character is never split."""
    taken = 0
    for index, char in enumerate(text):
        taken += cell_len(char)
        if taken > cells:
            return text[:index]
    return text
