"""Facts as compact HTML tables. Colours are the notebook's own, light or dark."""

from __future__ import annotations

from lmstrix.maps import DEPTH_BINS, ContextMap, Layer
from lmstrix.model_list import ModelList
from lmstrix.models import ContextReport
from lmstrix.notebook.templating import fill
from lmstrix.reports.causes import CAUSE_SENTENCES
from lmstrix.reports.quantities import say_bytes, say_tokens
from lmstrix.reports.sentences import (
    say_bracket,
    say_certified,
    say_cost,
    say_model_facts,
    say_numbers,
    say_reach,
    say_remarks,
)
from lmstrix.reports.table import CURVE_HEAD, curve_row

__all__ = ["map_table", "model_table", "report_table"]

FAINTEST = 0.12
"""How strongly a cell with score 0 is tinted, from 0 to 1: told apart from one without answers."""


def report_table(report: ContextReport) -> str:
    """The numbers, the cause, how far each level reaches, and what was seen at each length."""
    curve = sorted(report.curve, key=lambda point: point.length_tokens)
    return fill(
        "report",
        model=report.model,
        facts=say_model_facts(report),
        numbers=say_numbers(report),
        cause=str(report.cause).replace("_", " "),
        sentence=CAUSE_SENTENCES[report.cause],
        evidence=(say_certified(report), say_bracket(report)) if report.true_context else (),
        levels=[
            (level.name, say_reach(level), str(level.cause).replace("_", " "))
            for level in report.levels
        ],
        head=CURVE_HEAD[:-1],
        rows=[curve_row(point)[:-1] for point in curve],
        remarks=[*say_remarks(report), say_cost(report)],
    )


def map_table(found: ContextMap) -> str:
    """One table of lengths by depths for each validator, tinted by score."""
    return fill(
        "map",
        model=found.model,
        depths=[f"{100 * i // DEPTH_BINS} %" for i in range(DEPTH_BINS)],
        layers=[_layer(found, layer) for layer in found.layers],
        notes=found.notes,
    )


def _layer(found: ContextMap, layer: Layer) -> dict[str, object]:
    scores = {(cell.length_tokens, cell.depth_bin): cell.score for cell in layer.cells}
    rows = [
        (length, [_cell(scores.get((length, depth))) for depth in range(DEPTH_BINS)])
        for length in found.lengths
    ]
    return {"name": layer.name, "rows": rows, "limit": layer.limit(found.ratio)}


def _cell(score: float | None) -> tuple[str, float]:
    """What stands in a cell, and how strongly it is tinted."""
    if score is None:
        return "", 0.0
    return f"{100 * score:.0f}", round(FAINTEST + (1 - FAINTEST) * min(1.0, max(0.0, score)), 2)


def model_table(models: ModelList) -> str:
    """One row for each model."""
    rows = [
        (
            model.key,
            model.type,
            model.architecture,
            model.parameters,
            model.quantization,
            say_bytes(model.size_bytes),
            say_tokens(model.declared_context),
        )
        for model in models
    ]
    return fill("models", rows=rows)
