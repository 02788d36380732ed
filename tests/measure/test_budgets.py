"""Budgets: what a load may need, and what may be read, bind everything that is done."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.events import Event, LoadStarted
from lmstrix.measure import Forecast
from lmstrix.models import UNFINISHED, ContextReport
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # nothing here knows of the loop

MODEL = SimulatedModel(key="m", declared=8192, true_context=10**6)
BUDGET = 8000
"""A little more than the baseline, which is asked in any case."""
KIB = 1024
"""What a token of the simulation needs, in bytes."""


async def measure(
    options: MeasureOptions, *, memory_bytes: int | None
) -> tuple[ContextReport, Forecast, list[int]]:
    adapter, sizes = SimulatedAdapter(MODEL, memory_bytes=memory_bytes), list[int]()

    def hear(event: Event) -> None:
        if isinstance(event, LoadStarted):
            sizes.append(event.context_length)

    client = LMStrix(adapter=adapter, store="memory", observers=[hear])
    expected = await client.forecast("m", options)
    return await client.find_true_context("m", options), expected, sizes


@pytest.mark.parametrize("force", [False, True])
async def test_no_load_needs_more_than_the_largest_memory(*, force: bool) -> None:
    options = MeasureOptions(max_memory_bytes=3000 * KIB, certify=False, force=force)
    # The machine has less than the model declares, and more than was allowed.
    report, expected, sizes = await measure(options, memory_bytes=5000 * KIB)
    assert max(sizes) <= 3000
    assert report.loadable_context == expected.largest_length == sizes[0]
    assert report.true_context == sizes[0] >= 3000 - 512
    assert report.cause is Cause.LOAD_REFUSED
    assert any("are allowed" in note for note in report.notes)


async def test_a_largest_memory_that_is_enough_changes_nothing() -> None:
    options = MeasureOptions(max_memory_bytes=9000 * KIB, certify=False)
    report, _, sizes = await measure(options, memory_bytes=5000 * KIB)
    assert 5000 - 512 <= sizes[0] <= 5000
    assert any("are available" in note for note in report.notes)


@pytest.mark.parametrize(("memory_bytes", "allowed"), [(None, 9000), (9000 * KIB, 100)])
async def test_a_largest_memory_that_cannot_be_kept_loads_nothing(
    memory_bytes: int | None, allowed: int
) -> None:
    """Because nothing is known about a load, or because not even the shortest one fits."""
    options = MeasureOptions(max_memory_bytes=allowed * KIB)
    report, _, sizes = await measure(options, memory_bytes=memory_bytes)
    assert (report.cause, report.loadable_context, sizes) == (Cause.LOAD_REFUSED, None, [])


async def test_another_largest_memory_is_another_measurement() -> None:
    client = LMStrix(adapter=SimulatedAdapter(MODEL), store="memory")
    for bound in (None, 3000 * KIB, 4000 * KIB):
        options = MeasureOptions(max_memory_bytes=bound, max_context=1024, certify=False)
        await client.find_true_context("m", options)
    assert len({stored.key for stored in await client.reports()}) == 3


async def spend_all(
    adapter: SimulatedAdapter, options: MeasureOptions, levels: Sequence[str]
) -> list[ContextReport]:
    """Reports of runs that go on with each other until one ends, each within its budget."""
    store, spent, reports = SqliteStore(":memory:"), 0, list[ContextReport]()
    assert options.budget_tokens is not None
    while not reports or reports[-1].cause is Cause.BUDGET_SPENT:
        client = LMStrix(adapter=adapter, store=store, levels=levels)
        reports.append(await client.find_true_context("m", options))
        cost = reports[-1].cost
        whole = cost.prompt_tokens + cost.generated_tokens
        assert whole - spent <= options.budget_tokens + 1024
        spent = whole
        assert len(reports) < 20
    assert len(reports) > 2
    return reports


async def test_levels_keep_the_token_budget_and_a_later_run_goes_on() -> None:
    """Levels ask a good part of all questions: none of them is asked on credit."""
    adapter = SimulatedAdapter(attrs.evolve(MODEL, reuses_prefixes=False))
    options = MeasureOptions(budget_tokens=BUDGET, max_context=2048, certify=False)
    partial, *_, final = await spend_all(adapter, options, ["coherence", "copy", "tracing"])
    assert {level.cause for level in partial.levels} & UNFINISHED
    assert final.true_context == 2048
    assert not {level.cause for level in final.levels} & UNFINISHED


async def test_a_certificate_keeps_the_token_budget_and_a_later_run_goes_on() -> None:
    """On an engine that reads every prompt anew, it asks for more than the whole search."""
    model = attrs.evolve(MODEL, reuses_prefixes=False)
    adapter, asked_once = SimulatedAdapter(model), SimulatedAdapter(model)
    options = MeasureOptions(budget_tokens=12_000, max_context=2048, documents=4)
    *_, final = await spend_all(adapter, options, ())
    assert (final.true_context, final.certified) == (2048, True)
    await LMStrix(adapter=asked_once, store="memory", levels=()).find_true_context(
        "m", attrs.evolve(options, budget_tokens=None)
    )
    assert adapter.counters.replies == asked_once.counters.replies
