"""Facts as compact HTML tables. Colours are the notebook's own, light or dark."""

from __future__ import annotations

from lmstrix.maps import DEPTH_BINS, ContextMap, Layer
from lmstrix.model_list import ModelList
from lmstrix.models import ContextReport, CurvePoint
from lmstrix.notebook.templating import fill
from lmstrix.reports.map_text import say_kept
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
from lmstrix.reports.table import CURVE_HEAD, curve_row, in_order
from lmstrix.reports.words import REGION_HEAD, region_rows, say_cause, say_regions, say_why

__all__ = ["map_table", "model_table", "report_table"]

FAINTEST, STRONGEST = 0.12, 0.5
"""How strongly a cell with score 0 and one with score 1 is tinted, from 0 to 1: told apart from one
without answers, and so that the theme's own letters can be read on it, dark or light."""


def report_table(report: ContextReport) -> str:
    """The numbers, the cause, how far each level reaches, and what was seen at each length."""
    return fill(
        "report",
        model=report.model,
        facts=say_model_facts(report),
        numbers=say_numbers(report),
        cause=say_cause(report.cause),
        sentence=say_why(report),
        evidence=(say_regions(report), say_certified(report), say_bracket(report))
        if report.true_context is not None
        else (),
        region_head=REGION_HEAD,
        regions=region_rows(report),
        levels=[
            (level.name, say_reach(level), str(level.cause).replace("_", " "))
            for level in report.levels
        ],
        head=CURVE_HEAD[:-1],
        rows=[_curve_cells(point) for point in in_order(report.curve)],
        remarks=[*say_remarks(report), say_cost(report)],
    )


def _curve_cells(point: CurvePoint) -> tuple[str, ...]:
    """Without the bar; how the engine itself failed stands beside the verdict."""
    length, right, interval, verdict, *times, _ = curve_row(point)
    if point.failure is not None:
        verdict = f"{verdict} ({point.failure.replace('_', ' ')})"
    return (length, right, interval, verdict, *times)


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
    return {"name": layer.name, "rows": rows, "kept": say_kept(found, layer)}


def _cell(score: float | None) -> tuple[str, float]:
    """What stands in a cell, and how strongly it is tinted."""
    if score is None:
        return "", 0.0
    share = min(1.0, max(0.0, score))
    return f"{100 * score:.0f}", round(FAINTEST + (STRONGEST - FAINTEST) * share, 2)


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
