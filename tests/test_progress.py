"""`ProgressState`: how much of a measurement is left, by its own speed."""

from __future__ import annotations

import pytest

from lmstrix import LMStrix
from lmstrix.events import Event, ProbeFinished, TrialFinished
from lmstrix.progress import ProgressState
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

READS, WRITES = 100.0, 10.0
"""Tokens a second."""
ATTENTION = 8192
"""At this length a token takes twice as long as at the beginning."""


def seconds_of(event: Event) -> float:
    """What an engine of a known speed takes for a reply."""
    if not isinstance(event, TrialFinished):
        return 0.0
    trial = event.trial
    new = trial.prompt_tokens - (trial.cached_tokens or 0)
    slow = 1 + (trial.length_tokens - new / 2) / ATTENTION
    return slow * (new / READS + trial.generated_tokens / WRITES)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("lapses", [0.0, 0.04])
@pytest.mark.parametrize("true_context", [3000, 6000, 14_000])
async def test_the_time_left_is_near_the_real_one(true_context: int, lapses: float) -> None:
    """Within a factor of 3 from a quarter on: how many questions a search needs is a matter of
    chance. A certificate that does not hold is not known before, nor is the further text for a
    weak region: then the time may be told too short. The clock is the test's own."""
    model = SimulatedModel(
        key="m",
        declared=16_384,
        true_context=true_context,
        beyond=Beyond.FORGETS_HEAD,
        lapses=lapses,
    )
    state, now_s = ProgressState(), 0.0
    told: list[tuple[float, float | None]] = []
    weak: list[tuple[float, float | None]] = []

    def hear(event: Event) -> None:
        nonlocal now_s
        now_s += seconds_of(event)
        state.hear(event, now_s)
        told.append((now_s, state.seconds_left()))
        if state.phase == "weak" and isinstance(event, TrialFinished):
            weak.append(told[-1])

    async with LMStrix(adapter=SimulatedAdapter(model), store="memory", observers=[hear]) as client:
        report = await client.find_true_context("m")
    foreseen = not lapses and report.cost.loads == 2 and not weak
    for part in (0.25, 0.5, 0.75):
        at, left = min(told, key=lambda one: abs(one[0] - part * now_s))
        assert left is not None
        assert left / (now_s - at) < 3
        assert left / (now_s - at) > 0.4 or not foreseen
    # The questions about weak regions are announced, and mostly the last.
    for at, left in weak[:1]:
        assert left is not None
        assert 0.5 < left / (now_s - at) < 2
    assert told[-1][1] is None


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_a_level_passes_does_not_count_for_the_search() -> None:
    """Coherence passes at lengths at which the search has failed."""
    model = SimulatedModel(key="m", declared=8192, true_context=3000, beyond=Beyond.FORGETS_HEAD)
    state = ProgressState()
    kept: list[bool] = []

    def hear(event: Event) -> None:
        before = dict(state.probes)
        state.hear(event)
        if isinstance(event, ProbeFinished) and event.phase == "coherence":
            kept.append(state.probes == before)

    adapter = SimulatedAdapter(model)
    async with LMStrix(adapter=adapter, store="memory", observers=[hear]) as client:
        await client.find_true_context("m")
    assert kept
    assert all(kept)


def test_nothing_is_told_before_anything_is_known() -> None:
    assert ProgressState().seconds_left() is None
