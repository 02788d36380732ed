from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import platformdirs
import pytest

from lmstrix.errors import StoreError
from lmstrix.ports import Store
from lmstrix.stores.archive import Archive
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.contracts.archive import ArchiveContract
from lmstrix.testing.contracts.store import DurableStoreContract
from lmstrix.testing.samples import sample_model, sample_trial


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SqliteStore]:
    store = SqliteStore(path)
    try:
        yield store
    finally:
        await store.aclose()


def content_of(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "lmstrix.sqlite3"


class TestSqliteStore(DurableStoreContract):
    @pytest.fixture
    async def store(self, path: Path) -> AsyncIterator[Store]:
        async with opened(path) as store:
            yield store

    @pytest.fixture
    def open_store(self, path: Path) -> Callable[[], Store]:
        return lambda: SqliteStore(path)


class TestSqliteArchive(ArchiveContract):
    @pytest.fixture
    async def archive(self, path: Path) -> AsyncIterator[Archive]:
        async with opened(path) as store:
            yield store

    @pytest.fixture
    async def other(self, path: Path) -> AsyncIterator[Archive]:
        async with opened(path.with_name("other")) as store:
            yield store


async def test_constructing_touches_nothing(path: Path) -> None:
    store = SqliteStore(path)
    assert store.location == str(path)
    assert store.warnings == ()
    await store.aclose()
    assert not path.parent.exists()


def test_the_default_is_in_the_users_data_folder() -> None:
    expected = platformdirs.user_data_path("lmstrix") / "lmstrix.sqlite3"
    assert SqliteStore().location == str(expected)


async def test_closing_works_in_a_cancelled_task(path: Path) -> None:
    store = SqliteStore(path)
    await store.begin("key", sample_model())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.aclose()
    # The last connection that closes takes the log away with it; the lock stays.
    names = {entry.name for entry in path.parent.iterdir()}
    assert names == {path.name, f"{path.name}.lock"}


async def test_a_closed_store_opens_again(path: Path) -> None:
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        await store.aclose()
        assert await store.unfinished("key") == new


async def test_commits_reach_the_disk(path: Path) -> None:
    async with opened(path) as store:
        await store.begin("key", sample_model())
        connection = store._connection
        assert connection is not None
        assert connection.execute("PRAGMA journal_mode").fetchone() == (b"wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_what_json_cannot_hold_is_a_store_error(path: Path) -> None:
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        with pytest.raises(StoreError):
            await store.append_trial(new.id, sample_trial(ttft_s=float("nan")))


async def test_many_openers_at_once(path: Path) -> None:
    stores = [SqliteStore(path) for _ in range(8)]
    try:
        async with anyio.create_task_group() as tasks:
            for number, store in enumerate(stores):
                tasks.start_soon(store.begin, str(number), sample_model(key=str(number)))
        assert len(await stores[0].unfinished_models()) == 8
        assert all(store.warnings == () for store in stores)
    finally:
        for store in stores:
            await store.aclose()


async def test_a_newer_store_is_refused_and_left_alone(path: Path) -> None:
    async with opened(path) as store:
        await store.begin("key", sample_model())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = content_of(path)
    async with opened(path) as store:
        with pytest.raises(StoreError, match="newer") as caught:
            await store.reports()
        assert "Update" in caught.value.hint
    assert content_of(path) == before


async def test_a_place_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    async with opened(tmp_path / "file" / "lmstrix.sqlite3") as store:
        with pytest.raises(StoreError) as caught:
            await store.begin("key", sample_model())
        assert caught.value.hint


@pytest.mark.parametrize("name", ["", "nul\0inside"])
async def test_a_path_that_is_no_file_is_a_store_error(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path / name) as store:
        with pytest.raises(StoreError):
            await store.reports()


async def test_a_locked_store_is_a_store_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmstrix.stores._sqlite_file.BUSY_S", 0.05)
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="busy"):
                await store.append_trial(new.id, sample_trial())
            other.execute("ROLLBACK")
        await store.append_trial(new.id, sample_trial())


async def test_a_full_store_is_a_store_error_and_goes_on(path: Path) -> None:
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        connection = store._connection
        assert connection is not None
        connection.execute("PRAGMA max_page_count = 20")
        with pytest.raises(StoreError, match="no space"):
            await store.append_trial(new.id, sample_trial(reply="x" * 1_000_000))
        await store.append_trial(new.id, sample_trial(index=1))
        found = await store.unfinished("key")
        assert found is not None
        assert [trial.index for trial in found.trials] == [1]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right that not everyone has")
async def test_a_link_is_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.sqlite3"
    link.symlink_to(path)
    async with opened(link) as store:
        new = await store.begin("key", sample_model())
    async with opened(path) as store:
        assert await store.unfinished("key") == new
