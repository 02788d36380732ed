"""Charts, imported with altair when the first one is drawn."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lmstrix.maps import ContextMap
from lmstrix.models import ContextReport

if TYPE_CHECKING:
    import altair as alt

__all__ = ["draw_map", "draw_report"]


def draw_report(report: ContextReport) -> alt.LayerChart:
    """See `ContextReport.plot`."""
    with _altair_needed():
        from lmstrix.notebook import report_chart  # noqa: PLC0415 - altair is an extra
    return report_chart.draw_report(report)


def draw_map(found: ContextMap) -> alt.Chart:
    """See `ContextMap.plot`."""
    with _altair_needed():
        from lmstrix.notebook import map_chart  # noqa: PLC0415 - altair is an extra
    return map_chart.draw_map(found)


@contextmanager
def _altair_needed() -> Generator[None]:
    """Say what to install where altair is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "charts are drawn by altair, which is not installed here:"
            " pip install 'lmstrix[notebook]'",
            name=error.name,
        ) from error
