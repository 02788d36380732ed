"""A `ContextMap` as plain text: one table of lengths by depths for each validator."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from lmstrix.maps import DEPTH_BINS, ContextMap, Layer
from lmstrix.reports.escaping import escape_controls
from lmstrix.reports.quantities import say_percent, say_seconds

__all__ = ["render_map", "say_kept"]

_TITLES = {
    "recall": "recall: answers that were right, in percent",
    "copy": "copy: words of a passage copied in order, in percent",
}
_CELL = 4


def render_map(found: ContextMap, *, width: int = 80) -> str:
    """The whole map, without a final newline. Untrusted text in it is escaped."""
    blocks = [[escape_controls(found.model.key)]]
    blocks += [list(_table(found, layer)) for layer in found.layers]
    blocks += [[line for note in found.notes for line in _wrap(f"note: {note}", width)]]
    blocks += [_wrap(_cost(found), width)]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _table(found: ContextMap, layer: Layer) -> Iterator[str]:
    yield escape_controls(_TITLES.get(layer.name, f"{layer.name}: mean score, in percent"))
    depths = "".join(f"{100 * i // DEPTH_BINS}".rjust(_CELL) for i in range(DEPTH_BINS))
    yield f"  length{depths}    all"
    cells = {(cell.length_tokens, cell.depth_bin): cell.score for cell in layer.cells}
    for length in found.lengths:
        row = "".join(_percent(cells.get((length, i))) for i in range(DEPTH_BINS))
        yield f"{length:>8}{row}   {_percent(layer.rate(length))}"
    kept = say_kept(found, layer)
    if kept:
        yield kept


def say_kept(found: ContextMap, layer: Layer) -> str:
    """How far a layer keeps its score; an empty string where that is not known."""
    limit = layer.limit(found.ratio)
    if limit is None:
        return ""
    share = say_percent(found.ratio)
    return f"keeps {share} of what it is at {min(found.lengths)} up to {limit}"


def _percent(score: float | None) -> str:
    return ("." if score is None else f"{100 * score:.0f}").rjust(_CELL)


def _cost(found: ContextMap) -> str:
    cost = found.cost
    share = cost.document_tokens / found.lengths[-1]
    return (
        f"cost: {cost.document_tokens} tokens of the document read ({share:.2f} times its length),"
        f" {cost.question_tokens} of {cost.questions} questions, {cost.cached_tokens} reused from"
        f" cache, {cost.generated_tokens} generated, {say_seconds(cost.seconds)}."
    )


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(escape_controls(text), width, subsequent_indent="  ")
