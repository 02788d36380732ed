"""Stores that an earlier version wrote: kept as files in ``data``, opened by this one."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import pytest

from lmstrix.converter import dump_report
from lmstrix.models import Cause, Cost
from lmstrix.stores._sqlite_schema import SCHEMA
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

DATA = Path(__file__).with_name("data")


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[SqliteStore]:
    store = SqliteStore(path)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of a store that version 1 of the tables wrote.

    Models ``a`` (two reports), ``b`` (one), ``c`` (one measurement replaced, one unfinished)
    and ``d`` (a report that cannot be read).
    """
    return Path(shutil.copy(DATA / "version_1.sqlite3", tmp_path / "store.sqlite3"))


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def rows_of(path: Path, table: str) -> list[object]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY seq").fetchall()


async def test_everything_of_version_1_is_there(path: Path) -> None:
    assert version_of(path) == 1
    async with opened(path) as store:
        reports = [(s.key, s.report.true_context) for s in await store.reports()]
        assert reports == [("a", 3072), ("b", 2048)]
        summaries = [(s.key, s.true_context, s.model_key) for s in await store.summaries()]
        assert summaries == [("a", 3072, "a"), ("b", 2048, "b")]
        found = await store.unfinished("c")
        assert found is not None
        assert [trial.index for trial in found.trials] == [0, 1, 2]
        assert {trial.reply for trial in found.trials} == {"модель\0\udcff"}
        assert [f.failure for f in found.failures] == [Cause.CRASHED_ON_FILL]
        assert found.cost == Cost(loads=2, seconds=2.5)
        assert found.trying is None
        assert list(await store.unfinished_models()) == [sample_model(key="c")]
        kept = [(k.key, len(k.trials), k.replaced) for k in (await store.contents()).measurements]
        assert kept == [
            ("a", 1, False),
            ("b", 1, False),
            ("a", 1, False),
            ("d", 0, True),
            ("c", 1, True),
            ("c", 3, False),
        ]
        assert store.warnings == (f"1 record was left out: unreadable in {path}.",)
    assert version_of(path) == SCHEMA


async def test_no_row_of_version_1_is_changed(path: Path) -> None:
    tables = ("measurements", "trials", "failures")
    before = [rows_of(path, table) for table in tables]
    async with opened(path) as store:
        await store.summaries()
    assert [rows_of(path, table) for table in tables] == before


async def test_a_store_of_version_1_goes_on(path: Path) -> None:
    async with opened(path) as store:
        found = await store.unfinished("c")
        assert found is not None
        await store.append_trial(found.id, sample_trial(index=3))
        await store.mark_load(found.id, 65536)
        await store.finish(found.id, sample_report(true_context=512))
        assert [s.true_context for s in await store.summaries()] == [512, 3072, 2048]


async def test_a_report_of_version_1_that_comes_later_is_listed(path: Path) -> None:
    async with opened(path) as store:
        await store.begin("e", sample_model())
        await store.reports()
        # As an LMStrix of that version would that had the file open all the while.
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(
                "UPDATE measurements SET report = ?, finished = 99 WHERE key = ?",
                (dump_report(sample_report(true_context=77)), '"e"'),
            )
        assert [s.true_context for s in await store.summaries()] == [77, 3072, 2048]


async def test_only_one_of_many_brings_it_up_to_date(path: Path) -> None:
    stores = [SqliteStore(path) for _ in range(6)]
    try:
        async with anyio.create_task_group() as tasks:
            for store in stores:
                tasks.start_soon(store.summaries)
        assert [len(await store.summaries()) for store in stores] == [2] * 6
    finally:
        for store in stores:
            await store.aclose()


async def test_a_store_that_cannot_be_brought_up_to_date_stays_as_it_is(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # Nothing of ours, and in the way of a table of version 2.
        connection.execute("CREATE TABLE summaries (x)")
    before = content_of(path)
    async with opened(path) as store:
        with pytest.raises(OSError, match="cannot be read or written"):
            await store.reports()
    assert content_of(path) == before


@pytest.mark.parametrize("table", ["summaries", "loads", "imported"])
async def test_a_store_without_a_table_is_set_aside(path: Path, table: str) -> None:
    async with opened(path) as store:
        await store.reports()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"DROP TABLE {table}")
    async with opened(path) as store:
        assert list(await store.reports()) == []
        assert "damaged" in store.warnings[0]
