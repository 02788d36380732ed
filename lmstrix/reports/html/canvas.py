"""The size of a drawing, and small shapes that several drawings share.

Drawings are narrow, so that their letters can still be read on a phone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from lmstrix.models import CurvePoint
from lmstrix.reports.html.scales import MOST_TOKENS

__all__ = ["BOTTOM", "HEIGHT", "LEFT", "RIGHT", "TOP", "WIDTH", "Line", "drawn", "path_through"]

WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BOTTOM = 46, 380, 24, 208
"""Where the axes of a drawing lie, in its own units."""


@attrs.frozen
class Line:
    """A line across a drawing with a word beside it; `anchor` is SVG's ``text-anchor``."""

    at: float
    label: str
    anchor: str = "start"


def drawn(curve: Iterable[CurvePoint]) -> list[CurvePoint]:
    """The points that can be drawn, in ascending order of length."""
    usable = (
        point
        for point in curve
        if 0 < point.length_tokens <= MOST_TOKENS and 0 <= point.passes <= point.trials
    )
    return sorted(usable, key=lambda point: point.length_tokens)


def path_through(points: Sequence[tuple[float, float]]) -> str:
    """The SVG path that joins the points by straight lines; an empty one for fewer than two."""
    if len(points) < 2:
        return ""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)
