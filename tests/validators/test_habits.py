"""Models with bad habits get no true context that they do not have."""

from __future__ import annotations

import pytest

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.models import ContextReport
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # nothing here knows of the loop


HABITS = (Beyond.SAME_NUMBER, Beyond.ECHOES, Beyond.GUESSES, Beyond.REFUSES)
TRUTH = 3000


async def measured(model: SimulatedModel, seed: int = 1) -> ContextReport:
    options = MeasureOptions(certify=False, seed=seed)
    async with LMStrix(adapter=SimulatedAdapter(model), store="memory") as client:
        return await client.find_true_context(model.key, options)


@pytest.mark.parametrize("habit", HABITS)
async def test_a_habit_is_no_context(habit: Beyond) -> None:
    """At any length it does the same, and so nothing is measured."""
    report = await measured(SimulatedModel(declared=8192, true_context=0, beyond=habit))
    assert report.true_context is None
    assert report.cause in (Cause.NOT_MEASURABLE, Cause.INCONCLUSIVE)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("habit", HABITS)
async def test_a_habit_ends_the_context(habit: Beyond, seed: int) -> None:
    """Where it begins beyond a length, the true context is that length, and no more."""
    model = SimulatedModel(declared=8192, true_context=TRUTH, beyond=habit)
    report = await measured(model, seed)
    if habit is Beyond.REFUSES:  # says nothing of what it knows
        assert (report.true_context, report.cause) == (None, Cause.INCONCLUSIVE)
    else:
        assert report.true_context == TRUTH // 128 * 128
        assert report.cause is Cause.FORGETS


@pytest.mark.parametrize("beyond", [Beyond.FORGETS_HEAD, Beyond.FORGETS_MIDDLE])
@pytest.mark.parametrize(("truth", "seed"), [(2200, 1), (4400, 2), (4400, 3), (7000, 4)])
async def test_the_true_context_of_a_window_is_the_window(
    beyond: Beyond, truth: int, seed: int
) -> None:
    """The first region that leaves the window ends the context: within a sixteenth."""
    model = SimulatedModel(declared=3 * truth, true_context=truth, beyond=beyond)
    report = await measured(model, seed)
    assert report.true_context is not None
    assert abs(report.true_context - truth) <= truth / 16
    # A model that keeps both ends of its window cannot be told from a server that cuts.
    cut = beyond is Beyond.FORGETS_MIDDLE
    assert report.cause in ({Cause.FORGETS, Cause.TRUNCATED} if cut else {Cause.FORGETS})
