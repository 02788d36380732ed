"""A comparison on a terminal: results as columns, or as lines if the columns do not fit."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from lmstrix.reports.compare import NOT_KNOWN, Comparison, Row
from lmstrix_cli.safe_text import label
from lmstrix_cli.tables import columns

__all__ = ["side_by_side"]

_IN_LINES = ("declared", "loadable", "true", "cause", "certified", "tokens/s there")
"""What the lines show; those on the right go first where even they do not fit."""
_FEWEST = 4


def side_by_side(compared: Comparison, width: int) -> str:
    """The whole comparison in `width` columns, as far as single values allow it. Escaped."""
    for head, legend in _heads(compared):
        table = _as_columns(compared, head)
        if _width(table) <= width:
            return _joined([legend, table, _same(compared, width)])
    numbers, legend = list(_heads(compared))[-1]
    table = _as_lines(compared, numbers, width)
    return _joined([legend, table, _details(compared, numbers, width), _same(compared, width)])


def _heads(compared: Comparison) -> Iterator[tuple[Sequence[str], str]]:
    """What may stand above the results, the best first, with what stands before the table."""
    names = [label(name) for name in compared.names]
    parts = [name.rstrip("/\\").replace("\\", "/").rpartition("/")[2] for name in names]
    numbers = [str(number) for number in range(1, len(names) + 1)]
    if len(set(names)) == 1:
        yield numbers, names[0]
        return
    if len(set(names)) == len(names):
        yield names, ""
    if len(set(parts)) == len(parts):
        yield parts, ""
    yield numbers, "\n".join(f"{n}  {name}" for n, name in zip(numbers, names, strict=True))


def _as_columns(compared: Comparison, head: Sequence[str]) -> str:
    rows = [_cells(row) for row in compared.found]
    if compared.differing:
        blank = ("",) * len(head)
        rows += [("", *blank), ("differences", *blank)]
        rows += [_cells(row) for row in compared.differing]
    return columns(("", *head), rows, right=tuple(range(1, len(head) + 1)))


def _cells(row: Row) -> tuple[str, ...]:
    return (row.label, *row.values)


def _as_lines(compared: Comparison, numbers: Sequence[str], width: int) -> str:
    """One line for each result."""
    rows = {row.label: row for row in compared.found}
    shown = [rows[name] for name in _IN_LINES if name in rows]
    table = ""
    for count in range(len(shown), min(_FEWEST, len(shown)) - 1, -1):
        kept = shown[:count]
        lines = [
            (number, *(row.values[index] for row in kept)) for index, number in enumerate(numbers)
        ]
        right = tuple(
            i + 1 for i, row in enumerate(kept) if row.label not in {"cause", "certified"}
        )
        table = columns(("#", *(row.label.upper() for row in kept)), lines, right=right)
        if _width(table) <= width:
            break
    return table


def _details(compared: Comparison, numbers: Sequence[str], width: int) -> str:
    """Limits of regions and levels, and the differences: one paragraph for each result."""
    rows = [row for row in compared.found if row.label.startswith(("region ", "level "))]
    rows += compared.differing
    if not rows:
        return ""
    paragraphs = [
        _paragraph(
            f"{number}  ",
            [f"{row.label} {row.values[i]}" for row in rows if row.values[i] != NOT_KNOWN],
            width,
        )
        for i, number in enumerate(numbers)
    ]
    return "\n".join(["differences", *paragraphs])


def _same(compared: Comparison, width: int) -> str:
    pairs = [f"{name} {value}" for name, value in compared.same]
    return _paragraph("the same in all: ", pairs, width) if pairs else ""


def _paragraph(start: str, items: Sequence[str], width: int) -> str:
    text = start + ", ".join(label(item) for item in items)
    return textwrap.fill(text, max(width, 40), subsequent_indent="   ", break_on_hyphens=False)


def _width(table: str) -> int:
    return max(cell_len(line) for line in table.splitlines())


def _joined(blocks: Sequence[str]) -> str:
    return "\n\n".join(block for block in blocks if block)
