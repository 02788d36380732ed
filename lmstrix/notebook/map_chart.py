"""What a model still knows, by length and depth, as a heat map."""

from __future__ import annotations

import altair as alt

from lmstrix.maps import DEPTH_BINS, ContextMap
from lmstrix.notebook.chart_text import chart_text

__all__ = ["draw_map"]

SIDE = 240
"""Width and height of one layer's drawing, in pixels."""


def draw_map(found: ContextMap) -> alt.Chart:
    """One heat map for each validator, side by side; a cell without answers stays empty."""
    names = [chart_text(layer.name) for layer in found.layers]
    rows: list[dict[str, object]] = [
        {
            "layer": name,
            "length": cell.length_tokens,
            "depth": 100 * cell.depth_bin // DEPTH_BINS,
            "score": cell.score,
            "answers": f"{cell.passes} of {cell.trials}",
        }
        for name, layer in zip(names, found.layers, strict=True)
        for cell in layer.cells
    ]
    title = alt.TitleParams(chart_text(found.model.key), anchor="start")
    return (
        alt.Chart(alt.InlineData(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("length:O", title="prompt and reply, tokens"),
            y=alt.Y("depth:O", title="depth in the prompt, percent"),
            color=alt.Color("score:Q", title="score").scale(domain=[0, 1], scheme="viridis"),
            tooltip=["length:O", "depth:O", "answers:N", "score:Q"],
            column=alt.Column("layer:N", title=None, sort=names),
        )
        .properties(title=title, width=SIDE, height=SIDE)
    )
