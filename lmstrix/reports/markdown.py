"""Reports and comparisons as Markdown, for issues, wikis and pull requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lmstrix.maps import DEPTH_BINS, ContextMap, Layer
from lmstrix.models import ContextReport
from lmstrix.reports.comparison import Comparison
from lmstrix.reports.map_text import say_kept
from lmstrix.reports.markdown_escaping import code_block, code_span, escape_markdown
from lmstrix.reports.quantities import say_moment, say_tokens
from lmstrix.reports.sentences import (
    say_baseline,
    say_bracket,
    say_certified,
    say_cost,
    say_engine,
    say_model_facts,
    say_numbers,
    say_reach,
    say_remarks,
)
from lmstrix.reports.table import CURVE_HEAD, curve_row, in_order
from lmstrix.reports.text import repeat_command
from lmstrix.reports.words import REGION_HEAD, region_rows, say_cause, say_regions, say_why

__all__ = ["MARKER", "render_comparison_markdown", "render_markdown"]

MARKER = "<!-- LMStrix -->"
"""The first line of every document of ours; Markdown does not show it."""


def render_markdown(reports: Sequence[ContextReport], maps: Sequence[ContextMap] = ()) -> str:
    """Every report in that order, with an overview where there are several, and every map.

    Untrusted text in it is escaped.
    """
    blocks = [MARKER]
    if len(reports) > 1:
        blocks += ["# Context reports", *_overview(reports)]
    for report in reports:
        blocks += _report(report, "##" if len(reports) > 1 else "#")
    for found in maps:
        blocks += _map(found)
    return "\n\n".join(blocks) + "\n"


def render_comparison_markdown(compared: Comparison) -> str:
    """Results side by side: a row for each fact, a column for each result."""
    head = ["", *(code_span(name, in_table=True) for name in compared.names)]
    found = [_cells(row.label, *row.values) for row in compared.found]
    blocks = [MARKER, "# Results side by side", _table(head, found, words=(0,))]
    if compared.differing:
        rows = [_cells(row.label, *row.values) for row in compared.differing]
        blocks += ["## What differs", _table(head, rows, words=(0,))]
    if compared.same:
        rows = [_cells(label, value) for label, value in compared.same]
        blocks += ["## The same in all", _table(["", ""], rows, words=(0, 1))]
    return "\n\n".join(blocks) + "\n"


def _overview(reports: Sequence[ContextReport]) -> Iterator[str]:
    head = ["model", "declared", "loadable", "true", "cause", "certified"]
    rows = [
        [
            code_span(report.model.key, in_table=True),
            say_tokens(report.declared_context),
            say_tokens(report.loadable_context),
            say_tokens(report.true_context),
            report.cause.replace("_", " "),
            "yes" if report.certified else "no",
        ]
        for report in reports
    ]
    yield _table(head, rows, words=(0, 4, 5))


def _report(report: ContextReport, heading: str) -> Iterator[str]:
    yield f"{heading} {code_span(report.model.key)}"
    facts = say_model_facts(report)
    if facts:
        yield escape_markdown(facts)
    numbers = [[f"**{n.name}**", n.value, n.meaning] for n in say_numbers(report)]
    yield _table(["", "tokens", ""], numbers, words=(0, 2))
    cause = say_cause(report.cause)
    yield _list([f"cause: **{cause}**. {say_why(report)}", *_evidence(report)])
    if report.curve:
        yield _curve(report)
    if report.regions:
        yield _table(REGION_HEAD, region_rows(report), words=(0, 1, 4))
    if report.levels:
        rows = [_cells(x.name, say_reach(x), x.cause.replace("_", " ")) for x in report.levels]
        yield _table(["level", "limit", "why no further"], rows, words=(0, 2))
    remarks = [escape_markdown(remark) for remark in say_remarks(report)]
    if remarks:
        yield _list(remarks)
    yield _list(_provenance(report))
    yield code_block(repeat_command(report))


def _evidence(report: ContextReport) -> list[str]:
    if report.true_context is None:
        return []
    sentences = (
        say_regions(report),
        say_certified(report),
        say_bracket(report),
        say_baseline(report),
    )
    return [sentence for sentence in sentences if sentence]


def _curve(report: ContextReport) -> str:
    rows = [
        [*curve_row(point)[:6], str(point.failure or "").replace("_", " ")]
        for point in in_order(report.curve)
    ]
    return _table(CURVE_HEAD, rows, words=(3, 6))


def _provenance(report: ContextReport) -> list[str]:
    engine = say_engine(report)
    cost = say_cost(report)
    return [
        *([cost] if cost else []),
        *([f"engine: {escape_markdown(engine)}"] if engine else []),
        f"finished: {say_moment(report.finished_at)}",
        "repeat it with",
    ]


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
    known = {(cell.length_tokens, cell.depth_bin): cell.score for cell in layer.cells}
    head = ["length", *(f"{100 * i // DEPTH_BINS} %" for i in range(DEPTH_BINS)), "all"]
    rows = [
        [
            str(length),
            *(_percent(known.get((length, i))) for i in range(DEPTH_BINS)),
            _percent(layer.rate(length)),
        ]
        for length in found.lengths
    ]
    return _table(head, rows, words=())


def _percent(score: float | None) -> str:
    return "-" if score is None else f"{100 * score:.0f}"


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _cells(*texts: str) -> list[str]:
    return [escape_markdown(text) for text in texts]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: Sequence[int]) -> str:
    """A table of cells that are Markdown already; columns in `words` are aligned to the left."""
    rule = ["---" if column in words else "--:" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
