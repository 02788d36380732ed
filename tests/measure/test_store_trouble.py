"""A store that fails in the middle: the measurement ends with its report all the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import pytest

from lmstrix import LMStrix, MeasureOptions
from lmstrix.errors import StoreError
from lmstrix.events import Event, MeasurementFinished, Noted, TrialFinished
from lmstrix.models import Cause, ContextReport, Judgement, Trial
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=1024, true_context=10**6)
OPTIONS = MeasureOptions(certify=False)
HAPPENS_AT = 5


class AfterTrials:
    """An observer that does something after so many trials, and keeps the notes."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self.notes: list[str] = []
        self.store_error: StoreError | None = None
        self._happens = happens
        self._trials = 0

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, MeasurementFinished):
            self.store_error = event.store_error
        if isinstance(event, Noted):
            self.notes.append(event.text)
        if isinstance(event, TrialFinished):
            self._trials += 1
            if self._trials == HAPPENS_AT:
                self._happens()


async def check_trouble(store: SqliteStore, break_it: Callable[[], object]) -> None:
    """The report is whole, says what is not kept, and what was kept before can be gone on with."""
    async with LMStrix(adapter=SimulatedAdapter(MODEL), store=store) as client:
        observer = AfterTrials(break_it)
        report = await client.find_true_context("m", OPTIONS, observers=[observer])
        assert report.true_context == 1024
        (note,) = (note for note in report.notes if "could not be stored" in note)
        assert note in observer.notes
        assert isinstance(observer.store_error, StoreError)
        assert str(observer.store_error) in note
        assert observer.store_error.hint


async def check_it_goes_on(path: Path, at_least: int) -> None:
    adapter = SimulatedAdapter(MODEL)
    async with LMStrix(adapter=adapter, store=path) as client:
        report = await client.find_true_context("m", OPTIONS)
    whole = SimulatedAdapter(MODEL)
    await LMStrix(adapter=whole, store="memory").find_true_context("m", OPTIONS)
    assert report.true_context == 1024
    assert report.notes == ()
    assert adapter.counters.replies <= whole.counters.replies - at_least


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits for a process")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_disk_that_is_full(tmp_path: Path) -> None:
    import resource  # noqa: PLC0415 - not on every system

    path = tmp_path / "store.sqlite3"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Nothing may grow any more, not even by a byte: SQLite's log included.
        await check_trouble(
            SqliteStore(path), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await check_it_goes_on(path, HAPPENS_AT)


class Failing(SqliteStore):
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
    store = Failing(broken)
    report = await LMStrix(
        adapter=SimulatedAdapter(MODEL, owns_engine=True), store=store
    ).find_true_context("m", OPTIONS)
    assert report.true_context == 1024
    assert sum(f"{broken} failed" in note for note in report.notes) == 1
    assert store.calls[store.calls.index(broken) + 1 :] in ([], ["clear_load"])


async def test_a_mark_that_could_not_be_cleared_is_cleared_once_there_is_room() -> None:
    store = Failing("clear_load")
    client = LMStrix(adapter=SimulatedAdapter(MODEL, owns_engine=True), store=store)
    observer = AfterTrials(lambda: setattr(store, "broken", ()))
    report = await client.find_true_context("m", OPTIONS, observers=[observer])
    assert any("clear_load failed" in note for note in report.notes)
    again = await client.find_true_context("m", OPTIONS)
    assert again.loadable_context == 1024
    assert again.notes == ()


async def test_before_the_first_load_it_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    adapter = SimulatedAdapter(MODEL)
    async with LMStrix(adapter=adapter, store=tmp_path / "file" / "store.db") as client:
        with pytest.raises(StoreError) as caught:
            await client.find_true_context("m", OPTIONS)
    assert caught.value.hint
    assert adapter.counters.loads == 0


class Rival(SqliteStore):
    """Another process asks every question first, and gets it right."""

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        theirs = [attrs.evolve(t, judgement=Judgement.PASS, reply="theirs") for t in trials]
        await super().append_trials(measurement_id, theirs)
        return await super().append_trials(measurement_id, trials)


async def test_a_question_that_another_process_asked_counts_once() -> None:
    """The stored answer counts, not our own."""
    model = SimulatedModel(key="m", declared=4096, true_context=2000)
    client = LMStrix(adapter=SimulatedAdapter(model), store=Rival(":memory:"))
    report = await client.find_true_context("m")
    assert (report.true_context, report.cause) == (4096, Cause.DECLARED_MAXIMUM)


class Elsewhere(SimulatedAdapter):
    """An adapter whose server is at a host."""

    turn = "LM Studio at 192.0.2.1:1234"


async def test_results_of_two_hosts_are_stored_apart() -> None:
    store = SqliteStore(":memory:")
    for adapter in (SimulatedAdapter, Elsewhere):
        await LMStrix(adapter=adapter(MODEL), store=store).find_true_context("m", OPTIONS)
    assert len(await store.reports()) == 2
