"""Sections to one page. The only module that knows the templates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace

import jinja2

from lmstrix.maps import ContextMap
from lmstrix.models import ContextReport, ModelInfo
from lmstrix.reports.comparison import Comparison, compare
from lmstrix.reports.escaping import escape_controls
from lmstrix.reports.html import canvas
from lmstrix.reports.html.bars import number_bars
from lmstrix.reports.html.sections import Section, make_map_section, make_section
from lmstrix.reports.quantities import say_count

__all__ = ["GENERATOR", "render_comparison", "render_fragment", "render_html"]

GENERATOR = '<meta name="generator" content="LMStrix'
"""Stands near the beginning of every page of ours, and tells it from other files."""


def render_html(reports: Sequence[ContextReport], maps: Sequence[ContextMap] = ()) -> str:
    """One page with every report, in that order, and an overview where there are several.

    A map is drawn in the section of the first report of the same model, or in one of its own.
    The page is complete: it loads nothing, has no script, and escapes all that is untrusted.
    """
    compared = compare(reports)
    kept = _share_out(reports, maps)
    sections = [
        make_section(
            report,
            anchor=f"model-{index + 1}",
            distinction=compared.distinction(index),
            maps=kept.get(index, ()),
        )
        for index, report in enumerate(reports)
    ]
    others = [make_map_section(found) for found in kept.get(None, ())]
    return _page(
        "page.html.j2",
        sections,
        reports,
        maps=others,
        title=_title(reports),
        heading=_heading(reports),
    )


def render_fragment(report: ContextReport, maps: Sequence[ContextMap] = ()) -> str:
    """One report as an element to put into another page, such as a notebook's.

    Its style reaches nothing outside of it; it has no ``id``, so that it may stand there twice.
    """
    section = make_section(report, maps=maps)
    return _templates().get_template("fragment.html.j2").render(section=section, box=_box())


def render_comparison(compared: Comparison) -> str:
    """One page with several results side by side."""
    reports = compared.reports
    sections = [
        make_section(report, distinction=compared.distinction(index))
        for index, report in enumerate(reports)
    ]
    return _page(
        "comparison.html.j2",
        sections,
        reports,
        comparison=compared,
        differing=bool(compared.differing),
        maps=(),
        title=f"{len(reports)} results side by side",
        heading="Results side by side",
    )


def _page(
    template: str, sections: Sequence[Section], reports: Sequence[ContextReport], **more: object
) -> str:
    return (
        _templates()
        .get_template(template)
        .render(
            sections=sections,
            bars=number_bars(reports),
            version=_version(),
            box=_box(),
            **more,
        )
    )


def _title(reports: Sequence[ContextReport]) -> str:
    if len(reports) != 1:
        return _heading(reports)
    [report] = reports
    length = "unknown" if report.true_context is None else str(report.true_context)
    return f"{report.model.key}: true context {length}"


def _heading(reports: Sequence[ContextReport]) -> str:
    if len(reports) == 1:
        return "Context report"
    models = len({(report.model.key, report.model.digest) for report in reports})
    if len(reports) == models:
        return f"Context report of {models} models"
    return f"Context report: {len(reports)} results of {say_count(models, 'model')}"


def _share_out(
    reports: Sequence[ContextReport], maps: Sequence[ContextMap]
) -> dict[int | None, list[ContextMap]]:
    """Maps by the index of the report that they belong to; under None those of other models."""
    kept: dict[int | None, list[ContextMap]] = {}
    for found in maps:
        owner = next((i for i, r in enumerate(reports) if _is_same(r.model, found.model)), None)
        kept.setdefault(owner, []).append(found)
    return kept


def _is_same(one: ModelInfo, other: ModelInfo) -> bool:
    return (one.key, one.digest) == (other.key, other.digest)


def _box() -> SimpleNamespace:
    """Where the axes of every drawing lie."""
    return SimpleNamespace(
        width=canvas.WIDTH,
        height=canvas.HEIGHT,
        left=canvas.LEFT,
        right=canvas.RIGHT,
        top=canvas.TOP,
        bottom=canvas.BOTTOM,
    )


def _version() -> str:
    try:
        return version("lmstrix")
    except PackageNotFoundError:  # run from a source tree
        return "unknown"


def _harmless(value: object) -> object:
    """Every text that a template shows, before it is escaped as HTML: nothing in it steers.

    What a macro of ours made is HTML, and escaped already.
    """
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return escape_controls(value)
    return value


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("lmstrix.reports.html"),
        autoescape=True,
        finalize=_harmless,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
