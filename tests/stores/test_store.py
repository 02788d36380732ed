"""The store by its contract, on disk and in memory, and how it opens and closes."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from lmstrix.errors import StoreError
from lmstrix.plugins import STORES, make_plugin
from lmstrix.ports import Store
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.contracts.store import ArchiveContract, DurableStoreContract
from lmstrix.testing.samples import sample_model, sample_report, sample_trial


def names_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


class TestSqliteStore(DurableStoreContract, ArchiveContract):
    @pytest.fixture
    async def store(self, path: Path) -> AsyncIterator[Store]:
        store = SqliteStore(path)
        yield store
        await store.aclose()

    @pytest.fixture
    async def other(self, path: Path) -> AsyncIterator[Store]:
        store = SqliteStore(path.with_name("other"))
        yield store
        await store.aclose()

    @pytest.fixture
    def open_store(self, path: Path) -> Callable[[], Store]:
        return lambda: SqliteStore(path)


class TestMemory(ArchiveContract):
    @pytest.fixture
    def store(self) -> Store:
        return SqliteStore.in_memory()

    @pytest.fixture
    def other(self) -> Store:
        return SqliteStore(":memory:")


async def test_memory_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = make_plugin(STORES, "memory")
    assert isinstance(store, SqliteStore)
    assert store.location == ""
    new = await store.begin("key", sample_model())
    await store.aclose()
    assert await store.unfinished("key") == new
    assert names_in(tmp_path) == set()


async def test_closing_works_in_a_cancelled_task(store: SqliteStore, path: Path) -> None:
    new = await store.begin("key", sample_model())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.aclose()
    # The last connection that closes removes the log; the lock stays.
    assert names_in(path.parent) == {path.name, f"{path.name}.lock"}
    assert await store.unfinished("key") == new


async def test_the_same_trial_counts_once(store: SqliteStore) -> None:
    new = await store.begin("key", sample_model())
    await store.append_trials(new.id, [sample_trial(reply="first")])
    other = sample_trial(region="head")
    counted = await store.append_trials(new.id, [sample_trial(reply="again"), other])
    assert list(counted) == [sample_trial(reply="first"), other]
    found = await store.unfinished("key")
    assert found is not None
    assert [(t.reply, t.region) for t in found.trials] == [("first", None), (" 4711.", "head")]


async def test_what_finished_last_is_the_newest_whatever_the_clock_says(store: SqliteStore) -> None:
    for year, true_context in ((2030, 1), (2025, 2)):
        new = await store.begin("key", sample_model())
        moment = sample_report().finished_at.replace(year=year)
        report = sample_report(finished_at=moment, true_context=true_context)
        await store.finish(new.id, report)
    copy = SqliteStore(":memory:")
    await copy.merge(await store.contents())
    for place in (store, copy):
        assert [found.true_context for found in await place.summaries()] == [2]


async def test_facts_that_could_not_be_read_again_are_refused(store: SqliteStore) -> None:
    new = await store.begin("key", sample_model())
    for report in (
        sample_report(true_context=2**200),
        sample_report(true_context=10**5000),
        sample_report(finished_at=sample_report().finished_at.replace(tzinfo=None)),
    ):
        with pytest.raises(StoreError, match="ContextReport cannot be stored"):
            await store.finish(new.id, report)
    with pytest.raises(StoreError, match="bracket"):
        await store.finish(new.id, sample_report(bracket=(5, 1)))
    with pytest.raises(StoreError, match="Trial cannot be stored"):
        await store.append_trials(new.id, [sample_trial(prompt_tokens=2**200)])
    assert await store.unfinished("key") == new


@pytest.mark.parametrize("name", ["", "nul\0inside"])
async def test_a_path_that_cannot_be_a_file_is_a_store_error(tmp_path: Path, name: str) -> None:
    for read_only in (False, True):
        with pytest.raises(StoreError):
            await SqliteStore(tmp_path / name, read_only=read_only).reports()


async def test_a_locked_store_is_a_store_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmstrix.stores.sqlite.BUSY_S", 0.05)
    store = SqliteStore(path)
    new = await store.begin("key", sample_model())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="Another process"):
            await store.append_trials(new.id, [sample_trial()])
        other.execute("ROLLBACK")
    await store.append_trials(new.id, [sample_trial()])
    await store.aclose()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right that not everyone has")
async def test_a_link_is_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite3"
    link.symlink_to(path)
    first, second = SqliteStore(link), SqliteStore(path)
    new = await first.begin("key", sample_model())
    await first.aclose()
    assert await second.unfinished("key") == new
    await second.aclose()


async def test_read_only_creates_and_changes_nothing(path: Path, store: SqliteStore) -> None:
    reader = SqliteStore(path, read_only=True)
    assert list(await reader.reports()) == []
    with pytest.raises(StoreError, match="cannot be written"):
        await reader.begin("key", sample_model())
    await reader.aclose()
    assert not path.parent.exists()
    new = await store.begin("key", sample_model())
    # While somebody is writing, and afterwards.
    for _ in range(2):
        reader = SqliteStore(path, read_only=True)
        assert await reader.unfinished("key") == new
        with pytest.raises(StoreError, match="cannot be written"):
            await reader.append_trials(new.id, [sample_trial()])
        await reader.aclose()
        await store.aclose()
    assert names_in(path.parent) == {path.name, f"{path.name}.lock"}


# Files that go away or may only be read.


def delete(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def rename(path: Path) -> None:
    path.rename(path.with_name("other"))


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copyfile(path, other)
    delete(path)
    other.rename(path)


@pytest.mark.skipif(sys.platform == "win32", reason="an open file stays where it is")
@pytest.mark.parametrize("lose", [delete, remove_folder, replace, rename])
async def test_a_store_that_goes_away_fails_instead_of_losing_results(
    path: Path, store: SqliteStore, lose: Callable[[Path], None]
) -> None:
    first = await store.begin("first", sample_model())
    await store.append_trials(first.id, [sample_trial()])
    lose(path)
    with pytest.raises(StoreError, match="deleted or replaced"):
        await store.finish(first.id, sample_report())
    # What comes next is kept in the file that is there now.
    second = await store.begin("second", sample_model())
    await store.finish(second.id, sample_report())
    assert [stored.key for stored in await SqliteStore(path).reports()] == ["second"]


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "killed"])
async def test_a_store_that_may_not_be_written_can_be_read(
    path: Path, store: SqliteStore, protect: Callable[[Path], None], *, closed: bool
) -> None:
    new = await store.begin("key", sample_model())
    await store.append_trials(new.id, [sample_trial()])
    await store.finish(new.id, sample_report())
    for suffix in ("", "-wal"):  # as of a process that is killed: the log has the newest commits
        shutil.copyfile(f"{path}{suffix}", f"{path.with_name('copy')}{suffix}")
    await store.aclose()
    place = path if closed else path.with_name("copy")
    protect(path.parent)
    reader = SqliteStore(place)
    assert [stored.report for stored in await reader.reports()] == [sample_report()]
    assert len(await reader.summaries()) == 1
    assert len((await reader.contents()).measurements[0].trials) == 1
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be written"):
            await reader.begin("another", sample_model())
    assert [stored.key for stored in await reader.reports()] == ["key"]
    assert reader.warnings == ()
    await reader.aclose()
