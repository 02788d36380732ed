"""What an interrupted measurement goes on with, when the world has changed meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio
import anyio.lowlevel
import attrs
import pytest

from lmstrix import Cause, LMStrix, MeasureOptions
from lmstrix.events import Event, LoadStarted, TrialFinished
from lmstrix.measure.ledger import Ledger
from lmstrix.models import Cost, Trial
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=8192, true_context=6000, beyond=Beyond.FORGETS_ALL)


async def spend(store: SqliteStore, tokens: int, model: SimulatedModel = MODEL) -> None:
    """A measurement that ends early, because of its budget."""
    client = LMStrix(adapter=SimulatedAdapter(model), store=store)
    report = await client.find_true_context("m", MeasureOptions(budget_tokens=tokens))
    assert report.cause is Cause.BUDGET_SPENT


@pytest.mark.parametrize("certify", [True, False])
async def test_where_less_loads_than_before_the_answer_is_within_it(*, certify: bool) -> None:
    """What was found out above is about another load, also where all of it passed."""
    store = SqliteStore(":memory:")
    await spend(store, 9000)
    less = SimulatedAdapter(attrs.evolve(MODEL, loadable=3000))
    client = LMStrix(adapter=less, store=store)
    report = await client.find_true_context("m", MeasureOptions(certify=certify))
    assert report.loadable_context is not None
    assert report.true_context == report.loadable_context <= 3000
    assert report.bracket == (report.true_context, None)
    assert (report.cause, report.certified) == (Cause.LOAD_FAILED, certify)
    assert max(point.length_tokens for point in report.curve) <= 3000
    assert max(level.limit_tokens or 0 for level in report.levels) <= 3000
    assert "an earlier run had more loaded" in " ".join(report.notes)


class KilledLoading(SqliteStore):
    """Forgets that a load has ended while `dies`, as where the process is killed in it."""

    dies = True

    async def clear_load(self, measurement_id: str) -> None:
        if not self.dies:
            await super().clear_load(measurement_id)


async def test_a_size_at_which_two_runs_died_is_remembered_over_several_runs() -> None:
    """A run that avoids it, and is interrupted, leaves the warning to the next one."""
    store, sizes = KilledLoading(":memory:"), list[int]()

    def hear(event: Event) -> None:
        if isinstance(event, LoadStarted):
            sizes.append(event.context_length)

    owner = SimulatedAdapter(MODEL, owns_engine=True)
    for _ in range(2):
        await LMStrix(adapter=owner, store=store).find_true_context(
            "m", MeasureOptions(budget_tokens=1000)
        )
    store.dies = False
    client = LMStrix(adapter=owner, store=store, observers=[hear])
    await client.find_true_context("m", MeasureOptions(budget_tokens=1000))
    report = await client.find_true_context("m", MeasureOptions(budget_tokens=1000))
    assert report.cause is Cause.BUDGET_SPENT
    assert max(sizes) < 8192
    assert not report.certified
    await client.find_true_context("m", MeasureOptions(force=True))
    assert max(sizes) == 8192


class Killed(SqliteStore):
    """Has no cost, as where the process was killed before it said what it had spent."""

    async def save_cost(self, measurement_id: str, cost: Cost) -> None:
        """Nothing: it was killed."""


async def test_the_cost_of_a_killed_run_is_counted() -> None:
    store, adapter = Killed(":memory:"), SimulatedAdapter(MODEL)
    client = LMStrix(adapter=adapter, store=store)
    await client.find_true_context("m", MeasureOptions(budget_tokens=9000))
    report = await client.find_true_context("m")
    assert report.cost.prompt_tokens == adapter.counters.prompt_tokens
    assert report.cost.cached_tokens == adapter.counters.cached_tokens


class Slow(SqliteStore):
    """Lets go of the event loop before it writes, and says so first."""

    kept = 0

    def __init__(self, before: Callable[[], object]) -> None:
        super().__init__(":memory:")
        self._before = before

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> None:
        self._before()
        await anyio.lowlevel.checkpoint()
        await super().append_trials(measurement_id, trials)
        self.kept += 1


async def test_an_answer_that_has_come_is_kept_though_cancelled_while_it_is_written() -> None:
    scope = anyio.CancelScope()
    store = Slow(scope.cancel)
    with scope:
        await LMStrix(adapter=SimulatedAdapter(MODEL), store=store).find_true_context("m")
    assert scope.cancelled_caught
    assert store.kept == 1
    seen = list[Event]()
    client = LMStrix(adapter=SimulatedAdapter(MODEL), store=store, observers=[seen.append])
    await client.find_true_context("m")
    assert next(e.trial.index for e in seen if isinstance(e, TrialFinished)) == 1


async def test_after_a_load_nothing_is_taken_to_be_cached() -> None:
    """A budget would be promised what has to be read again."""
    store = SqliteStore(":memory:")
    await spend(store, 9000)
    client = LMStrix(adapter=SimulatedAdapter(MODEL), store=store)
    stored = await store.unfinished(await (await client.measurement("m")).key())
    assert stored is not None
    ledger, last = Ledger(stored), stored.trials[-1]
    assert ledger.cached(last.seed) == 0
    ledger.add_trial(last)
    assert ledger.cached(last.seed) == last.length_tokens
    ledger.add_load()
    assert ledger.cached(last.seed) == 0
