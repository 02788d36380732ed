"""Prints with rich. Untrusted text is escaped here, and nothing is given to rich as markup."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

import attrs
import click
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.status import Status
from rich.table import Table
from rich.text import Text

from lmstrix.reports.compare import csv_cell
from lmstrix.reports.markdown import escape_markdown
from lmstrix.reports.words import escape_controls
from lmstrix_cli.options import Decorator, chain, json_option
from lmstrix_cli.settings import is_quiet

T = TypeVar("T")

UNLIMITED = 10_000
"""Columns of a pipe or a file: nothing is wrapped or cut there."""
_WHOLE = re.compile(r"`[^`]*`|(?:(?<=: )|^ *)lmstrix (?:(?!\. [A-Z`]).)*")
"""What somebody may copy: between backticks, or a command behind a colon or alone in its line."""
_GLUE = "\ue000"
"""Stands for a blank at which no line is broken; no text of ours holds it."""


# Text


def label(text: str, longest: int = 0) -> str:
    """`text` for one line: escaped, and cut in the middle if it is longer than `longest`."""
    text = escape_controls(text)
    if 0 < longest < len(text):
        kept = max(0, longest - 3)
        return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"[:longest]
    return text


@attrs.frozen
class Paragraph:
    """Escaped lines that are wrapped at blanks, but never within a command."""

    text: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines, each as wide as there is room."""
        for line in escape_controls(self.text, keep="\n").split("\n"):
            if options.max_width >= UNLIMITED:
                yield verbatim(line)
                continue
            glued = _WHOLE.sub(lambda match: match[0].replace(" ", _GLUE), line)
            # rich would break a command that is longer than a line.
            pieces = textwrap.wrap(
                glued, options.max_width, break_long_words=False, break_on_hyphens=False
            )
            yield verbatim("\n".join(pieces).replace(_GLUE, " "))


_STYLES = {
    **dict.fromkeys(("ok", "yes"), "green"),
    **dict.fromkeys(("problem", "gibberish", "forgets", "crashed on fill"), "red"),
    "warning": "yellow",
}


def verdict(word: str) -> Text:
    """A word in the colour of its meaning, if it has one. Escaped."""
    return Text(label(word), _STYLES.get(word, ""))


def width() -> int:
    """Columns of the terminal behind stdout; `UNLIMITED` if it is not one."""
    console = _console()
    return console.width if console.file.isatty() else UNLIMITED


WIDEST = 100
"""Longer lines of prose are hard to read."""


def line_width(widest: int = WIDEST) -> int:
    """Columns of a report: the terminal's, or the usual 80 of a pipe or a file."""
    return min(widest, shutil.get_terminal_size().columns)


def prose(*shown: RenderableType) -> Constrain:
    """Text that is wrapped in pipes and files too. Strings are paragraphs."""
    parts = [Paragraph(part) if isinstance(part, str) else part for part in shown]
    return Constrain(Group(*parts), line_width())


def verbatim(text: str) -> Text:
    """Escaped lines that are never wrapped: commands, paths, differences of files."""
    return Text(escape_controls(text, keep="\n"), no_wrap=True, overflow="ignore")


def _console(*, err: bool = False) -> Console:
    """A console for now: streams, colours and sizes may change between two commands."""
    context = click.get_current_context(silent=True)
    wanted = context.color if context else None
    stream = sys.stderr if err else sys.stdout
    terminal = stream.isatty()
    coloured = terminal if wanted is None else wanted
    return Console(
        file=stream,
        width=None if terminal else UNLIMITED,
        color_system="standard" if coloured else None,
        force_terminal=coloured,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _rendered(shown: RenderableType, *, err: bool = False) -> str:
    console = _console(err=err)
    with console.capture() as capture:
        console.print(shown, crop=False)
    lines = capture.get().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def out(*shown: RenderableType) -> None:
    """Print on stdout, one below the other. Strings are paragraphs."""
    parts = [Paragraph(part) if isinstance(part, str) else part for part in shown]
    click.echo(_rendered(Group(*parts)))


def note(shown: RenderableType) -> None:
    """Print on stderr, unless ``--quiet`` was given. A string is a paragraph. If stderr
    takes nothing, the work goes on all the same.
    """
    if not is_quiet():
        _say(Paragraph(shown) if isinstance(shown, str) else shown)


def waiting(what: str) -> Status:
    """A line about what takes its time, on a terminal's stderr and until it is stopped. Elsewhere,
    and with ``--quiet``, nothing is shown.
    """
    # Unlike rich's usual spinner, this one is plain ASCII.
    return Status(what, spinner="line", console=Console(stderr=True, quiet=is_quiet()))


def warn(message: str) -> None:
    """Print on stderr what nobody should miss, also with ``--quiet``."""
    _say(Paragraph(escape_controls(message)))


def error(message: str, hint: str = "") -> None:
    """Print ``Error:`` and ``Hint:`` lines on stderr."""
    _say(Paragraph(f"Error: {escape_controls(message)}"))
    if hint:
        _say(Paragraph(f"Hint: {escape_controls(hint)}"))


def _say(text: RenderableType) -> None:
    with suppress(OSError):
        click.echo(_rendered(text, err=True), err=True)


_BEYOND = re.compile("[^\x00-\x7e]")
_NOT_ASCII = re.compile("[^\x20-\x7e]")


def json_line(document: str) -> None:
    """Print one line of JSON that means exactly `document`.

    Inside JSON strings, characters that could steer a terminal, and on a terminal or pipe
    that is not UTF-8 every one beyond ASCII, become JSON's own escapes.
    """
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    if encoding == "utf8":
        click.echo(_BEYOND.sub(lambda match: _shown(match[0]), document))
    else:
        click.echo(_NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], document))


def json_object(facts: Mapping[str, object]) -> None:
    """Print `facts` as one line of JSON."""
    json_line(json.dumps(facts, ensure_ascii=False))


def _shown(char: str) -> str:
    return char if escape_controls(char) == char else json.dumps(char)[1:-1]


# Tables


@attrs.frozen
class Column(Generic[T]):
    """One fact about each row. Texts are escaped when they are printed, not here."""

    key: str = ""
    """Its name in CSV; empty if it is for people only."""
    head: str = ""
    """Its name for people; empty if it is in CSV only."""
    text: Callable[[T], str] | None = None
    """The text for people, if it is not the value."""
    value: Callable[[T], object] | None = None
    """The value in CSV, if it is not the attribute `key`; None is an empty cell."""
    short: str = attrs.field(default="", kw_only=True)
    """Its name if there is little room."""
    least: int = attrs.field(default=0, kw_only=True)
    """The least width of a text that may be wrapped, in cells; 0 if it never is."""
    right: bool = attrs.field(default=False, kw_only=True)
    spared: bool = attrs.field(default=False, kw_only=True)
    """Whether a narrow terminal goes without it."""

    def of(self, row: T) -> object:
        """The value in CSV."""
        return getattr(row, self.key) if self.value is None else self.value(row)

    def shown(self, row: T) -> str:
        """The text for people: whole numbers with their digits grouped, a dash for what is not
        known.
        """
        if self.text is not None:
            return self.text(row)
        value = self.of(row)
        if type(value) is int:
            return f"{value:,}"
        return "-" if value is None else str(value)


JSON = "json"
TABLE = "table"
_KINDS = (TABLE, JSON, "csv", "md")
_GAP = 2


def format_options(what: str) -> Decorator:
    """``--format`` as `kind` and ``--json`` as `as_json`, for `choose_format`."""
    return chain(
        click.option(
            "--format",
            "kind",
            type=click.Choice(_KINDS),
            help="Output format. Default: table, which fits the terminal.",
        ),
        json_option(f"The same as --format json: {what}."),
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
        out(rows_table([column for column in shown if column.head], rows))


def csv_text(shown: Sequence[Column[T]], rows: Sequence[T]) -> str:
    """A head and one line for each row. Controls are escaped, and a text that a spreadsheet
    would read as a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kept = [column for column in shown if column.key]
    writer.writerow(column.key for column in kept)
    writer.writerows([csv_cell(column.of(row)) for column in kept] for row in rows)
    return text.getvalue()


def markdown_text(shown: Sequence[Column[T]], rows: Sequence[T]) -> str:
    """A GitHub table, without a final newline."""
    kept = [column for column in shown if column.head]
    heads = [column.head.lower() for column in kept]
    lines = [heads, ["---:" if column.right else "---" for column in kept]]
    lines += [[escape_markdown(column.shown(row)) for column in kept] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rows_table(shown: Sequence[Column[T]], rows: Sequence[T]) -> RenderableType:
    """A table; with short heads, or with one block for each row, if the terminal is narrow."""
    room = width()
    cells = [[label(column.shown(row)) for column in shown] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    floors = [min(c.least, wide) or wide for c, wide in zip(shown, widths, strict=True)]
    for heads, least in (
        ([c.head for c in shown], widths),
        ([c.short or c.head for c in shown], floors),
    ):
        needed = sum(max(n, cell_len(head)) + _GAP for n, head in zip(least, heads, strict=True))
        if needed - _GAP <= room:
            break
    else:
        kept = [column for column in shown if not column.spared]
        if len(kept) < len(shown) and isinstance(made := rows_table(kept, rows), Table):
            return made
        blocks: list[RenderableType] = []
        for row in cells:
            blocks += [grid(*zip([c.head for c in shown], row, strict=True)), ""]
        return Group(*blocks[:-1])
    # rich's own shrinking takes too little if two columns can be wrapped.
    fitted = [max(wide, cell_len(head)) for wide, head in zip(widths, heads, strict=True)]
    excess = sum(fitted) + _GAP * (len(fitted) - 1) - room
    for number in sorted(range(len(fitted)), key=fitted.__getitem__, reverse=True):
        spare = fitted[number] - max(floors[number], cell_len(heads[number]))
        cut = max(0, min(excess, spare))
        fitted[number] -= cut
        excess -= cut
    right = [number for number, column in enumerate(shown) if column.right]
    return table(heads, cells, right=right, widths=fitted)


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[int] = (),
    widths: Sequence[int] = (),
) -> Table:
    """A table; columns in `right` are aligned to the right. With `widths`, in cells, longer texts
    are folded; without, none is.
    """
    made = Table(
        box=None,
        pad_edge=False,
        padding=(0, _GAP, 0, 0),
        header_style="bold",
        show_header=any(head),
    )
    for number, name in enumerate(head):
        made.add_column(
            Text(label(name)),
            justify="right" if number in right else "left",
            no_wrap=not widths,
            overflow="fold",
            width=widths[number] if widths else None,
        )
    for row in rows:
        made.add_row(*map(_folded, row, widths) if widths else map(verdict, row))
    return made


_PARTS = re.compile(r"[^-_/ ]*[-_/ ]+|[^-_/ ]+")


def _folded(word: str, room: int) -> Text:
    """`verdict`, in lines that end behind a hyphen, a slash or a blank where that is possible."""
    shown, lines = verdict(word), [""]
    for part in _PARTS.findall(shown.plain):
        if lines[-1] and cell_len(lines[-1] + part.rstrip()) > room:
            lines.append("")
        lines[-1] += part
    shown.plain = "\n".join(lines)
    return shown


def cells(shown: RenderableType) -> int:
    """How wide `shown` is where there is room for all of it."""
    console = _console()
    return console.measure(shown, options=console.options.update(width=UNLIMITED)).maximum


def grid(*rows: Sequence[str | Text], gap: int = 1) -> Table:
    """Lines of short words and a text behind them, which is wrapped in its own column."""
    made = Table.grid(padding=(0, gap, 0, 0), pad_edge=False)
    *leading, _ = rows[0]
    for _ in leading:
        made.add_column(no_wrap=True)
    made.add_column(overflow="fold")
    for row in rows:
        made.add_row(*(Text(label(cell)) if isinstance(cell, str) else cell for cell in row))
    return made
