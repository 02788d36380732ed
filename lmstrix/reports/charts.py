"""The series behind every chart, and their places in a drawing. Pages and notebooks draw them.

`lmstrix.serialize` refuses reports with impossible numbers. A length of 0 is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import attrs

from lmstrix.models import (
    DEPTH_BINS,
    ContextMap,
    ContextReport,
    CurvePoint,
    DepthTally,
    Layer,
    Region,
)
from lmstrix.reports.words import (
    in_order,
    say_cause,
    say_kept,
    say_percent,
    say_seconds,
    say_tokens,
    say_verdict,
)

ENGINE_FAILED = "engine failed"
"""The verdict of a length at which nothing could be asked."""


# Series


@attrs.frozen
class Answers:
    """The answers at one length, with their Wilson interval, as shares of one."""

    length: int
    rate: float
    low: float
    high: float
    answers: str
    verdict: str
    """In words: those of `say_verdict`, or `ENGINE_FAILED`."""

    @property
    def label(self) -> str:
        """The point in words."""
        return f"{self.length:,} tokens: {self.answers}"


def answers_by_length(report: ContextReport) -> tuple[Answers, ...]:
    """Correct answers by length, in ascending order."""
    return tuple(_answers(point) for point in _points(report))


def _points(report: ContextReport) -> list[CurvePoint]:
    return in_order(point for point in report.curve if point.length_tokens > 0)


def _answers(point: CurvePoint) -> Answers:
    if not point.trials:
        how = say_cause(point.failure) if point.failure else "no answer that counts"
        return Answers(point.length_tokens, 0.0, 0.0, 0.0, how, ENGINE_FAILED)
    return Answers(
        point.length_tokens,
        point.passes / point.trials,
        point.wilson.low,
        point.wilson.high,
        f"{point.passes} of {point.trials}",
        say_verdict(point.verdict),
    )


# Axes


@attrs.frozen
class Box:
    """The size of a drawing and the place of its axes, in its own units.

    Drawings are narrow, so that their letters can be read on a phone.
    """

    width: int = 400
    height: int = 250
    left: int = 46
    right: int = 380
    top: int = 24
    bottom: int = 208


BOX = Box()

LOG_SPAN = 16
"""If the longest length is more than this many times the shortest, the axis is logarithmic."""
SMALLEST = 1e-9
"""A smaller value is drawn as 0."""


@attrs.frozen
class Tick:
    """A mark on an axis and its label."""

    at: float
    label: str


@attrs.frozen
class Axis:
    """Values from `low` to `high` on a line from `start` to `end`, in drawing units."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False
    ticks: tuple[Tick, ...] = ()

    def at(self, value: float) -> float:
        """The place of a value; a value beyond an end is drawn at that end."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def marked(self, marks: Iterable[int]) -> Axis:
        """The axis with ticks at these lengths."""
        return attrs.evolve(self, ticks=tuple(Tick(self.at(m), _short_tokens(m)) for m in marks))


def length_axis(lengths: Sequence[int], *, close: bool = False) -> Axis:
    """An axis for `lengths`, of which there is at least one and which are positive.

    It begins at 0, or is logarithmic if they are far apart. With `close` it covers little else.
    """
    low, high = min(lengths), max(lengths)
    if close:
        room = max(1, (high - low) // 20)
        step = 2 ** max(0, math.ceil(math.log2(max(1, high - low) / 4)))
        axis = Axis(low - room, high + room, BOX.left, BOX.right)
        return axis.marked(range(-(-low // step) * step, high + 1, step))
    if high > LOG_SPAN * low:
        powers = [2**n for n in range(math.ceil(math.log2(low)), int(math.log2(high)) + 1)]
        axis = Axis(low, high, BOX.left, BOX.right, logarithmic=True)
        return axis.marked(powers[:: -(-len(powers) // 6)])
    step = 2 ** max(0, math.ceil(math.log2(high / 6)))
    return Axis(0, high, BOX.left, BOX.right).marked(range(0, high + 1, step))


def _short_tokens(tokens: int) -> str:
    """Digits, or multiples of 1024 if that is exact: 768, 8k."""
    return str(tokens) if tokens % 1024 or not tokens else f"{tokens // 1024}k"


def value_axis(highest: float) -> Axis:
    """An axis from 0 to a round number that is at least `highest`."""
    highest = highest if highest > SMALLEST else 1.0
    power = 10.0 ** math.floor(math.log10(highest / 4))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= highest / 4 * 0.999)
    count = math.ceil(highest / step)
    axis = Axis(0, count * step, BOX.bottom, BOX.top)
    ticks = tuple(Tick(axis.at(n * step), f"{n * step:g}") for n in range(count + 1))
    return attrs.evolve(axis, ticks=ticks)


def share_axis() -> Axis:
    """An axis from 0 to 100%."""
    axis = Axis(0, 1, BOX.bottom, BOX.top)
    return attrs.evolve(axis, ticks=tuple(Tick(axis.at(n / 4), f"{25 * n}%") for n in range(5)))


# Drawings by length


@attrs.frozen
class RecallPlot:
    """Correct answers by length, with Wilson intervals."""

    x: Axis
    y: Axis
    series: tuple[Answers, ...]
    bracket: tuple[int, int] | None
    rate: float | None
    """The rate that passes; None if it is not known."""
    true: int | None
    """The true context, if it is in the drawing."""

    @property
    def text(self) -> str:
        """The drawing in words, for people who cannot see it."""
        return "Correct answers by length: " + "; ".join(one.label for one in self.series)

    @property
    def any_dead(self) -> bool:
        """Whether the engine failed at a length."""
        return any(one.verdict == ENGINE_FAILED for one in self.series)


def plot_recall(report: ContextReport) -> RecallPlot | None:
    """The drawing of every length; None if there is none."""
    series = answers_by_length(report)
    if not series:
        return None
    return _plot_answers(report, series, length_axis([one.length for one in series]))


def plot_near(report: ContextReport) -> RecallPlot | None:
    """The drawing of the lengths within 20 % of the bracket; None if it would show nothing new."""
    low, high = report.bracket
    series = answers_by_length(report)
    if high is None:
        return None
    near = tuple(one for one in series if low * 0.8 <= one.length <= high * 1.2)
    if not 3 <= len(near) < len(series):
        return None
    return _plot_answers(report, near, length_axis([one.length for one in near], close=True))


def _plot_answers(report: ContextReport, series: tuple[Answers, ...], x: Axis) -> RecallPlot:
    low, high = report.bracket
    true = report.true_context
    base = 1.0 if report.method.absolute else report.baseline.rate
    return RecallPlot(
        x=x,
        y=share_axis(),
        series=series,
        bracket=(low, high) if low and high else None,
        rate=report.method.ratio * base or None,
        true=true if true and x.low <= true <= x.high else None,
    )


@attrs.frozen
class SpeedPlot:
    """Speeds or times by length: (length, value, words), and the limit the user asked for."""

    x: Axis
    y: Axis
    series: tuple[tuple[int, float, str], ...]
    wish: float | None
    title: str
    unit: str
    caption: str

    @property
    def text(self) -> str:
        """The drawing in words."""
        values = "; ".join(f"{length:,} tokens: {words}" for length, _, words in self.series)
        return f"{self.title} by length: {values}"


def plot_speed(report: ContextReport) -> SpeedPlot | None:
    """Generated tokens per second by length; None if nothing is known."""
    points = _points(report)
    speeds = [(p.tokens_per_second, f"{p.tokens_per_second or 0:.1f} tokens/s") for p in points]
    wish = report.usable.min_tokens_per_second if report.usable else None
    words = ("Generation speed", "tokens per second", "The median of generation at each length.")
    return _plot_values(points, speeds, wish, words)


def plot_wait(report: ContextReport) -> SpeedPlot | None:
    """Time to first token by length; None if nothing is known.

    It is the time of a fresh prompt if that is known at any length, and then of no other.
    """
    points = _points(report)
    fresh = any(p.full_ttft_s is not None for p in points)
    waits = [p.full_ttft_s if fresh else p.ttft_s for p in points]
    caption = (
        "The expected time to the first token of a fresh prompt, from the times of reading its"
        " parts."
        if fresh
        else "The longest time to first token at each length. Part of the prompt may have been"
        " cached."
    )
    values = [(wait, say_seconds(wait or 0)) for wait in waits]
    wish = report.usable.max_ttft_s if report.usable else None
    return _plot_values(points, values, wish, ("Time to first token", "seconds", caption))


def _plot_values(
    points: Sequence[CurvePoint],
    values: Sequence[tuple[float | None, str]],
    wish: float | None,
    words: tuple[str, str, str],
) -> SpeedPlot | None:
    known = tuple(
        (point.length_tokens, value, label)
        for point, (value, label) in zip(points, values, strict=True)
        if value is not None
    )
    if not known:
        return None
    title, unit, caption = words
    return SpeedPlot(
        # The axis of correct answers, so that the drawings can be compared.
        x=length_axis([point.length_tokens for point in points]),
        y=value_axis(max([value for _, value, _ in known] + [wish or 0.0])),
        series=known,
        wish=wish,
        title=title,
        unit=unit,
        caption=caption,
    )


# Drawings by depth


@attrs.frozen
class Cell:
    """One length and depth: `step` is its colour from 0 to 5, None if nothing is known."""

    text: str
    step: int | None
    label: str


@attrs.frozen
class Heat:
    """Lengths by depths: each row is a length and its cells, the longest first."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]

    @property
    def text(self) -> str:
        """The drawing in words."""
        return f"{self.title}. The same numbers are in the table that follows."


def heat_of_report(report: ContextReport) -> Heat | None:
    """The measurement's own questions by length and region; None if no region is known."""
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for point in reversed(_points(report)):
        tallies = {tally.region: tally for tally in point.depths if tally.trials}
        cells = tuple(_tally(point, region, tallies.get(region)) for region in Region)
        if tallies:
            rows.append((say_tokens(point.length_tokens), cells))
    if not rows:
        return None
    return Heat(
        title="Correct answers by length and region",
        caption=(
            "Correct of asked, by the place of the answer in the prompt; longest length first."
            " Head is the first tenth of the prompt, tail the last. Few questions are asked far"
            " from the limit."
        ),
        columns=tuple(map(str, Region)),
        rows=tuple(rows),
    )


def _tally(point: CurvePoint, region: Region, tally: DepthTally | None) -> Cell:
    where = f"{point.length_tokens:,} tokens, {region}"
    if tally is None:
        return Cell("", None, f"{where}: not asked")
    passes, trials = tally.passes, tally.trials
    return Cell(f"{passes}/{trials}", _step(passes / trials), f"{where}: {passes} of {trials}")


def _step(share: float) -> int:
    """0 if nothing is correct; 5 only if everything is."""
    return max(0, min(5, int(share * 5)))


def heat_of_layer(found: ContextMap, layer: Layer) -> Heat | None:
    """One validator's part of a map; None if nothing was asked."""
    width = 100 // DEPTH_BINS
    depths = [f"depth {width * i} to {width * (i + 1)}%" for i in range(DEPTH_BINS)]
    rows: list[tuple[str, tuple[Cell, ...]]] = []
    for length in sorted(set(found.lengths), reverse=True):
        scores = layer.scores(length)
        if any(score is not None for score in scores):
            graded = zip(scores, [*depths, "all depths"], strict=True)
            cells = tuple(_graded(score, f"{length:,} tokens, {where}") for score, where in graded)
            rows.append((say_tokens(length), cells))
    if not rows:
        return None
    kept = say_kept(found, layer)
    return Heat(
        title=f"Map: {layer.name} by length and depth",
        caption=(
            "Mean score in percent by length and by depth, in tenths of the prompt from its head;"
            f" longest length first.{f' {kept.capitalize()}.' if kept else ''}"
        ),
        columns=(*(f"{width * i}%" for i in range(DEPTH_BINS)), "all"),
        rows=tuple(rows),
    )


def _graded(score: float | None, where: str) -> Cell:
    if score is None:
        return Cell("", None, f"{where}: not asked")
    return Cell(f"{100 * score:.0f}", _step(score), f"{where}: {say_percent(score)}")


# The three numbers


@attrs.frozen
class NumberBars:
    """Name, width in percent of the longest, and value of each number of one report."""

    bars: tuple[tuple[str, float, str], ...]

    @property
    def text(self) -> str:
        """The drawing in words."""
        return ", ".join(f"{name} {value}" for name, _, value in self.bars)


def number_bars(reports: Sequence[ContextReport]) -> tuple[NumberBars, ...]:
    """The bars of each report, on one logarithmic scale; those of one alone in proportion."""
    numbers = [
        (
            ("declared", report.declared_context),
            ("loadable", report.loadable_context),
            ("true", report.true_context),
        )
        for report in reports
    ]
    longest = max((n or 0 for row in numbers for _, n in row), default=0)
    several = len(reports) > 1
    return tuple(
        NumberBars(
            tuple(
                (name, _width(tokens, longest, logarithmic=several), say_tokens(tokens))
                for name, tokens in row
            )
        )
        for row in numbers
    )


BAR_START = 256
"""The beginning of a bar, in tokens. The scale is logarithmic, so that a model that claims ten
million does not reduce all others to dots."""


def _width(tokens: int | None, longest: int, *, logarithmic: bool) -> float:
    """At least half a percent for any number above 0."""
    if not tokens:
        return 0.0
    share = tokens / longest
    if logarithmic:
        doublings = math.log2(max(longest, 2 * BAR_START) / BAR_START)
        share = math.log2(tokens / BAR_START) / doublings
    return round(max(0.5, min(100.0, 100 * share)), 2)
