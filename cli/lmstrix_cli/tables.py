"""Columns of text, as wide as they need to be: a name is never cut, so that it can be copied."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from lmstrix_cli.safe_text import label

__all__ = ["columns"]


def columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> str:
    """A table with a head; the columns numbered in `right` are aligned to the right.

    Every cell is escaped. Wide characters count as the two cells they take.
    """
    table = [[label(cell) for cell in row] for row in (head, *rows)]
    widths = [max(cell_len(row[index]) for row in table) for index in range(len(head))]
    return "\n".join(_line(row, widths, right) for row in table)


def _line(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    padded: list[str] = []
    for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
        space = " " * (width - cell_len(cell))
        padded.append(space + cell if index in right else cell + space)
    return "  ".join(padded).rstrip()
