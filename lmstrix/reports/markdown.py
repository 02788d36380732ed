"""Reports, maps and comparisons as Markdown, for issues, wikis and pull requests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lmstrix.models import DEPTH_BINS, ContextMap, ContextReport, Layer
from lmstrix.reports.compare import Comparison, Row
from lmstrix.reports.words import (
    CURVE_HEAD,
    REGION_HEAD,
    continue_command,
    curve_notes,
    curve_row,
    escape_controls,
    in_order,
    level_rows,
    next_command,
    region_rows,
    repeat_command,
    say_cause,
    say_evidence,
    say_kept,
    say_limit,
    say_loadable,
    say_model_facts,
    say_numbers,
    say_provenance,
    say_regions,
    say_remarks,
    say_summary,
    say_tokens,
    say_true,
    say_why,
)

MARKER = "<!-- LMStrix -->"
"""The first line of every document of ours. Markdown does not show it."""

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&$#@!]")
"""Beginnings of emphasis, code, links, images, HTML, cells, entities, formulas and mentions."""
_AT_START = re.compile(r"^(\s*(?:\d+(?=[.)]))?)([-+=.)])")
"""The beginning of a list, or the line below a heading."""
_LINK = re.compile(r"(?i)(://|\bwww\.)")
"""The text that GitHub turns into a link by itself."""


def escape_markdown(text: str) -> str:
    r"""`text` on one line so that it shows as it is; controls are written as ``\xNN``.

    >>> print(escape_markdown("a|b <i> *c*"))
    a\|b \<i\> \*c\*
    """
    text = _SPECIAL.sub(lambda match: "\\" + match[0], escape_controls(text))
    text = _LINK.sub(lambda match: match[0][:-1] + "\\" + match[0][-1], text)
    return _AT_START.sub(r"\1\\\2", text)


def code_span(text: str, *, in_table: bool = False) -> str:
    r"""`text` as code on one line. Nothing in it has a meaning, except a pipe in a table.

    >>> print(code_span("a`b"))
    ``a`b``
    """
    text = escape_controls(text) or " "
    fence = "`" * (_longest_run(text) + 1)
    if in_table:
        text = text.replace("|", "\\|")
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def code_block(text: str) -> str:
    """`text` as a block of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}sh\n{escape_controls(text, keep=chr(10))}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def render_markdown(reports: Sequence[ContextReport], maps: Sequence[ContextMap] = ()) -> str:
    """All reports in the given order, then all maps, with untrusted text escaped.

    Several reports get an overview.
    """
    blocks = [MARKER]
    if len(reports) > 1:
        blocks += ["# Context reports", _overview(reports)]
    for report in reports:
        blocks += _report(report, "##" if len(reports) > 1 else "#")
    for found in maps:
        blocks += _map(found)
    return "\n\n".join(blocks) + "\n"


def render_comparison_markdown(compared: Comparison) -> str:
    """Results side by side: a column for each result, or a row for each of many."""
    blocks = [MARKER, "# Results side by side", _facts(compared, compared.found)]
    if compared.differing:
        blocks += ["## Differences", _facts(compared, compared.differing)]
    if compared.same:
        rows = [_cells(label, value) for label, value in compared.same]
        blocks += ["## The same in all", _table(["", ""], rows, words=(0, 1))]
    return "\n\n".join(blocks) + "\n"


def _facts(compared: Comparison, rows: Sequence[Row]) -> str:
    head, body = compared.table(rows)
    names = [code_span(name, in_table=True) for name in compared.names]
    if compared.is_long:
        cells = [[name, *_cells(*row[1:])] for name, row in zip(names, body, strict=True)]
        return _table(["", *_cells(*head[1:])], cells, words=(0,))
    return _table(["", *names], [_cells(*row) for row in body], words=(0,))


def _overview(reports: Sequence[ContextReport]) -> str:
    head = ["model", "declared", "loadable", "true", "limit", "certified"]
    rows = [
        [
            code_span(report.model.key, in_table=True),
            say_tokens(report.declared_context),
            say_loadable(report),
            say_true(report),
            say_limit(report),
            "yes" if report.certified else "no",
        ]
        for report in reports
    ]
    return _table(head, rows, words=(0, 4, 5))


def _report(report: ContextReport, heading: str) -> Iterator[str]:
    yield f"{heading} {code_span(report.model.key)}"
    yield escape_markdown(say_summary(report))
    facts = say_model_facts(report)
    if facts:
        yield escape_markdown(facts)
    numbers = [[f"**{n.name}**", n.value, n.meaning] for n in say_numbers(report)]
    yield _table(["", "tokens", ""], numbers, words=(0, 2))
    regions = say_regions(report)
    if regions:
        yield regions
    if report.regions:
        yield _table(REGION_HEAD, region_rows(report), words=(0, 1, 4))
    why = f"cause: **{say_cause(report.cause)}**. {say_why(report)}".rstrip()
    yield _list([why, *say_evidence(report)])
    if report.curve:
        rows = [
            [*curve_row(point), say_cause(point.failure) if point.failure else ""]
            for point in in_order(report.curve)
        ]
        yield _table([*CURVE_HEAD, ""], rows, words=(3, 6))
        yield from curve_notes(report.curve)
    if report.levels:
        rows = [_cells(*row) for row in level_rows(report)]
        yield _table(["level", "limit", "cause"], rows, words=(0, 2))
    remarks = [escape_markdown(remark) for remark in say_remarks(report)]
    if remarks:
        yield _list(remarks)
    command = next_command(report)
    if command:
        yield f"To use {say_tokens(report.true_context)} tokens: {code_span(command)}"
    yield _list(_cells(*say_provenance(report)))
    if goes_on := continue_command(report):
        yield "To continue:"
        yield code_block(goes_on)
    yield "To repeat:"
    yield code_block(repeat_command(report))


def _map(found: ContextMap) -> Iterator[str]:
    yield f"## Map of {code_span(found.model.key)}"
    for layer in found.layers:
        yield f"### {escape_markdown(layer.name)}, mean score in percent by length and depth"
        yield _layer(found, layer)
        kept = say_kept(found, layer)
        if kept:
            yield kept
    if found.notes:
        yield _list([escape_markdown(note) for note in found.notes])


def _layer(found: ContextMap, layer: Layer) -> str:
    head = ["length", *(f"{100 * i // DEPTH_BINS}%" for i in range(DEPTH_BINS)), "all"]
    rows = [
        [
            say_tokens(length),
            *("-" if score is None else f"{100 * score:.0f}" for score in layer.scores(length)),
        ]
        for length in found.lengths
    ]
    return _table(head, rows, words=())


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _cells(*texts: str) -> list[str]:
    return [escape_markdown(text) for text in texts]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[int]) -> str:
    """A table of cells that are Markdown already. Columns in `words` are aligned to the left."""
    rule = ["---" if column in words else "--:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
