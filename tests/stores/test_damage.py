"""Damaged stores, files of other programs, full disks and read-only folders."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import pytest

from lmstrix.errors import StoreError
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the work is done in threads


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@asynccontextmanager
async def opened(path: Path, *, read_only: bool = False) -> AsyncGenerator[SqliteStore]:
    store = SqliteStore(path, read_only=read_only)
    try:
        yield store
    finally:
        await store.aclose()


async def begin(path: Path, trials: int = 0) -> str:
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        await store.append_trials(new.id, [sample_trial(index=index) for index in range(trials)])
    return new.id


async def found(path: Path) -> list[int]:
    async with opened(path) as store:
        stored = await store.unfinished("key")
        assert stored is not None
        assert store.warnings == ()
        return [trial.index for trial in stored.trials]


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def names_in(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def set_aside(path: Path) -> bytes:
    """The one file that was set aside."""
    (kept,) = path.parent.glob(f"{path.name}.set-aside-*")
    return kept.read_bytes()


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def check_set_aside(path: Path, content: bytes) -> None:
    """The damaged `content` is kept, a new store works, and the user hears of it once."""
    async with opened(path, read_only=True) as store:
        with pytest.raises(StoreError, match="damaged"):
            await store.reports()
    assert content_of(path) == content
    stores = [SqliteStore(path) for _ in range(4)]
    async with anyio.create_task_group() as tasks:
        for number, store in enumerate(stores):
            tasks.start_soon(store.begin, str(number), sample_model(key=str(number)))
    assert len(await stores[0].unfinished_models()) == 4
    (warning,) = (warning for store in stores for warning in store.warnings)
    assert str(path) in warning
    assert "set-aside" in warning
    for store in stores:
        await store.aclose()
    assert set_aside(path) == content


def truncate(path: Path) -> bytes:
    return path.read_bytes()[:-5000]


def drop_a_table(path: Path) -> bytes:
    change(path, "DROP TABLE loads", "PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def overwrite(path: Path) -> bytes:
    return path.read_bytes()[:100] + b"\xff" * 4096


def flip_a_bit_of_an_index(path: Path) -> bytes:
    """The rows are there and would not be found."""
    with closing(sqlite3.connect(path)) as connection:
        [(page,)] = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'measurements_by_key'"
        )
    content = bytearray(path.read_bytes())
    content[content.index(b'"key"', (page - 1) * 4096) + 1] ^= 1
    return bytes(content)


@pytest.mark.parametrize("damage", [truncate, drop_a_table, overwrite, flip_a_bit_of_an_index])
async def test_a_damaged_store_is_set_aside(path: Path, damage: Callable[[Path], bytes]) -> None:
    await begin(path, 50)
    content = damage(path)
    put(path, content)
    await check_set_aside(path, content)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is too large to be read through whenever it is opened."""
    monkeypatch.setattr("lmstrix.stores.sqlite.CHECKED_BYTES", 0)


@pytest.mark.usefixtures("large")
async def test_a_large_store_is_read_through_if_it_was_not_closed(path: Path) -> None:
    await begin(path)
    content = flip_a_bit_of_an_index(path)
    put(path, content)
    put(path.with_name(f"{path.name}-wal"), b"")
    await check_set_aside(path, content)


@pytest.mark.usefixtures("large")
async def test_damage_met_in_use_is_looked_for_at_the_next_opening(path: Path) -> None:
    await begin(path, 200)
    content = bytearray(content_of(path))
    for page in range(30, len(content) // 4096):  # only trials are so far behind
        content[page * 4096 : page * 4096 + 200] = b"\xff" * 200
    put(path, bytes(content))
    async with opened(path) as store:
        assert await store.unfinished_models() == (sample_model(),)
        assert store.warnings == ()
        with pytest.raises(StoreError, match="damaged") as caught:
            await store.unfinished("key")
        assert "next use" in caught.value.hint
    async with opened(path) as store:
        assert await store.unfinished("key") is None
        (warning,) = store.warnings
        assert "damaged" in warning
    assert set_aside(path) == bytes(content)
    # Looked at once: the new store is a sound one.
    await begin(path)
    assert await found(path) == []


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("name", ["text", "tiny", "zeros", "database", "wal"])
async def test_a_foreign_file_is_refused_and_left_alone(
    path: Path, name: str, *, read_only: bool
) -> None:
    contents = {"text": b"years of work\n" * 1000, "tiny": b"x", "zeros": b"\0" * 100}
    if name in contents:
        put(path, contents[name])
    else:
        change(path, "PRAGMA application_id = 7", "CREATE TABLE precious (value)")
    with closing(sqlite3.connect(path if name == "wal" else ":memory:")) as foreign:
        foreign.execute("PRAGMA journal_mode=WAL")
        foreign.execute("CREATE TABLE more (value)")
        before = content_of(path), names_in(path.parent)
        async with opened(path, read_only=read_only) as store:
            with pytest.raises(StoreError, match=r"not an? (LMStrix )?store") as caught:
                await store.reports()
        assert caught.value.hint
        assert content_of(path) == before[0]
        assert names_in(path.parent) == before[1]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("PRAGMA user_version = 99", "newer"),
        ("PRAGMA user_version = 2", "never released"),
        (
            "CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM measurements; END",
            "another program",
        ),
        ("CREATE VIEW v AS SELECT 1", "another program"),
    ],
)
async def test_another_version_is_left_alone(path: Path, statement: str, said: str) -> None:
    await begin(path)
    change(path, statement)
    before = content_of(path)
    for read_only in (False, True):
        async with opened(path, read_only=read_only) as store:
            with pytest.raises(StoreError, match=said) as caught:
                await store.reports()
        assert caught.value.hint
    assert content_of(path) == before


@pytest.mark.parametrize(
    "body", ["'{'", "'{}'", "7", "x'fffe'", "'[1]'", "CAST(x'ff' AS TEXT)", "'\"\\xff\"'"]
)
async def test_a_trial_that_cannot_be_read_is_left_out(path: Path, body: str) -> None:
    await begin(path, 3)
    change(path, f"UPDATE trials SET body = {body} WHERE seq = 2")
    async with opened(path) as store:
        for _ in range(2):
            stored = await store.unfinished("key")
            assert stored is not None
            assert [trial.index for trial in stored.trials] == [0, 2]
            (warning,) = store.warnings
            assert warning.startswith("1 record was left out")


@pytest.mark.parametrize("body", ["x", '{"schema_version": 99}'])
async def test_an_older_report_stands_in_for_one_that_cannot_be_read(path: Path, body: str) -> None:
    async with opened(path) as store:
        for true_context in (1, 2):
            new = await store.begin("key", sample_model())
            await store.finish(new.id, sample_report(true_context=true_context))
    change(path, f"UPDATE reports SET body = '{body}', summary = '{body}' WHERE seq = 2")
    change(path, "UPDATE reports SET finished = 'late' WHERE seq = 2")
    async with opened(path) as store:
        assert [stored.report.true_context for stored in await store.reports()] == [1]
        assert [summary.true_context for summary in await store.summaries()] == [1]
        assert store.warnings
        assert await store.unfinished("key") is None
        assert await store.interrupted() == ()
        kept = (await store.contents()).measurements
        assert [measurement.replaced for measurement in kept] == [False, True]
        await store.finish(new.id, sample_report(true_context=3))


@pytest.mark.parametrize("column", ["key", "body", "cost"])
async def test_a_damaged_measurement_is_left_out(path: Path, column: str) -> None:
    await begin(path, 1)
    change(path, f"UPDATE measurements SET {column} = 'x'")
    async with opened(path) as store:
        await store.unfinished("key")
        await store.contents()
        assert await store.reports() == ()
        assert len(store.warnings) == (column != "key")
        await store.begin("key", sample_model())


async def fill(path: Path, begun: str) -> list[int]:
    """Append until the store reports that it is full; the acknowledged ones."""
    acknowledged: list[int] = []
    async with opened(path) as store:
        for index in range(500):
            try:
                await store.append_trials(begun, [sample_trial(index=index, reply="x" * 2000)])
            except StoreError as error:
                said = f"{error} {error.hint}"
                break
            acknowledged.append(index)
        else:
            pytest.fail("the disk was never full")
    assert str(path) in said
    assert "space" in said
    return acknowledged


async def test_a_full_disk_is_a_store_error_and_nothing_is_lost(small_disk: Path) -> None:
    path = small_disk / "store"
    begun = await begin(path)
    put(small_disk / "ballast", b"x" * 60_000)
    acknowledged = await fill(path, begun)
    assert acknowledged
    put(small_disk / "ballast", b"")
    assert await found(path) == acknowledged
    async with opened(path) as store:
        await store.append_trials(begun, [sample_trial(index=1000)])
        await store.finish(begun, sample_report())
        assert len(await store.reports()) == 1


async def test_a_read_only_folder_is_told(tmp_path: Path, protect: Callable[[Path], None]) -> None:
    protect(tmp_path)
    async with opened(tmp_path / "store") as store:
        assert await store.reports() == ()
        with pytest.raises(StoreError, match="cannot be written") as caught:
            await store.begin("key", sample_model())
        assert "folder" in caught.value.hint


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/null")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("make", [Path.mkdir, make_pipe, make_device])
async def test_what_is_no_file_is_left_alone(path: Path, make: Callable[[Path], object]) -> None:
    make(path)
    for read_only in (True, False):
        async with opened(path, read_only=read_only) as store:
            with pytest.raises(StoreError, match="not a file"):
                await store.begin("key", sample_model())
    assert names_in(path.parent) == {path.name}
    assert "null.lock" not in names_in(Path("/dev"))
