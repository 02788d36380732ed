"""Stores: what an interrupted measurement goes on with, and one that fails in the middle."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest
from simulations import (
    BOTH_LOOPS,
    DislikesTheFirst,
    FadesEarly,
    Judging,
    Killed,
    Requests,
    ends,
    measure,
    only,
    up_to,
    which,
)

from lmstrix import Cause, MeasureOptions
from lmstrix.adapters.token_counts import common_length
from lmstrix.errors import StoreError
from lmstrix.events import Event, MeasurementFinished, Noted, TrialFinished
from lmstrix.models import ContextReport, Cost, Judgement, Trial
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=8192, true_context=6000, beyond=Beyond.FORGETS_ALL)


@pytest.mark.parametrize("certify", [True, False])
async def test_where_less_loads_than_before_the_answer_is_within_it(certify: bool) -> None:
    """What was found out above is about another load, also where all of it passed."""
    store = SqliteStore(":memory:")
    partial = await measure(MODEL, MeasureOptions(budget_tokens=9000), store=store)
    assert partial.cause is Cause.BUDGET_SPENT
    less = attrs.evolve(MODEL, loadable=3000)
    report = await measure(less, MeasureOptions(certify=certify), store=store)
    low, high = ends(report)
    assert low == report.true_context == report.loadable_context
    assert low <= 3000 < high <= low + 256
    assert (report.cause, report.certified) == (Cause.LOAD_FAILED, certify)
    assert max(point.length_tokens for point in report.curve) <= 3000
    assert max(level.limit_tokens or 0 for level in report.levels) <= 3000
    assert "an earlier run loaded a larger context" in " ".join(report.notes)


async def test_a_load_that_ends_leaves_no_mark() -> None:
    store = Requests()
    adapter = SimulatedAdapter(attrs.evolve(MODEL, loadable=4096), owns_engine=True)
    report = await measure(adapter, MeasureOptions(budget_tokens=2000), store=store)
    assert report.cause is Cause.BUDGET_SPENT
    stored = await store.unfinished(store.key)
    assert stored is not None
    assert stored.deaths == ()


class Costless(SqliteStore):
    """Has no cost, as if the process was killed before it said what it had spent."""

    async def save_cost(self, measurement_id: str, cost: Cost) -> None:
        """Nothing: it was killed."""


async def test_the_cost_of_a_killed_run_is_counted() -> None:
    store, adapter = Costless(":memory:"), SimulatedAdapter(MODEL)
    await measure(adapter, MeasureOptions(budget_tokens=9000), store=store)
    report = await measure(adapter, store=store)
    assert report.cost.prompt_tokens == adapter.counters.prompt_tokens
    assert report.cost.cached_tokens == adapter.counters.cached_tokens


class Slow(SqliteStore):
    """Lets go of the event loop before it writes, and says so first."""

    def __init__(self, before: Callable[[], object]) -> None:
        super().__init__(":memory:")
        self.kept: list[Trial] = []
        self._before = before

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        self._before()
        await anyio.lowlevel.checkpoint()
        counted = await super().append_trials(measurement_id, trials)
        self.kept += trials
        return counted


@BOTH_LOOPS
async def test_an_answer_that_has_come_is_kept_though_cancelled_while_it_is_written() -> None:
    scope = anyio.CancelScope()
    store, heard = Slow(scope.cancel), list[Event]()
    with scope:
        await measure(MODEL, store=store)
    assert scope.cancelled_caught
    assert len(store.kept) == 1
    first = which(store.kept[0])
    await measure(MODEL, store=store, observers=[heard.append])
    asked = Counter(which(event.trial) for event in only(TrialFinished, heard))
    assert not asked[first]
    assert set(asked.values()) == {1}


SMALL = SimulatedModel(key="m", declared=4096, true_context=2200)


async def killed_at(
    at: int,
    model: SimulatedModel,
    expected: ContextReport,
    options: MeasureOptions,
    *,
    keeps: bool = True,
    **parts: Any,
) -> tuple[ContextReport, Requests]:
    """What goes on after a kill at the request `at`, whose answers are kept or lost: nothing
    changes.
    """
    store = Requests(at, keeps=keeps)
    with pytest.raises(Killed):
        await measure(model, options, store=store, **parts)
    report = await measure(model, options, store=store, **parts)
    assert (report.bracket, report.certified) == (expected.bracket, expected.certified)
    assert report.regions == expected.regions
    return report, store


@pytest.mark.parametrize(
    "model",
    [
        SMALL,
        attrs.evolve(SMALL, beyond=Beyond.FORGETS_MIDDLE, lapses=0.04),
        attrs.evolve(SMALL, reuses_prefixes=False),
    ],
    ids=["head", "middle, lapses", "no reuse"],
)
async def test_a_kill_between_any_two_requests_changes_nothing(model: SimulatedModel) -> None:
    whole, options = Requests(), MeasureOptions()
    expected = await measure(model, options, store=whole, levels=())
    for at in range(1, len(whole.requests), max(1, len(whole.requests) // 4)):
        report, store = await killed_at(at, model, expected, options, levels=())
        assert report.cause is expected.cause
        assert len(store.asked) == len(set(store.asked))
    assert max(map(len, whole.requests)) == (1 if model.reuses_prefixes else 8)


async def test_a_kill_after_certificates_that_did_not_hold_changes_nothing() -> None:
    """Also if the search had nothing to ask between two of them."""
    model = attrs.evolve(SMALL, declared=8192, true_context=8192)
    whole, options = Requests(), MeasureOptions(seed=64)
    parts: dict[str, Any] = {"seed": 64, "levels": (), "validator": FadesEarly()}
    expected = await measure(model, options, store=whole, **parts)
    certifying = [at for at, asked in enumerate(whole.asked, 1) if asked[1] in {"certify", "weak"}]
    for at in certifying[len(certifying) // 3 :: len(certifying) // 2]:
        await killed_at(at, model, expected, options, **parts)


async def test_a_kill_before_a_text_is_overruled_changes_nothing() -> None:
    """Two more texts are asked about the fact that the first one missed."""
    whole, options = Requests(), MeasureOptions()
    parts: dict[str, Any] = {"levels": (), "validator": DislikesTheFirst()}
    expected = await measure(SMALL, options, store=whole, **parts)
    elsewhere = [at for at, asked in enumerate(whole.asked, 1) if asked[1] == "elsewhere"]
    assert len(elsewhere) == 8
    for at in (elsewhere[0] - 1, elsewhere[0], elsewhere[3], elsewhere[-1]):
        await killed_at(at, SMALL, expected, options, **parts)


async def test_a_kill_after_a_failure_and_before_the_next_answer_changes_nothing() -> None:
    """A certificate steps down, gives up, or goes on as it would have without the kill."""
    limits = {1001: 4100, 1003: 3000}
    model = SimulatedModel(key="m", declared=4352)
    texts = Judging(lambda _, seed, length: up_to(limits.get(seed, 10**6), length))
    whole, options = Requests(), MeasureOptions()
    parts: dict[str, Any] = {"levels": (), "validator": texts}
    expected = await measure(model, options, store=whole, **parts)
    places = [asked[1:4] for asked in whole.asked]
    begins = [at for at in range(1, len(places)) if places[at] != places[at - 1]]
    for at in begins[-12:-6]:
        await killed_at(at + 1, model, expected, options, keeps=False, **parts)


async def test_a_cache_for_long_prompts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenAI's, which begins at 1,024 tokens: the baseline shows none."""
    model = attrs.evolve(SMALL, declared=16384, true_context=9000, lapses=0.04)

    def common(one: Sequence[str], other: Sequence[str]) -> int:
        return common_length(one, other) if len(one) >= 600 else 0

    monkeypatch.setattr("lmstrix.testing.simulated.common_length", common)
    whole, options = Requests(), MeasureOptions()
    expected = await measure(model, options, store=whole)
    _, store = await killed_at(len(whole.requests) // 2, model, expected, options)
    assert store.asked == whole.asked


# Stores that fail.

TINY = SimulatedModel(key="m", declared=1024, true_context=10**6)
UNCERTIFIED = MeasureOptions(certify=False)
HAPPENS_AT = 5


def after_trials(heard: list[Event], happens: Callable[[], object]) -> Callable[[Event], None]:
    """An observer that keeps all events, and does something after so many trials."""

    def hear(event: Event, /) -> None:
        heard.append(event)
        if isinstance(event, TrialFinished) and len(only(TrialFinished, heard)) == HAPPENS_AT:
            happens()

    return hear


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits for a process")
async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """The report is whole and says what is not kept; what was kept before can be gone on with."""
    import resource  # noqa: PLC0415 - not on every system

    path = tmp_path / "store.sqlite3"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Nothing may grow any more, not even by a byte: SQLite's log included.
    heard: list[Event] = []
    fill = after_trials(heard, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard)))
    try:
        report = await measure(TINY, UNCERTIFIED, store=path, observers=[fill])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert report.true_context == 1024
    (note,) = (note for note in report.notes if "could not be stored" in note)
    assert note in [event.text for event in only(Noted, heard)]
    (finished,) = only(MeasurementFinished, heard)
    assert isinstance(finished.store_error, StoreError)
    assert str(finished.store_error) in note
    assert finished.store_error.hint
    adapter, whole = SimulatedAdapter(TINY), SimulatedAdapter(TINY)
    again = await measure(adapter, UNCERTIFIED, store=path)
    await measure(whole, UNCERTIFIED)
    assert (again.true_context, again.notes) == (1024, ())
    assert adapter.counters.replies <= whole.counters.replies - HAPPENS_AT


class Breaking(SqliteStore):
    """Fails in the methods named in `broken`, and counts what is asked of it then."""

    def __init__(self, *broken: str) -> None:
        super().__init__(":memory:")
        self.broken = broken
        self.calls: list[str] = []

    def _meet(self, name: str) -> None:
        self.calls.append(name)
        if name in self.broken:
            raise StoreError(f"{name} failed", hint="Make room.")

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        self._meet("append_trials")
        return await super().append_trials(measurement_id, trials)

    async def mark_load(self, measurement_id: str, context_length: int) -> None:
        self._meet("mark_load")
        await super().mark_load(measurement_id, context_length)

    async def clear_load(self, measurement_id: str) -> None:
        self._meet("clear_load")
        await super().clear_load(measurement_id)

    async def finish(self, measurement_id: str, report: ContextReport) -> None:
        self._meet("finish")
        await super().finish(measurement_id, report)


@pytest.mark.parametrize("broken", ["append_trials", "mark_load", "finish"])
async def test_after_the_first_failure_nothing_is_written(broken: str) -> None:
    store = Breaking(broken)
    report = await measure(SimulatedAdapter(TINY, owns_engine=True), UNCERTIFIED, store=store)
    assert report.true_context == 1024
    assert sum(f"{broken} failed" in note for note in report.notes) == 1
    assert store.calls[store.calls.index(broken) + 1 :] in ([], ["clear_load"])


async def test_a_mark_that_could_not_be_cleared_is_cleared_once_there_is_room() -> None:
    store, adapter = Breaking("clear_load"), SimulatedAdapter(TINY, owns_engine=True)
    make_room = after_trials([], lambda: setattr(store, "broken", ()))
    report = await measure(adapter, UNCERTIFIED, store=store, observers=[make_room])
    assert any("clear_load failed" in note for note in report.notes)
    again = await measure(adapter, UNCERTIFIED, store=store)
    assert (again.loadable_context, again.notes) == (1024, ())


async def test_before_the_first_load_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    adapter = SimulatedAdapter(TINY)
    with pytest.raises(StoreError) as caught:
        await measure(adapter, UNCERTIFIED, store=tmp_path / "file" / "store.db")
    assert caught.value.hint
    assert adapter.counters.loads == 0


class Rival(SqliteStore):
    """Another process asks every question first, and gets it right."""

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        theirs = [attrs.evolve(t, judgement=Judgement.PASS, reply="theirs") for t in trials]
        await super().append_trials(measurement_id, theirs)
        return await super().append_trials(measurement_id, trials)


async def test_a_question_that_another_process_asked_counts_once() -> None:
    model = SimulatedModel(key="m", declared=4096, true_context=2000)
    report = await measure(model, store=Rival(":memory:"))
    assert (report.true_context, report.cause) == (4096, Cause.DECLARED_MAXIMUM)


class Elsewhere(SimulatedAdapter):
    """An adapter whose server is at a host."""

    turn = "LM Studio at 192.0.2.1:1234"


async def test_results_of_two_hosts_are_stored_apart() -> None:
    store = SqliteStore(":memory:")
    for adapter in (SimulatedAdapter(TINY), Elsewhere(TINY)):
        await measure(adapter, UNCERTIFIED, store=store)
    assert len(await store.reports()) == 2
