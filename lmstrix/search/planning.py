"""The cheapest search from here, by dynamic programming over brackets.

A search without noise is in one of few states: a bracket (largest pass, smallest fail) and
what the engine's cache holds, which is the document of one of the two ends, for the last
probe was one of them. The expected cost from a state is that of the best probe plus those of
the two states that it may lead to. All brackets over the lattice are solved, narrow ones
first; each width at once, with numpy.

What is minimised is the cost as a share of the answer, expected over limits that are
uniform in the logarithm of the length: to waste 1,000 tokens matters at 2,000, not at 100,000.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import attrs
import numpy as np
from numpy.typing import NDArray

from lmstrix.costs import CostModel, Reuse

__all__ = ["Plan", "make_plan"]

Floats: TypeAlias = NDArray[np.float64]

BEYOND = 2.0
"""Prior room above the ceiling, as a factor: so likely it is that nothing fails at all."""

SHARE = 0.9
"""Exponent of the answer by which a cost is divided. At 1 it is exactly a share of the answer;
a little less keeps the worst case, just above the floor, lower at the same mean (measured)."""


@attrs.frozen(kw_only=True, eq=False)
class Plan:
    """Expected costs of all brackets over `lengths`, and the best probe in each.

    Index ``len(lengths)`` stands for "nothing failed yet".
    """

    lengths: tuple[int, ...]
    costs: CostModel
    trials: int
    weights: Floats
    """Cumulative prior weight of the limits below each length."""
    after_pass: Floats
    """Expected cost from bracket [i, j] with the document of i in the cache."""
    after_fail: Floats
    """The same with that of j."""

    def best(self, low: int, high: int, cached: int) -> int:
        """The index to probe in the bracket [low, high] of indices, with `cached` tokens there.

        The bracket must have something inside it.
        """
        inside = np.arange(low + 1, high)
        weight = self.weights[high] - self.weights[low]
        here = np.array([self._cost(k, low, cached) for k in range(low + 1, high)])
        total = here * weight + self.after_pass[inside, high] + self.after_fail[low, inside]
        return int(inside[np.argmin(total)])

    def _cost(self, index: int, low: int, cached: int) -> float:
        length, start = self.lengths[index], self.lengths[low]
        checkpoint = start if cached >= start else 0
        return self.costs.cost(length, cached=cached, trials=self.trials, checkpoint=checkpoint)


@lru_cache(maxsize=32)
def make_plan(lengths: tuple[int, ...], costs: CostModel, trials: int, *, open_end: bool) -> Plan:
    """Solve all brackets over ascending `lengths`, with `trials` questions at each.

    With `open_end` the last length may pass too, else it is known to fail.
    """
    x = np.array(lengths, dtype=np.float64)
    ends = np.append(x, x[-1] * BEYOND) if open_end else x
    # The prior's density is 1 / n; the integral of it over n**SHARE.
    weights = ends[0] ** -SHARE - ends**-SHARE
    reading = np.array([costs.reading(n) for n in lengths])
    asking = costs.probe + trials * np.array([costs.asking(n) for n in lengths])
    states = len(ends)
    after_pass = np.zeros((states, states))
    after_fail = np.zeros((states, states))
    for width in range(2, states):
        low = np.arange(states - width)
        high = low + width
        probe = low[:, None] + np.arange(1, width)[None, :]
        weight = (weights[high] - weights[low])[:, None]
        future = after_pass[probe, high[:, None]] + after_fail[low[:, None], probe]
        base: Floats = future + asking[probe] * weight
        if costs.reuse is Reuse.NONE:
            after_pass[low, high] = after_fail[low, high] = base.min(axis=1)
            continue
        climb: Floats = base + (reading[probe] - reading[low][:, None]) * weight
        after_pass[low, high] = climb.min(axis=1)
        back = base if costs.reuse is Reuse.PREFIX else climb
        after_fail[low, high] = back.min(axis=1)
    return Plan(
        lengths=lengths,
        costs=costs,
        trials=trials,
        weights=weights,
        after_pass=after_pass,
        after_fail=after_fail,
    )
