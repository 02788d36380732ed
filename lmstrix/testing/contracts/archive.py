"""What every store that is an `Archive` must do, as a pytest suite beside `StoreContract`.

::

class TestMyArchive(ArchiveContract):
    @pytest.fixture
    async def archive(self) -> AsyncIterator[Archive]:
        store = MyStore("one place")
        yield store
        await store.aclose()

    @pytest.fixture
    async def other(self) -> AsyncIterator[Archive]:
        store = MyStore("another place")
        yield store
        await store.aclose()
"""
# ruff: noqa: S101 - a test suite asserts, also where it is shipped

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from lmstrix.errors import StoreError
from lmstrix.models import Cause, Cost, Observation
from lmstrix.ports import Store
from lmstrix.stores.archive import Archive, ImportedResult, StoreContents, summarize
from lmstrix.stores.exchange import dump_contents, load_contents
from lmstrix.testing.contracts.store import HOSTILE_NAMES
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

__all__ = ["ArchiveContract"]


@pytest.mark.anyio
class ArchiveContract:
    """For a store that is an `Archive` too; override `archive` and `other`."""

    @pytest.fixture
    def archive(self) -> Archive:
        """An empty store, closed by the fixture afterwards."""
        raise NotImplementedError("override the fixture `archive`")

    @pytest.fixture
    def other(self) -> Archive:
        """Another empty store in another place."""
        raise NotImplementedError("override the fixture `other`")

    async def test_an_empty_archive_holds_nothing(self, archive: Archive) -> None:
        """Nothing is found, and nothing is an error."""
        assert list(await archive.summaries()) == []
        assert list(await archive.imported()) == []
        assert await archive.contents() == StoreContents()

    async def test_summaries_are_those_of_the_reports(self, archive: Archive) -> None:
        """The newest of each key, newest first."""
        store = _store(archive)
        for key, true_context in (("a", 1), ("b", 2), ("a", 3)):
            new = await store.begin(key, sample_model())
            await store.finish(new.id, sample_report(true_context=true_context))
        expected = [summarize(stored) for stored in await store.reports()]
        assert list(await archive.summaries()) == expected
        assert [summary.true_context for summary in expected] == [3, 2]

    async def test_a_copy_is_the_same(self, archive: Archive, other: Archive) -> None:
        """Through JSON, with hostile names, an unfinished measurement and a replaced one."""
        await _fill(archive)
        contents = await archive.contents()
        merged = await other.merge(load_contents(dump_contents(contents)))
        assert await other.contents() == contents
        assert merged.measurements == len(contents.measurements)
        assert merged.trials == sum(len(kept.trials) for kept in contents.measurements)
        assert list(await other.summaries()) == list(await archive.summaries())
        assert list(await other.imported()) == list(await archive.imported())
        for name in HOSTILE_NAMES:
            assert await _store(other).unfinished(name) == await _store(archive).unfinished(name)

    async def test_merging_again_changes_nothing(self, archive: Archive) -> None:
        """Also with itself: there are no doubles."""
        await _fill(archive)
        before = await archive.contents()
        merged = await archive.merge(before)
        assert merged.measurements == merged.trials == merged.reports == merged.imported == 0
        assert await archive.contents() == before

    async def test_both_sides_of_a_measurement_are_kept(
        self, archive: Archive, other: Archive
    ) -> None:
        """What went on in two places has the trials of both, each once, and the report."""
        store, copy = _store(archive), _store(other)
        new = await store.begin("key", sample_model())
        await store.append_trial(new.id, sample_trial(index=0))
        await other.merge(await archive.contents())
        await store.append_trial(new.id, sample_trial(index=1))
        await copy.append_trial(new.id, sample_trial(index=2))
        await copy.append_failure(new.id, Observation(length_tokens=1, failure=Cause.LOAD_FAILED))
        await copy.save_cost(new.id, Cost(seconds=9))
        await copy.finish(new.id, sample_report())
        merged = await archive.merge(await other.contents())
        assert (merged.measurements, merged.trials, merged.reports) == (0, 1, 1)
        (kept,) = (await archive.contents()).measurements
        assert [trial.index for trial in kept.trials] == [0, 1, 2]
        assert len(kept.failures) == 1
        assert kept.cost == Cost(seconds=9)
        assert [stored.report for stored in await store.reports()] == [sample_report()]
        assert await store.unfinished("key") is None

    async def test_an_older_report_does_not_become_the_newest(
        self, archive: Archive, other: Archive
    ) -> None:
        """The times decide between the two stores."""
        report = sample_report()
        for store, day, true_context in (
            (_store(other), 0, 1),
            (_store(archive), 1, 2),
            (_store(other), 2, 3),
            (_store(archive), 3, 4),
        ):
            new = await store.begin("key", sample_model())
            finished = report.finished_at + timedelta(days=day)
            await store.finish(
                new.id, attrs.evolve(report, finished_at=finished, true_context=true_context)
            )
        assert (await archive.merge(await other.contents())).reports == 2
        kept = (await archive.contents()).measurements
        assert [k.report.true_context for k in kept if k.report] == [1, 2, 3, 4]
        assert [summary.true_context for summary in await archive.summaries()] == [4]

    async def test_an_unfinished_measurement_here_is_the_one_to_go_on_with(
        self, archive: Archive, other: Archive
    ) -> None:
        """The other one under its key is kept, and not offered."""
        mine = await _store(archive).begin("key", sample_model())
        theirs = await _store(other).begin("key", sample_model())
        await _store(other).append_trial(theirs.id, sample_trial())
        await archive.merge(await other.contents())
        assert await _store(archive).unfinished("key") == mine
        kept = {k.id: k for k in (await archive.contents()).measurements}
        assert kept[theirs.id].replaced
        assert len(kept[theirs.id].trials) == 1

    async def test_an_id_that_is_taken_merges_nothing(
        self, archive: Archive, other: Archive
    ) -> None:
        """All or nothing: what else there was to merge is not merged either."""
        store = _store(archive)
        new = await store.begin("key", sample_model())
        await _fill(other)
        before = await archive.contents()
        (mine,) = before.measurements
        hostile = attrs.evolve(
            await other.contents(),
            measurements=(
                *(await other.contents()).measurements,
                attrs.evolve(mine, key="another", trials=(sample_trial(),)),
            ),
        )
        with pytest.raises(StoreError):
            await archive.merge(hostile)
        assert await archive.contents() == before
        assert await store.unfinished("key") == new

    async def test_imported_results_stay_apart(self, archive: Archive) -> None:
        """They are no reports; the newest of each model is shown, and each is kept once."""
        old = ImportedResult(source="lmstrix.json", model_key="b", tested_context=1)
        new = attrs.evolve(old, tested_context=2, tested_at=sample_report().finished_at)
        first = attrs.evolve(old, model_key="a")
        for contents in (StoreContents(imported=(new, old)), StoreContents(imported=(first, new))):
            await archive.merge(contents)
        assert list(await archive.imported()) == [first, new]
        assert (await archive.contents()).imported == (new, old, first)
        assert list(await archive.summaries()) == []


def _store(archive: Archive) -> Store:
    assert isinstance(archive, Store)
    return archive


async def _fill(archive: Archive) -> None:
    """Something of everything."""
    store = _store(archive)
    for name in HOSTILE_NAMES[::2]:
        for _ in range(2):
            new = await store.begin(name, sample_model(key=name))
            await store.append_trial(new.id, sample_trial(reply=name, expected=name))
    for name in HOSTILE_NAMES[::4]:
        found = await store.unfinished(name)
        assert found is not None
        failure = Observation(length_tokens=8192, failure=Cause.CRASHED_ON_FILL)
        await store.append_failure(found.id, failure)
        await store.mark_load(found.id, 65536)
        await store.save_cost(found.id, Cost(loads=2, seconds=0.1))
    for name in HOSTILE_NAMES[::6]:
        found = await store.unfinished(name)
        assert found is not None
        await store.finish(found.id, sample_report(model=sample_model(key=name)))
    result = ImportedResult(source="lmstrix.json", model_key=HOSTILE_NAMES[-1], tested_context=1)
    await archive.merge(StoreContents(imported=(result,)))
