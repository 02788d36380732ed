"""Files that are no store, and stores that were damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import attrs
import pytest

from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SqliteStore]:
    store = SqliteStore(path)
    try:
        yield store
    finally:
        await store.aclose()


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "lmstrix.sqlite3"


def set_aside(path: Path) -> Path:
    (found,) = (
        entry
        for entry in path.parent.glob(f"{path.name}.set-aside-*")
        if not entry.name.endswith(("-wal", "-shm", "-journal"))
    )
    return found


@pytest.mark.parametrize(
    "content",
    [b"x\n", b"hello", b"\0" * 100, b"not a database at all, but a text\n" * 1000],
    ids=["tiny", "short", "zeros", "long"],
)
async def test_a_file_that_is_no_database_is_set_aside(path: Path, content: bytes) -> None:
    put(path, content)
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        assert await store.unfinished("key") == new
        (warning,) = store.warnings
    assert set_aside(path).read_bytes() == content
    assert str(path) in warning
    assert set_aside(path).name in warning


async def test_a_truncated_store_is_set_aside(path: Path) -> None:
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        for index in range(50):
            await store.append_trial(new.id, sample_trial(index=index))
    content = content_of(path)[:-5000]
    put(path, content)
    async with opened(path) as store:
        assert await store.unfinished("key") is None
        assert len(store.warnings) == 1
    assert set_aside(path).read_bytes() == content


async def test_a_database_of_another_program_is_set_aside_whole(path: Path) -> None:
    path.parent.mkdir()
    # Open all the while, so that its row is still in its log.
    with closing(sqlite3.connect(path)) as foreign:
        foreign.execute("PRAGMA journal_mode=WAL")
        foreign.execute("CREATE TABLE precious (value TEXT)")
        foreign.execute("INSERT INTO precious VALUES ('kept')")
        foreign.commit()
        async with opened(path) as store:
            await store.begin("key", sample_model())
            (warning,) = store.warnings
            assert "another program" in warning
        with closing(sqlite3.connect(set_aside(path))) as aside:
            assert aside.execute("SELECT value FROM precious").fetchall() == [("kept",)]


async def test_only_one_of_many_sets_a_file_aside(path: Path) -> None:
    put(path, b"rubbish" * 1000)
    stores = [SqliteStore(path) for _ in range(6)]
    try:
        async with anyio.create_task_group() as tasks:
            for number, store in enumerate(stores):
                tasks.start_soon(store.begin, str(number), sample_model(key=str(number)))
        assert len(await stores[0].unfinished_models()) == 6
        assert sum(len(store.warnings) for store in stores) == 1
    finally:
        for store in stores:
            await store.aclose()
    assert set_aside(path).read_bytes() == b"rubbish" * 1000


@pytest.mark.parametrize("body", ["{", "{}", None, 7, b"\xff\xfe", "[1]", '"\xff"'])
async def test_a_trial_that_cannot_be_read_is_skipped(path: Path, body: object) -> None:
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        for index in range(3):
            await store.append_trial(new.id, sample_trial(index=index))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if body is None:  # text by type, and yet not text
            connection.execute("UPDATE trials SET body = CAST(x'ff' AS TEXT) WHERE seq = 2")
        else:
            connection.execute("UPDATE trials SET body = ? WHERE seq = 2", (body,))
    async with opened(path) as store:
        for _ in range(2):
            found = await store.unfinished("key")
            assert found is not None
            assert [trial.index for trial in found.trials] == [0, 2]
            (warning,) = store.warnings
            assert warning.startswith("1 record was")


async def test_an_older_report_stands_in_for_one_that_cannot_be_read(path: Path) -> None:
    async with opened(path) as store:
        for true_context in (1, 2):
            new = await store.begin("key", sample_model())
            await store.finish(new.id, sample_report(true_context=true_context))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE measurements SET report = 'x' WHERE seq = 2")
    async with opened(path) as store:
        assert [stored.report.true_context for stored in await store.reports()] == [1]
        assert len(store.warnings) == 1


async def test_a_report_of_a_newer_schema_is_skipped(path: Path) -> None:
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        await store.finish(new.id, attrs.evolve(sample_report(), schema_version=99))
        assert list(await store.reports()) == []
        assert len(store.warnings) == 1


@pytest.mark.parametrize("column", ["started_at", "cost", "model"])
async def test_a_damaged_measurement_is_not_fatal(path: Path, column: str) -> None:
    async with opened(path) as store:
        await store.begin("key", sample_model())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"UPDATE measurements SET {column} = 'x'")
    async with opened(path) as store:
        await store.unfinished("key")
        await store.unfinished_models()
        assert len(store.warnings) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM measurements; END",
        "CREATE VIEW v AS SELECT 1",
    ],
)
async def test_a_store_that_would_do_more_than_be_read_is_set_aside(
    path: Path, statement: str
) -> None:
    async with opened(path) as store:
        await store.begin("key", sample_model())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)
    async with opened(path) as store:
        assert await store.unfinished("key") is None
        (warning,) = store.warnings
    assert "another program" in warning
    assert set_aside(path).exists()


async def test_damage_found_while_in_use_is_looked_for_at_the_next_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the file were too large to be read through whenever it is opened.
    monkeypatch.setattr("lmstrix.stores._sqlite_file.CHECKED_BYTES", 0)
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        for index in range(100):
            await store.append_trial(new.id, sample_trial(index=index))
    content = bytearray(content_of(path))
    for page in range(20, len(content) // 4096):  # only trials are so far behind
        content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    put(path, bytes(content))
    async with opened(path) as store:
        assert await store.unfinished_models() == (sample_model(),)
        assert store.warnings == ()
        with pytest.raises(OSError, match="damaged"):
            await store.unfinished("key")
    async with opened(path) as store:
        assert await store.unfinished("key") is None
        (warning,) = store.warnings
        assert "damaged" in warning
    # Looked at once: the new store is a sound one.
    async with opened(path) as store:
        await store.begin("key", sample_model())
        assert store.warnings == ()
    assert set_aside(path).read_bytes() == bytes(content)
