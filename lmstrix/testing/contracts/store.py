"""Suites for stores: `StoreContract` for every store, two more for stores that can do more.

::

class TestMyStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = MyStore()
        yield store
        await store.aclose()
"""
# ruff: noqa: S101 - a test suite asserts, also if it is shipped

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta

import anyio
import attrs
import pytest

from lmstrix.errors import StoreError
from lmstrix.models import RESUMABLE, Cause, Cost, Observation, StoredMeasurement
from lmstrix.ports import Store
from lmstrix.stores.export import (
    Archive,
    KeptMeasurement,
    StoreContents,
    dump_contents,
    load_contents,
    summarize,
)
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

HOSTILE_NAMES = (
    "",
    "../../etc/passwd",
    "a'; DROP TABLE trials; --",
    "%s_%d?*",
    "nul\0inside",
    "line\nbreak\u2028and\x1b[31mescape",
    "модель-模型-🦙",
    "lone surrogate \udcff",
    "\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "x" * 10_000,
)
"""Names that a model or a file can really have. All differ, also the two that look alike."""


@pytest.mark.anyio
class StoreContract:
    """Subclass it and override the fixture `store` with one that gives an empty store."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store, closed by the fixture afterwards."""
        raise NotImplementedError("override the fixture `store`")

    async def test_it_is_a_store(self, store: Store) -> None:
        """It has the port's shape, and a location for a human."""
        assert isinstance(store, Store)
        assert isinstance(store.location, str)

    async def test_an_empty_store_holds_nothing(self, store: Store) -> None:
        """Nothing is found, and nothing is an error."""
        assert await store.unfinished("key") is None
        assert list(await store.reports()) == []
        assert list(await store.unfinished_models()) == []

    async def test_a_new_measurement_is_empty_and_unfinished(self, store: Store) -> None:
        """`begin` gives what `unfinished` gives back."""
        new = await store.begin("key", sample_model())
        assert (new.key, new.trials, new.failures, new.cost) == ("key", (), (), Cost())
        assert new.started_at.utcoffset() is not None
        assert await store.unfinished("key") == new
        assert list(await store.unfinished_models()) == [sample_model()]

    async def test_trials_come_back_in_order(self, store: Store) -> None:
        """Whole, and in the order in which they were appended, one or several at a time."""
        new = await store.begin("key", sample_model())
        trials = [sample_trial(index=i, length_tokens=9000 - i, depth=None) for i in range(20)]
        trials.append(sample_trial(region="head", level="coherence"))
        assert list(await store.append_trials(new.id, trials[:5])) == trials[:5]
        assert list(await store.append_trials(new.id, [])) == []
        for trial in trials[5:]:
            await store.append_trials(new.id, [trial])
        found = await _unfinished(store)
        assert found.id == new.id
        assert list(found.trials) == trials

    async def test_the_trials_of_a_request_are_stored_together_or_not(self, store: Store) -> None:
        """One that cannot be stored leaves out the others too."""
        new = await store.begin("key", sample_model())
        trials = [sample_trial(index=0), sample_trial(index=1, ttft_s=float("nan"))]
        with pytest.raises(StoreError):
            await store.append_trials(new.id, trials)
        assert await store.unfinished("key") == new

    async def test_failures_and_cost_come_back(self, store: Store) -> None:
        """Failures in order, and the cost that was saved last."""
        new = await store.begin("key", sample_model())
        failures = [
            Observation(length_tokens=n, failure=Cause.CRASHED_ON_FILL) for n in (8192, 4096)
        ]
        for failure in failures:
            await store.append_failure(new.id, failure)
        await store.save_cost(new.id, Cost(loads=1, seconds=1.5))
        await store.save_cost(new.id, Cost(loads=2, seconds=2.5))
        found = await _unfinished(store)
        assert list(found.failures) == failures
        assert found.cost == Cost(loads=2, seconds=2.5)

    async def test_a_load_that_never_ended_is_a_death(self, store: Store) -> None:
        """Each mark counts until it is cleared, the newest first; clearing without one is fine."""
        new = await store.begin("key", sample_model())
        for length in (65536, 8192, 65536):
            await store.mark_load(new.id, length)
        assert (await _unfinished(store)).deaths == (65536, 8192, 65536)
        await store.clear_load(new.id)
        await store.mark_load(new.id, 4096)
        assert (await _unfinished(store)).deaths == (65536, 8192, 4096)
        for _ in range(4):
            await store.clear_load(new.id)
        assert await store.unfinished("key") == new

    async def test_only_a_length_can_be_marked(self, store: Store) -> None:
        """Nothing that is none, and nothing that a store could not give back."""
        new = await store.begin("key", sample_model())
        for length in (0, -1, 2**70):
            with pytest.raises(StoreError):
                await store.mark_load(new.id, length)
        assert await store.unfinished("key") == new

    async def test_a_measurement_begun_anew_has_no_mark(self, store: Store) -> None:
        """Whoever begins anew has decided to."""
        old = await store.begin("key", sample_model())
        await store.mark_load(old.id, 65536)
        new = await store.begin("key", sample_model())
        assert new.deaths == ()
        assert await store.unfinished("key") == new

    async def test_there_is_nothing_to_warn_of(self, store: Store) -> None:
        """In a store that was used as it should be."""
        new = await store.begin("key", sample_model())
        await store.append_trials(new.id, [sample_trial()])
        await store.unfinished("key")
        assert list(store.warnings) == []

    async def test_what_was_given_back_does_not_change(self, store: Store) -> None:
        """A later append shows only in a later answer."""
        new = await store.begin("key", sample_model())
        before = await store.unfinished("key")
        await store.append_trials(new.id, [sample_trial()])
        assert before is not None
        assert before.trials == ()

    async def test_begin_replaces_an_unfinished_measurement(self, store: Store) -> None:
        """Only the new one is offered, and it does not inherit trials."""
        old = await store.begin("key", sample_model())
        await store.append_trials(old.id, [sample_trial()])
        new = await store.begin("key", sample_model())
        assert new.id != old.id
        assert await store.unfinished("key") == new
        assert len(await store.unfinished_models()) == 1

    async def test_keys_are_apart(self, store: Store) -> None:
        """One key's measurement neither replaces nor shows another's trials."""
        first = await store.begin("first", sample_model(key="first"))
        second = await store.begin("second", sample_model(key="second"))
        await store.append_trials(first.id, [sample_trial(index=1)])
        await store.append_trials(second.id, [sample_trial(index=2)])
        found = await _unfinished(store, "first")
        assert [trial.index for trial in found.trials] == [1]
        assert {model.key for model in await store.unfinished_models()} == {"first", "second"}

    async def test_a_finished_measurement_is_a_report(self, store: Store) -> None:
        """It is no longer unfinished, and its report comes back whole."""
        new = await store.begin("key", sample_model())
        await store.finish(new.id, sample_report())
        assert await store.unfinished("key") is None
        assert list(await store.unfinished_models()) == []
        (stored,) = await store.reports()
        assert (stored.id, stored.key, stored.report) == (new.id, "key", sample_report())

    async def test_reports_are_newest_first_and_once_per_key(self, store: Store) -> None:
        """Newest is what was finished last."""
        for key, true_context in (("a", 1), ("b", 2), ("c", 3), ("a", 4)):
            new = await store.begin(key, sample_model())
            await store.finish(new.id, sample_report(true_context=true_context))
        found = [(stored.key, stored.report.true_context) for stored in await store.reports()]
        assert found == [("a", 4), ("c", 3), ("b", 2)]

    async def test_a_report_stays_when_its_key_is_begun_again(self, store: Store) -> None:
        """An unfinished repetition hides nothing."""
        first = await store.begin("key", sample_model())
        await store.finish(first.id, sample_report())
        second = await store.begin("key", sample_model())
        assert await store.unfinished("key") == second
        assert [stored.id for stored in await store.reports()] == [first.id]

    @pytest.mark.parametrize("cause", sorted(RESUMABLE))
    async def test_a_report_of_what_is_known_so_far_ends_nothing(
        self, store: Store, cause: Cause
    ) -> None:
        """It is listed until there is a finished one of its key, and goes on meanwhile."""
        new = await store.begin("key", sample_model())
        partial = sample_report(cause=cause, true_context=1024)
        await store.finish(new.id, partial)
        assert await store.unfinished("key") == new
        assert [stored.report for stored in await store.reports()] == [partial]
        await store.finish(new.id, sample_report())
        assert await store.unfinished("key") is None
        again = await store.begin("key", sample_model())
        await store.finish(again.id, partial)
        assert await store.unfinished("key") == again
        assert [stored.report for stored in await store.reports()] == [sample_report()]

    async def test_a_quick_report_stays_until_there_is_more(self, store: Store) -> None:
        """A repetition that was broken off at once does not hide it; a full one does."""
        method = attrs.evolve(sample_report().method, quick=True)
        quick = attrs.evolve(sample_report(), method=method)
        new = await store.begin("key", sample_model())
        await store.finish(new.id, quick)
        again = await store.begin("key", sample_model())
        await store.finish(again.id, sample_report(cause=Cause.INTERRUPTED, true_context=512))
        assert [stored.report for stored in await store.reports()] == [quick]
        await store.finish(again.id, sample_report())
        assert [stored.report for stored in await store.reports()] == [sample_report()]

    @pytest.mark.parametrize("cause", sorted(RESUMABLE))
    async def test_a_quick_report_stays_if_a_full_measurement_is_broken_off(
        self, store: Store, cause: Cause
    ) -> None:
        """Although it goes on from the quick one, and can go on further."""
        method = attrs.evolve(sample_report().method, quick=True)
        quick = attrs.evolve(sample_report(), method=method)
        new = await store.begin("key", sample_model())
        await store.finish(new.id, attrs.evolve(quick, cause=cause))
        await store.finish(new.id, quick)
        await store.finish(new.id, sample_report(cause=cause, true_context=512))
        assert [stored.report for stored in await store.reports()] == [quick]
        assert await store.unfinished("key") == new
        await store.finish(new.id, sample_report())
        assert [stored.report for stored in await store.reports()] == [sample_report()]
        assert await store.unfinished("key") is None

    async def test_hostile_names_are_only_text(self, store: Store) -> None:
        """Any text is a key, a name and a reply; it comes back as it was and stays apart."""
        for name in HOSTILE_NAMES:
            new = await store.begin(name, sample_model(key=name, path=name))
            await store.append_trials(new.id, [sample_trial(reply=name)])
        for name in HOSTILE_NAMES:
            found = await _unfinished(store, name)
            assert found.key == name
            assert [trial.reply for trial in found.trials] == [name]
            await store.finish(found.id, sample_report(model=sample_model(key=name)))
        keys = [stored.key for stored in await store.reports()]
        assert keys == list(reversed(HOSTILE_NAMES))

    async def test_an_unknown_measurement_is_an_error(self, store: Store) -> None:
        """Nothing is remembered under an id that the store did not give."""
        for call in (
            lambda: store.append_trials("unknown", [sample_trial()]),
            lambda: store.append_failure("unknown", Observation(length_tokens=1)),
            lambda: store.save_cost("unknown", Cost()),
            lambda: store.mark_load("unknown", 8192),
            lambda: store.clear_load("unknown"),
            lambda: store.finish("unknown", sample_report()),
        ):
            with pytest.raises(StoreError):
                await call()
        assert list(await store.reports()) == []

    async def test_tasks_may_append_at_once(self, store: Store) -> None:
        """No trial is lost or doubled, and each task's trials keep their order."""
        new = await store.begin("key", sample_model())

        async def append(seed: int) -> None:
            for index in range(10):
                await store.append_trials(new.id, [sample_trial(seed=seed, index=index)])

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for seed in range(5):
                    tasks.start_soon(append, seed)
        found = await _unfinished(store)
        assert len(found.trials) == 50
        for seed in range(5):
            assert [t.index for t in found.trials if t.seed == seed] == list(range(10))

    async def test_a_cancelled_append_happened_or_not(self, store: Store) -> None:
        """Never half, never twice; and the store goes on working."""
        new = await store.begin("key", sample_model())
        for index in range(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.append_trials, new.id, [sample_trial(index=index)])
                # From not yet begun to well inside.
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(index * 0.0003)
                tasks.cancel_scope.cancel()
        await store.append_trials(new.id, [sample_trial(index=99)])
        found = await _unfinished(store)
        indices = [trial.index for trial in found.trials]
        assert indices[-1] == 99
        assert indices == sorted(set(indices))

    async def test_closing_twice_is_no_error(self, store: Store) -> None:
        """Also before anything was stored, and after."""
        await store.begin("key", sample_model())
        await store.aclose()
        await store.aclose()

    async def test_closing_an_unused_store_is_no_error(self, store: Store) -> None:
        """There is nothing to close."""
        await store.aclose()


class DurableStoreContract(StoreContract):
    """For a store that outlives its object; override `open_store` too."""

    @pytest.fixture
    def open_store(self) -> Callable[[], Store]:
        """Gives a further store object on the same place; the test closes it."""
        raise NotImplementedError("override the fixture `open_store`")

    async def test_another_object_goes_on(
        self, store: Store, open_store: Callable[[], Store]
    ) -> None:
        """Trials, failures, cost and reports are there for whoever comes next."""
        new = await store.begin("key", sample_model())
        await store.append_trials(new.id, [sample_trial()])
        await store.append_failure(new.id, Observation(length_tokens=1, failure=Cause.LOAD_FAILED))
        await store.save_cost(new.id, Cost(loads=3))
        await store.mark_load(new.id, 65536)
        before = await _unfinished(store)
        assert before.deaths == (65536,)
        await store.aclose()
        async with aclosing(open_store()) as other:
            assert await other.unfinished("key") == before
            await other.finish(new.id, sample_report())
        async with aclosing(open_store()) as third:
            assert [stored.id for stored in await third.reports()] == [new.id]

    async def test_two_objects_at_once(self, store: Store, open_store: Callable[[], Store]) -> None:
        """Each sees at once what the other has appended."""
        async with aclosing(open_store()) as other:
            new = await store.begin("key", sample_model())
            await other.append_trials(new.id, [sample_trial(index=1)])
            await store.append_trials(new.id, [sample_trial(index=2)])
            found = await _unfinished(other)
            assert [trial.index for trial in found.trials] == [1, 2]


class ArchiveContract(StoreContract):
    """For a store that is an `Archive` too; override `other` as well as `store`."""

    @pytest.fixture
    def other(self) -> Store:
        """Another empty store in another place, closed by the fixture afterwards."""
        raise NotImplementedError("override the fixture `other`")

    async def test_an_empty_archive_holds_nothing(self, store: Store) -> None:
        """Nothing is found, and nothing is an error."""
        archive = _archive(store)
        assert list(await archive.summaries()) == list(await archive.interrupted()) == []
        assert await archive.contents() == StoreContents()

    async def test_summaries_are_those_of_the_reports(self, store: Store) -> None:
        """The newest of each key, newest first."""
        for key, true_context in (("a", 1), ("b", 2), ("a", 3)):
            new = await store.begin(key, sample_model())
            await store.finish(new.id, sample_report(true_context=true_context))
        expected = [summarize(stored) for stored in await store.reports()]
        assert list(await _archive(store).summaries()) == expected
        assert [summary.true_context for summary in expected] == [3, 2]

    async def test_interrupted_measurements_are_listed_whole(self, store: Store) -> None:
        """Newest first; not those that were finished or begun anew."""
        for key in ("a", "b", "b", "c"):
            new = await store.begin(key, sample_model(key=key))
            await store.append_trials(new.id, [sample_trial()])
        await store.finish(new.id, sample_report())
        found = await _archive(store).interrupted()
        assert [(kept.key, kept.model.key) for kept in found] == [("b", "b"), ("a", "a")]
        assert all(kept.trials == (sample_trial(),) for kept in found)

    async def test_a_copy_is_the_same(self, store: Store, other: Store) -> None:
        """Through JSON, with hostile names, an unfinished measurement and a replaced one."""
        await _fill(store)
        contents = await _archive(store).contents()
        merged = await _archive(other).merge(load_contents(dump_contents(contents)))
        assert await _archive(other).contents() == contents
        assert merged.measurements == len(contents.measurements)
        assert merged.trials == sum(len(kept.trials) for kept in contents.measurements)
        assert list(await _archive(other).summaries()) == list(await _archive(store).summaries())
        for name in HOSTILE_NAMES:
            assert await other.unfinished(name) == await store.unfinished(name)

    async def test_merging_again_changes_nothing(self, store: Store) -> None:
        """Also with itself: there are no duplicates."""
        await _fill(store)
        before = await _archive(store).contents()
        merged = await _archive(store).merge(before)
        assert merged.measurements == merged.trials == merged.reports == 0
        assert await _archive(store).contents() == before

    async def test_both_sides_of_a_measurement_are_kept(self, store: Store, other: Store) -> None:
        """A measurement that went on in two places has the trials of both, and the report."""
        new = await store.begin("key", sample_model())
        await store.append_trials(new.id, [sample_trial(index=0)])
        await _archive(other).merge(await _archive(store).contents())
        await store.append_trials(new.id, [sample_trial(index=1)])
        await other.append_trials(new.id, [sample_trial(index=2), sample_trial(region="tail")])
        await other.append_failure(new.id, Observation(length_tokens=1, failure=Cause.LOAD_FAILED))
        await other.save_cost(new.id, Cost(seconds=9))
        await other.finish(new.id, sample_report())
        merged = await _archive(store).merge(await _archive(other).contents())
        assert (merged.measurements, merged.trials, merged.reports) == (0, 2, 1)
        (kept,) = (await _archive(store).contents()).measurements
        assert [trial.index for trial in kept.trials] == [0, 1, 2, 0]
        assert len(kept.failures) == 1
        assert kept.cost == Cost(seconds=9)
        assert [stored.report for stored in await store.reports()] == [sample_report()]
        assert await store.unfinished("key") is None

    async def test_an_older_report_does_not_become_the_newest(
        self, store: Store, other: Store
    ) -> None:
        """The times decide between the two stores."""
        report = sample_report()
        for place, day in ((other, 0), (store, 1), (other, 2), (store, 3)):
            new = await place.begin("key", sample_model())
            finished = report.finished_at + timedelta(days=day)
            await place.finish(new.id, attrs.evolve(report, finished_at=finished, true_context=day))
        assert (await _archive(store).merge(await _archive(other).contents())).reports == 2
        kept = (await _archive(store).contents()).measurements
        assert [k.report.true_context for k in kept if k.report] == [0, 1, 2, 3]
        assert [found.true_context for found in await _archive(store).summaries()] == [3]

    async def test_an_unfinished_measurement_here_is_the_one_to_resume(
        self, store: Store, other: Store
    ) -> None:
        """The other one under its key is kept, and not offered."""
        mine = await store.begin("key", sample_model())
        theirs = await other.begin("key", sample_model())
        await other.append_trials(theirs.id, [sample_trial()])
        await _archive(store).merge(await _archive(other).contents())
        assert await store.unfinished("key") == mine
        kept = {k.id: k for k in (await _archive(store).contents()).measurements}
        assert kept[theirs.id].replaced
        assert len(kept[theirs.id].trials) == 1

    async def test_an_id_that_is_taken_merges_nothing(self, store: Store, other: Store) -> None:
        """All or nothing: the other measurements are not merged either."""
        new = await store.begin("key", sample_model())
        await _fill(other)
        before = await _archive(store).contents()
        changed = KeptMeasurement(
            id=new.id,
            key="another",
            model=sample_model(),
            started_at=new.started_at,
            trials=(sample_trial(),),
        )
        more = (await _archive(other).contents()).measurements
        with pytest.raises(StoreError):
            await _archive(store).merge(StoreContents(measurements=(*more, changed)))
        assert await _archive(store).contents() == before


async def _unfinished(store: Store, key: str = "key") -> StoredMeasurement:
    found = await store.unfinished(key)
    assert found is not None
    return found


def _archive(store: Store) -> Archive:
    assert isinstance(store, Archive)
    return store


async def _fill(store: Store) -> None:
    """Something of everything."""
    for name in HOSTILE_NAMES[::2]:
        for _ in range(2):
            new = await store.begin(name, sample_model(key=name))
            await store.append_trials(new.id, [sample_trial(reply=name, expected=name)])
    for name in HOSTILE_NAMES[::4]:
        found = await _unfinished(store, name)
        failure = Observation(length_tokens=8192, failure=Cause.CRASHED_ON_FILL)
        await store.append_failure(found.id, failure)
        for length in (65536, 65536):
            await store.mark_load(found.id, length)
        await store.save_cost(found.id, Cost(loads=2, seconds=0.1))
    for name in HOSTILE_NAMES[::6]:
        found = await _unfinished(store, name)
        await store.finish(found.id, sample_report(model=sample_model(key=name)))
