"""The drawings of right answers by depth: what was measured, and a map of length by depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from lmstrix.maps import DEPTH_BINS, ContextMap, Layer, MapCell
from lmstrix.models import ContextReport, CurvePoint
from lmstrix.reports.html.canvas import BOTTOM, LEFT, RIGHT, TOP, drawn
from lmstrix.reports.html.scales import MOST_TOKENS, Axis, share_axis
from lmstrix.reports.map_text import say_kept
from lmstrix.reports.quantities import say_percent
from lmstrix.stats import wilson

__all__ = [
    "REGIONS",
    "Bar",
    "Cell",
    "DepthPlot",
    "Heat",
    "HeatRow",
    "heat_of_layer",
    "heat_of_report",
    "plot_depths",
]

REGIONS = (
    ("head", "0-10 %"),
    ("early", "10-35 %"),
    ("middle", "35-65 %"),
    ("late", "65-90 %"),
    ("tail", "90-100 %"),
)
"""The regions of the window that `DepthTally.region` names, and where each lies."""
STEPS = 6
"""How many colours there are."""


@attrs.frozen
class Cell:
    """What is known at one length and depth: `step` is its colour, None for nothing known."""

    text: str
    step: int | None
    label: str


@attrs.frozen
class HeatRow:
    """One length."""

    name: str
    cells: tuple[Cell, ...]


@attrs.frozen
class Heat:
    """Lengths by depths."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    text: str


@attrs.frozen
class Bar:
    """Right answers at one depth, with the ends of its Wilson interval."""

    x: float
    y: float
    low: float
    high: float
    width: float
    kind: str
    label: str


@attrs.frozen
class DepthPlot:
    """Right answers by depth, up to the true context and beyond it."""

    y: Axis
    bars: tuple[Bar, ...]
    columns: tuple[tuple[float, str], ...]
    kinds: tuple[tuple[str, str], ...]
    text: str


def heat_of_report(report: ContextReport) -> Heat | None:
    """What the measurement itself asked, by length and region; None where no depth is known."""
    rows: list[HeatRow] = []
    for point in reversed(drawn(report.curve)):
        tallies: dict[str, tuple[int, int]] = {
            d.region: (d.passes, d.trials) for d in point.depths if d.trials > 0
        }
        cells = [_tally(point, region, tallies.get(region)) for region, _ in REGIONS]
        if any(cell.step is not None for cell in cells):
            rows.append(HeatRow(str(point.length_tokens), tuple(cells)))
    if not rows:
        return None
    return Heat(
        title="Right answers by length and depth",
        caption=(
            "Right of asked, by where the answer stood in the prompt; longest length first. Few"
            " were asked far from the limit."
        ),
        columns=tuple(name for name, _ in REGIONS),
        rows=tuple(rows),
        text="Right answers by length and depth of the window. The same numbers are in the table"
        " that follows.",
    )


def _tally(point: CurvePoint, region: str, tally: tuple[int, int] | None) -> Cell:
    if tally is None:
        return Cell("", None, f"{point.length_tokens} tokens, {region}: not asked")
    passes, trials = tally
    label = f"{point.length_tokens} tokens, {region}: {passes} of {trials}"
    return Cell(f"{passes}/{trials}", _step(passes / trials), label)


def _step(share: float) -> int:
    """0 for nothing right; the last for all right, and for nothing less."""
    return max(0, min(STEPS - 1, int(share * (STEPS - 1))))


def heat_of_layer(found: ContextMap, layer: Layer) -> Heat | None:
    """One validator's part of a map; None where nothing was asked."""
    layer = Layer(name=layer.name, cells=_sound(layer))
    known = {(cell.length_tokens, cell.depth_bin): cell for cell in layer.cells}
    rows = [
        HeatRow(
            str(length),
            (
                *(_graded(length, i, known.get((length, i))) for i in range(DEPTH_BINS)),
                _whole(layer, length),
            ),
        )
        for length in sorted(set(found.lengths), reverse=True)
        if any((length, i) in known for i in range(DEPTH_BINS))
    ]
    if not rows:
        return None
    kept = say_kept(found, layer)
    return Heat(
        title=f"Map: {layer.name} by length and depth",
        caption=(
            "Mean score in percent by length and by depth, in tenths of the prompt from its head;"
            f" longest length first.{f' {kept.capitalize()}.' if kept else ''}"
        ),
        columns=(*(f"{100 * i // DEPTH_BINS} %" for i in range(DEPTH_BINS)), "all"),
        rows=tuple(rows),
        text=f"Map of {layer.name} by length and depth. The same numbers are in the table that"
        " follows.",
    )


def _sound(layer: Layer) -> tuple[MapCell, ...]:
    """The cells that can be drawn, in order: a map comes from a file."""
    sound = (
        cell
        for cell in layer.cells
        if cell.trials > 0
        and 0 <= cell.depth_bin < DEPTH_BINS
        and 0 < cell.length_tokens <= MOST_TOKENS
    )
    return tuple(sorted(sound, key=lambda cell: (cell.length_tokens, cell.depth_bin)))


def _graded(length: int, depth_bin: int, cell: MapCell | None) -> Cell:
    start = 100 * depth_bin // DEPTH_BINS
    where = f"{length} tokens, depth {start} to {start + 100 // DEPTH_BINS} %"
    return _percent(None if cell is None else cell.score, where)


def _whole(layer: Layer, length: int) -> Cell:
    return _percent(layer.rate(length), f"{length} tokens, all depths")


def _percent(score: float | None, where: str) -> Cell:
    if score is None:
        return Cell("", None, f"{where}: not asked")
    share = min(1.0, max(0.0, score))
    return Cell(f"{100 * share:.0f}", _step(share), f"{where}: {say_percent(share)}")


def plot_depths(report: ContextReport) -> DepthPlot | None:
    """Right answers by region, summed over the lengths; None where no depth is known."""
    limit = report.true_context or 0
    points = drawn(report.curve)
    groups = (
        ("within", "up to the true context", _sum(p for p in points if p.length_tokens <= limit)),
        ("beyond", "beyond it", _sum(p for p in points if p.length_tokens > limit)),
    )
    shown = [group for group in groups if group[2]]
    if not shown:
        return None
    y = share_axis(BOTTOM, TOP)
    room = (RIGHT - LEFT) / len(REGIONS)
    bars = [
        bar
        for order, (kind, words, sums) in enumerate(shown)
        for bar in _bars(kind, words, sums, y, room, (order, len(shown)))
    ]
    centres = [round(LEFT + room * (i + 0.5), 1) for i in range(len(REGIONS))]
    return DepthPlot(
        y=y,
        bars=tuple(bars),
        columns=tuple((x, name) for x, (name, _) in zip(centres, REGIONS, strict=True)),
        kinds=tuple((kind, words) for kind, words, _ in shown),
        text="Right answers by depth: " + "; ".join(bar.label for bar in bars),
    )


def _sum(points: Iterable[CurvePoint]) -> dict[str, tuple[int, int]]:
    """Right answers and answers by region; what a file says that cannot be is left out."""
    sums: dict[str, tuple[int, int]] = {}
    for tally in (tally for point in points for tally in point.depths):
        if 0 <= tally.passes <= tally.trials and tally.trials:
            passes, trials = sums.get(tally.region, (0, 0))
            sums[tally.region] = (passes + tally.passes, trials + tally.trials)
    return {name: sums[name] for name, _ in REGIONS if name in sums}


def _bars(
    kind: str,
    words: str,
    sums: dict[str, tuple[int, int]],
    y: Axis,
    room: float,
    place: tuple[int, int],
) -> Sequence[Bar]:
    order, many = place
    width = room * 0.7 / many
    bars: list[Bar] = []
    for index, (name, _) in enumerate(REGIONS):
        if name not in sums:
            continue
        passes, trials = sums[name]
        interval = wilson(passes, trials)
        bars.append(
            Bar(
                x=round(LEFT + room * (index + 0.15) + order * width, 1),
                y=y.at(passes / trials),
                low=y.at(interval.low),
                high=y.at(interval.high),
                width=round(width * 0.9, 1),
                kind=kind,
                label=f"{name}, {words}: {passes} of {trials}",
            )
        )
    return bars
