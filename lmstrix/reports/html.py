"""Reports as HTML: a page that loads nothing and runs nothing, or an element for another page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import cast

import jinja2

from lmstrix.models import ContextMap, ContextReport
from lmstrix.reports import charts, words
from lmstrix.reports.compare import NOT_KNOWN, Comparison, compare, settings_of, speed_there
from lmstrix.reports.words import (
    curve_row,
    escape_controls,
    in_order,
    level_rows,
    say_bytes,
    say_cause,
    say_count,
    say_percent,
    say_speed,
    say_true,
)

Section = Mapping[str, object]
"""One report and its drawings, by the names that ``parts.html.j2`` uses."""


def render_html(reports: Sequence[ContextReport], maps: Sequence[ContextMap] = ()) -> str:
    """One page with all reports in the given order. Several reports get an overview.

    A map is drawn in the section of the first report of its model, or in a section of its own.
    The page loads nothing, has no script, and escapes all untrusted text.
    """
    compared = compare(reports)
    owned, others = _share_out(reports, maps)
    sections = [
        _section(
            report,
            anchor=f"model-{index + 1}",
            distinction=compared.distinction(index),
            maps=owned[index],
        )
        for index, report in enumerate(reports)
    ]
    heading = _heading(reports)
    title = heading
    if len(reports) == 1:
        title = f"{reports[0].model.key}: true context {say_true(reports[0])}"
    return _page(
        "page.html.j2",
        sections,
        reports,
        orders=_orders(reports),
        maps=[_map_section(found) for found in others],
        title=title,
        heading=heading,
    )


def render_fragment(report: ContextReport, maps: Sequence[ContextMap] = ()) -> str:
    """One report as an element for another page.

    Its style affects nothing outside it. It has no ``id``, so a page may hold it twice.
    """
    section = _section(report, maps=maps)
    return templates().get_template("fragment.html.j2").render(s=section, chart=False)


def render_map(found: ContextMap) -> str:
    """A map as an element for another page."""
    return templates().get_template("fragment.html.j2").render(s=None, found=_map_section(found))


def render_chart(report: ContextReport) -> str:
    """The summary of a report and the chart of its lengths, as an element for another page."""
    section = _section(report)
    return templates().get_template("fragment.html.j2").render(s=section, chart=True)


def render_comparison(compared: Comparison) -> str:
    """One page with several results side by side."""
    sections = [
        _section(report, distinction=compared.distinction(index))
        for index, report in enumerate(compared.reports)
    ]
    return _page(
        "comparison.html.j2",
        sections,
        compared.reports,
        comparison=compared,
        orders=(),
        maps=(),
        title=f"{len(sections)} results side by side",
        heading="Results side by side",
    )


def _page(
    template: str, sections: Sequence[Section], reports: Sequence[ContextReport], **more: object
) -> str:
    bars = charts.number_bars(reports)
    page = templates().get_template(template)
    return page.render(sections=sections, bars=bars, version=_version(), **more)


def _share(report: ContextReport) -> str:
    """The true context as a share of the declared one."""
    true, declared = report.true_context, report.declared_context
    if true is None or not declared:
        return NOT_KNOWN
    share = true / declared
    return say_percent(share) if not 0 < share < 0.01 else "<1%"


def _orders(reports: Sequence[ContextReport]) -> list[tuple[str, list[int]]]:
    """Ways to sort the overview, by the name of the column: the numbers of the reports."""
    keys: dict[str, Callable[[ContextReport], float]] = {
        "true": lambda r: r.true_context or 0,
        "declared": lambda r: r.declared_context or 0,
        "share": lambda r: (r.true_context or 0) / (r.declared_context or math.inf),
        "speed": lambda r: speed_there(r) or 0,
        "size": lambda r: r.model.size_bytes,
    }
    at = range(len(reports))
    orders = [
        (name, sorted(at, key=lambda i, key=key: -key(reports[i]))) for name, key in keys.items()
    ]
    by_name = sorted(at, key=lambda i: reports[i].model.key.casefold())
    return [("model", by_name), *orders]


def _heading(reports: Sequence[ContextReport]) -> str:
    if len(reports) == 1:
        return "Context report"
    models = len({(report.model.key, report.model.digest) for report in reports})
    if len(reports) == models:
        return f"Context report of {models} models"
    return f"Context report: {len(reports)} results of {say_count(models, 'model')}"


def _share_out(
    reports: Sequence[ContextReport], maps: Sequence[ContextMap]
) -> tuple[list[list[ContextMap]], list[ContextMap]]:
    """The maps of each report, and those of other models."""
    models = [(report.model.key, report.model.digest) for report in reports]
    owned: list[list[ContextMap]] = [[] for _ in reports]
    others: list[ContextMap] = []
    for found in maps:
        model = (found.model.key, found.model.digest)
        (owned[models.index(model)] if model in models else others).append(found)
    return owned, others


def _section(
    report: ContextReport,
    *,
    anchor: str = "",
    distinction: str = "",
    maps: Sequence[ContextMap] = (),
) -> Section:
    own, path = charts.heat_of_report(report), report.model.path
    notes = (f"map: {note}" for found in maps for note in found.notes)
    baselines = [f"{x.baseline.passes} of {x.baseline.trials}" for x in report.levels]
    return {
        "report": report,
        "anchor": anchor,
        "distinction": distinction,
        "bars": charts.number_bars([report])[0],
        "size": say_bytes(report.model.size_bytes) or NOT_KNOWN,
        "speed": say_speed(speed_there(report)),
        "share": _share(report),
        "remarks": [*words.say_remarks(report), *notes],
        "recall": charts.plot_recall(report),
        "near": charts.plot_near(report),
        "speeds": [p for p in (charts.plot_speed(report), charts.plot_wait(report)) if p],
        "heats": [*([own] if own else []), *(heat for m in maps for heat in _heats(m))],
        "curve": _curve_rows(report),
        "levels": [(*row, b) for row, b in zip(level_rows(report), baselines, strict=True)],
        "settings": [*settings_of(report).items(), *([("path", path)] if path else [])],
    }


def _map_section(found: ContextMap) -> Section:
    """A map of a model without a report."""
    return {
        "map": found,
        "heats": list(_heats(found)),
    }


def _heats(found: ContextMap) -> Iterator[charts.Heat]:
    heats = (charts.heat_of_layer(found, layer) for layer in found.layers)
    return (heat for heat in heats if heat is not None)


def _curve_rows(report: ContextReport) -> list[tuple[str, ...]]:
    """The cells of each length, with a failure of the engine next to the verdict."""
    rows: list[tuple[str, ...]] = []
    for point in in_order(report.curve):
        length, correct, interval, verdict, *times = curve_row(point)
        if point.failure is not None:
            verdict = f"{verdict} ({say_cause(point.failure)})"
        rows.append((length, correct, interval, verdict, *times))
    return rows


def _version() -> str:
    try:
        return version("lmstrix")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


@cache
def templates() -> jinja2.Environment:
    """The environment of all templates. It escapes every value for HTML, and every character that
    steers a terminal.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lmstrix.reports"),
        autoescape=True,
        finalize=_harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    cast("dict[str, object]", environment.globals).update(box=charts.BOX, texts=words)
    return environment


def _harmless(value: object) -> object:
    """Text without characters that steer. The HTML of our macros is already escaped."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return escape_controls(value)
    return value
