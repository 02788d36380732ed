"""Whatever a model, a machine and an engine do together: what is reported holds."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeVar

import pytest
from simulations import measure

from lmstrix import Cause, MeasureOptions
from lmstrix.models import ContextReport
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

T = TypeVar("T")

SHORTFALL = 24
"""A prompt falls short of its length by less than a sentence."""
CLEAR = (Beyond.FORGETS_ALL, Beyond.GIBBERISH, Beyond.EMPTY, Beyond.CRASHES, Beyond.LOOPS)
"""What is seen at once when a prompt is too long."""


def draw(rng: Random) -> tuple[SimulatedModel, int | None, int | None]:
    """A model, the memory of its machine in bytes, and the largest length to try."""

    def perhaps(share: float, make: Callable[[], T]) -> T | None:
        return make() if rng.random() < share else None

    def length() -> int:
        return int(2 ** rng.uniform(9, 13))

    declared = rng.choice([None, 700, 1000, 4096, 8192])
    model = SimulatedModel(
        key="m",
        declared=declared,
        true_context=length(),
        beyond=rng.choice(CLEAR),
        loadable=perhaps(0.25, length),
        refused_above=perhaps(0.2, length),
        clamped_to=perhaps(0.2, length),
        reuses_prefixes=rng.random() < 0.8,
        coherent_context=perhaps(0.3, length),
    )
    most = rng.choice([600, 1111, 5000])
    wanted = most if declared is None else perhaps(0.5, lambda: most)
    memory = perhaps(0.3, length)
    return model, None if memory is None else memory * model.bytes_per_token, wanted


def check(report: ContextReport, model: SimulatedModel, wanted: int | None) -> None:
    top = min(n for n in (model.declared, wanted) if n is not None)
    low, high = report.bracket
    if report.true_context is None:
        return
    assert report.loadable_context is not None
    assert low == report.true_context <= report.loadable_context <= top
    assert high is not None or low == report.loadable_context
    truth = min(model.true_context, model.coherent_context or model.true_context)
    assert low <= truth + SHORTFALL
    # The upper end is the smallest size that failed, also if loading is what failed.
    least = low if report.cause in (Cause.LOAD_FAILED, Cause.LOAD_REFUSED) else max(low, truth)
    assert high is None or least < high <= low + 256
    enough = report.method.ratio * report.baseline.rate
    tallies = {(p.length_tokens, t.region): t for p in report.curve for t in p.depths}
    for region in report.regions:
        told = tallies.get((region.limit_tokens or 0, region.region))
        if told is not None and (region.limit_tokens or 0) > low:
            assert told.passes >= enough * told.trials
    for level in report.levels:
        assert (level.limit_tokens or 0) <= report.loadable_context
        assert level.bracket[1] is None or level.bracket[0] < level.bracket[1]


@pytest.mark.parametrize("strategy", ["bayes", "gallop"])
@pytest.mark.parametrize("seed", range(3))
async def test_the_report_holds(seed: int, strategy: str) -> None:
    rng = Random(f"{seed} {strategy}")
    for _ in range(4):
        model, memory, wanted = draw(rng)
        adapter = SimulatedAdapter(model, memory_bytes=memory)
        levels = rng.choice([["coherence"], ["coherence", "copy", "tracing"]])
        options = MeasureOptions(max_context=wanted)
        report = await measure(adapter, options, strategy=strategy, levels=levels)
        check(report, model, wanted)
        assert adapter.counters.left_behind == 0
        assert adapter.counters.most_prompt_tokens <= (wanted or model.declared or 0)
