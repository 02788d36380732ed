"""One report as its page shows it: words, tables and drawings, ready for a template."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from lmstrix.maps import ContextMap
from lmstrix.models import ContextReport, CurvePoint, LevelReport
from lmstrix.reports.html.bars import NumberBars, number_bars
from lmstrix.reports.html.depths import (
    DepthPlot,
    Heat,
    heat_of_layer,
    heat_of_report,
    plot_depths,
)
from lmstrix.reports.html.recall import RecallPlot, plot_near, plot_recall
from lmstrix.reports.html.speed import SpeedPlot, plot_speed, plot_wait
from lmstrix.reports.quantities import say_moment, say_percent, say_seconds, say_tokens
from lmstrix.reports.sentences import (
    Number,
    say_baseline,
    say_bracket,
    say_certified,
    say_model_facts,
    say_numbers,
    say_reach,
    say_remarks,
)
from lmstrix.reports.table import curve_row, in_order
from lmstrix.reports.text import repeat_command
from lmstrix.reports.words import region_rows, say_cause, say_regions, say_why

__all__ = ["CurveRow", "LevelRow", "MapSection", "Section", "make_map_section", "make_section"]

Pairs = tuple[tuple[str, str], ...]


@attrs.frozen
class CurveRow:
    """One length in the table."""

    length: str
    right: str
    interval: str
    verdict: str
    ttft: str
    speed: str
    failure: str


@attrs.frozen
class LevelRow:
    """One kind of use in the table."""

    name: str
    limit: str
    cause: str
    baseline: str


@attrs.frozen(kw_only=True)
class Section:
    """Everything that is shown of one report."""

    anchor: str
    name: str
    distinction: str
    facts: str
    moment: str
    numbers: tuple[Number, ...]
    bars: NumberBars
    cause: str
    cause_sentence: str
    certified: str
    evidence: tuple[str, ...]
    remarks: tuple[str, ...]
    recall: RecallPlot | None
    near: RecallPlot | None
    any_dead: bool
    depths: DepthPlot | None
    speed: SpeedPlot | None
    wait: SpeedPlot | None
    heats: tuple[Heat, ...]
    rows: tuple[CurveRow, ...]
    regions: tuple[tuple[str, ...], ...]
    levels: tuple[LevelRow, ...]
    cost: Pairs
    method: Pairs
    environment: Pairs
    command: str


@attrs.frozen
class MapSection:
    """A map of a model of which there is no report."""

    name: str
    moment: str
    heats: tuple[Heat, ...]
    notes: tuple[str, ...]


def make_section(
    report: ContextReport,
    *,
    anchor: str = "",
    distinction: str = "",
    maps: Sequence[ContextMap] = (),
) -> Section:
    """What is shown of `report`, and of the maps of its model."""
    recall = plot_recall(report)
    evidence = (
        say_regions(report),
        say_certified(report),
        say_bracket(report),
        say_baseline(report),
    )
    notes = (f"map: {note}" for found in maps for note in found.notes)
    own = heat_of_report(report)
    return Section(
        anchor=anchor,
        name=report.model.key,
        distinction=distinction,
        facts=say_model_facts(report),
        moment=say_moment(report.finished_at),
        numbers=say_numbers(report),
        bars=number_bars([report])[0],
        cause=say_cause(report.cause),
        cause_sentence=say_why(report),
        certified="yes" if report.certified else "no",
        evidence=tuple(s for s in evidence if s) if report.true_context is not None else (),
        remarks=(*say_remarks(report), *notes),
        recall=recall,
        near=plot_near(report),
        any_dead=recall is not None and any(dot.shape == "dead" for dot in recall.dots),
        depths=plot_depths(report),
        speed=plot_speed(report),
        wait=plot_wait(report),
        heats=(*((own,) if own else ()), *(heat for m in maps for heat in _heats(m))),
        rows=_curve_rows(report),
        regions=tuple(region_rows(report)),
        levels=tuple(_level_row(level) for level in report.levels),
        cost=_cost(report),
        method=_method(report),
        environment=_environment(report),
        command=repeat_command(report),
    )


def make_map_section(found: ContextMap) -> MapSection:
    """What is shown of a map alone."""
    moment = say_moment(found.finished_at)
    return MapSection(found.model.key, moment, tuple(_heats(found)), found.notes)


def _heats(found: ContextMap) -> list[Heat]:
    heats = (heat_of_layer(found, layer) for layer in found.layers)
    return [heat for heat in heats if heat is not None]


def _curve_rows(report: ContextReport) -> tuple[CurveRow, ...]:
    return tuple(_curve_row(point) for point in in_order(report.curve))


def _curve_row(point: CurvePoint) -> CurveRow:
    length, right, interval, verdict, ttft, speed, _ = curve_row(point)
    failure = str(point.failure or "").replace("_", " ")
    return CurveRow(length, right, interval, verdict, ttft, speed, failure)


def _level_row(level: LevelReport) -> LevelRow:
    baseline = level.baseline
    return LevelRow(
        level.name,
        say_reach(level),
        level.cause.replace("_", " "),
        f"{baseline.passes} of {baseline.trials}",
    )


def _cost(report: ContextReport) -> Pairs:
    cost = report.cost
    return (
        ("time", say_seconds(cost.seconds)),
        ("loads", str(cost.loads)),
        ("prompt tokens read", str(cost.prompt_tokens)),
        ("reused from cache", str(cost.cached_tokens)),
        ("tokens generated", str(cost.generated_tokens)),
    )


def _method(report: ContextReport) -> Pairs:
    method = report.method
    return (
        ("strategy", method.strategy),
        ("validator", method.validator),
        ("levels", ", ".join(method.levels) or "none"),
        ("tolerance", f"{method.tolerance:.6g}"),
        ("ratio", f"{say_percent(method.ratio)}{'' if method.absolute else ' of the baseline'}"),
        ("seed", str(method.seed)),
        ("largest length", say_tokens(method.max_context, unknown="as declared")),
    )


def _environment(report: ContextReport) -> Pairs:
    where = report.environment
    pairs = (
        ("adapter", where.adapter),
        ("engine", where.engine),
        *((name, version) for name, version in where.versions.items()),
        *((f"loaded with {name}", value) for name, value in where.load_config.items()),
        ("model's path", report.model.path),
        ("model's content", report.model.digest),
    )
    return tuple((name, value) for name, value in pairs if value)
