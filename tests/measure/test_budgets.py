"""Budgets: what a load may need, and what may be read, bind everything that is done."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest
from simulations import measure, only

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.events import Event, LoadStarted
from lmstrix.measure.loading import Forecast
from lmstrix.models import UNFINISHED, ContextReport
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=8192, true_context=10**6)
ANEW = attrs.evolve(MODEL, reuses_prefixes=False)
KIB = 1024
"""What a token of the simulation needs, in bytes."""


async def loads_of(
    options: MeasureOptions, *, memory_bytes: int | None
) -> tuple[ContextReport, Forecast, list[int]]:
    """The report, what was expected, and the sizes that were loaded."""
    heard: list[Event] = []
    adapter = SimulatedAdapter(MODEL, memory_bytes=memory_bytes)
    expected = await LMStrix(adapter=adapter, store="memory").forecast("m", options)
    report = await measure(adapter, options, observers=[heard.append])
    return report, expected, [load.context_length for load in only(LoadStarted, heard)]


@pytest.mark.parametrize("force", [False, True])
async def test_no_load_needs_more_than_the_largest_memory(force: bool) -> None:
    options = MeasureOptions(max_memory_bytes=3000 * KIB, certify=False, force=force)
    # The machine has less than the model declares, and more than was allowed.
    report, expected, sizes = await loads_of(options, memory_bytes=5000 * KIB)
    assert max(sizes) <= 3000
    assert report.loadable_context == expected.largest_length == sizes[0]
    assert report.true_context == sizes[0] >= 3000 - 512
    assert report.cause is Cause.LOAD_REFUSED
    assert any("are allowed" in note for note in report.notes)


async def test_a_largest_memory_that_is_enough_changes_nothing() -> None:
    options = MeasureOptions(max_memory_bytes=9000 * KIB, certify=False)
    report, _, sizes = await loads_of(options, memory_bytes=5000 * KIB)
    assert 5000 - 512 <= sizes[0] <= 5000
    assert (report.cause, len(sizes)) == (Cause.LOAD_REFUSED, 1)
    assert any("are available" in note for note in report.notes)


@pytest.mark.parametrize(
    ("memory_bytes", "allowed"),
    [(None, 9000), (9000 * KIB, 100), (100 * KIB, 9000)],
    ids=["nothing is known about a load", "not even the shortest one fits", "it has not enough"],
)
async def test_what_cannot_be_kept_loads_nothing(memory_bytes: int | None, allowed: int) -> None:
    options = MeasureOptions(max_memory_bytes=allowed * KIB)
    report, _, sizes = await loads_of(options, memory_bytes=memory_bytes)
    assert (report.cause, report.loadable_context, sizes) == (Cause.LOAD_REFUSED, None, [])


async def test_another_largest_memory_is_another_measurement() -> None:
    store = SqliteStore(":memory:")
    for bound in (None, 3000 * KIB, 4000 * KIB):
        options = MeasureOptions(max_memory_bytes=bound, max_context=1024, certify=False)
        await measure(MODEL, options, store=store)
    assert len({stored.key for stored in await store.reports()}) == 3


async def spend_all(
    adapter: SimulatedAdapter, options: MeasureOptions, levels: Sequence[str]
) -> list[ContextReport]:
    """Reports of runs that go on with each other until one ends, each within its budget."""
    store, spent, reports = SqliteStore(":memory:"), 0, list[ContextReport]()
    assert options.budget_tokens is not None
    while not reports or reports[-1].cause is Cause.BUDGET_SPENT:
        reports.append(await measure(adapter, options, store=store, levels=levels))
        cost = reports[-1].cost
        whole = cost.prompt_tokens + cost.generated_tokens
        assert whole - spent <= options.budget_tokens + 1024
        spent = whole
        assert len(reports) < 20
    assert len(reports) > 2
    return reports


async def test_levels_keep_the_token_budget_and_a_later_run_goes_on() -> None:
    # A little more than the baseline, which is asked in any case.
    options = MeasureOptions(budget_tokens=8000, max_context=2048, certify=False)
    levels = ["coherence", "copy", "tracing"]
    partial, *_, final = await spend_all(SimulatedAdapter(ANEW), options, levels)
    assert {level.cause for level in partial.levels} & UNFINISHED
    assert final.true_context == 2048
    assert not {level.cause for level in final.levels} & UNFINISHED


async def test_a_certificate_keeps_the_token_budget_and_a_later_run_goes_on() -> None:
    adapter, asked_once = SimulatedAdapter(ANEW), SimulatedAdapter(ANEW)
    options = MeasureOptions(budget_tokens=12_000, max_context=2048, documents=4)
    *_, final = await spend_all(adapter, options, ())
    assert (final.true_context, final.certified) == (2048, True)
    await measure(asked_once, attrs.evolve(options, budget_tokens=None), levels=())
    assert adapter.counters.replies == asked_once.counters.replies
