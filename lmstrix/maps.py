"""Frozen facts of a map: what is known at each length and depth."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

import attrs

from lmstrix.models import Environment, ModelInfo
from lmstrix.stats import isotonic_fall

__all__ = ["DEPTH_BINS", "MAP_SCHEMA_VERSION", "ContextMap", "Layer", "MapCell", "MapCost"]

MAP_SCHEMA_VERSION = 1
"""Version of the JSON form of `ContextMap`."""

DEPTH_BINS = 10
"""How many cells there are from the head to the tail; each is a tenth of the prompt."""


@attrs.frozen(kw_only=True)
class MapCell:
    """What was asked about one tenth of the prompt at one length.

    `score` is the mean of the graded replies, from 0 to 1; for a validator that does not grade,
    the part that was right. `trials` counts what could be judged.
    """

    length_tokens: int
    depth_bin: int
    trials: int
    passes: int
    score: float


@attrs.frozen(kw_only=True)
class Layer:
    """One validator's cells, in ascending order of length and depth. A cell in which nothing was
    asked is missing.
    """

    name: str
    cells: tuple[MapCell, ...]

    def rate(self, length_tokens: int) -> float | None:
        """The mean score at a length, None where nothing was asked."""
        cells = [cell for cell in self.cells if cell.length_tokens == length_tokens]
        trials = sum(cell.trials for cell in cells)
        return sum(cell.score * cell.trials for cell in cells) / trials if trials else None

    def limit(self, ratio: float) -> int | None:
        """The largest length up to which the score keeps `ratio` of what it is at the shortest.

        Scores are made to fall with the length first (`lmstrix.stats.isotonic_fall`), so that
        one lucky length beyond the limit, or one unlucky below, does not decide. None where
        nothing was asked.
        """
        lengths = [n for n, _ in groupby(self.cells, key=lambda cell: cell.length_tokens)]
        rates = [self.rate(n) or 0.0 for n in lengths]
        weights = [
            float(sum(c.trials for c in self.cells if c.length_tokens == n)) for n in lengths
        ]
        asked = [(n, r, w) for n, r, w in zip(lengths, rates, weights, strict=True) if w > 0]
        if not asked:
            return None
        fit = isotonic_fall([r for _, r, _ in asked], [w for _, _, w in asked])
        kept = [n for (n, _, _), rate in zip(asked, fit, strict=True) if rate >= ratio * fit[0]]
        return max(kept, default=None)  # none where a file asks for more than all


@attrs.frozen(kw_only=True)
class MapCost:
    """What a map cost, by the engine's own numbers. Tokens of the document that had to be read,
    and tokens of questions, are counted apart.
    """

    document_tokens: int = 0
    question_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    questions: int = 0
    loads: int = 1
    seconds: float = 0.0


@attrs.frozen(kw_only=True)
class ContextMap:
    """Length by depth, for the price of one climb."""

    model: ModelInfo
    lengths: tuple[int, ...]
    layers: tuple[Layer, ...]
    cost: MapCost
    environment: Environment
    seed: int
    ratio: float
    started_at: datetime
    finished_at: datetime
    notes: tuple[str, ...] = ()
    schema_version: int = MAP_SCHEMA_VERSION

    def layer(self, name: str) -> Layer:
        """The cells of one validator; `KeyError` where it was not asked."""
        found = next((layer for layer in self.layers if layer.name == name), None)
        if found is None:
            raise KeyError(name)
        return found


def cells_of(
    answers: Sequence[tuple[int, float, bool, float]],
) -> tuple[MapCell, ...]:
    """Cells from (length, depth from 0 to 1, passed, score)."""
    binned = sorted(
        (length, min(DEPTH_BINS - 1, int(depth * DEPTH_BINS)), passed, score)
        for length, depth, passed, score in answers
    )
    cells: list[MapCell] = []
    for (length, depth_bin), group in groupby(binned, key=lambda answer: answer[:2]):
        answered = list(group)
        cells.append(
            MapCell(
                length_tokens=length,
                depth_bin=depth_bin,
                trials=len(answered),
                passes=sum(passed for *_, passed, _ in answered),
                score=sum(score for *_, score in answered) / len(answered),
            )
        )
    return tuple(cells)
