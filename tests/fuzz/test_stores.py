"""Exports, damaged files of a store, and single cells of it replaced by anything."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import anyio
from fuzz_counts import NotTaken, put_through
from fuzz_values import TEXTS, as_text, changed, damaged, fuzz, fuzz_slowly, texts_of
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.errors import StoreError
from lmstrix.models import Cause, Cost, Observation
from lmstrix.stores.export import StoreContents, dump_contents, load_contents
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

T = TypeVar("T")


def with_store(path: Path | str, use: Callable[[SqliteStore], Awaitable[T]]) -> T:
    async def run() -> T:
        store = SqliteStore(path)
        try:
            return await use(store)
        finally:
            await store.aclose()

    return anyio.run(run)


async def fill(store: SqliteStore) -> StoreContents:
    for key in ("a", "b", "a"):
        new = await store.begin(key, sample_model(key=key))
        await store.append_trials(new.id, [sample_trial(index=index) for index in range(2)])
        await store.finish(new.id, sample_report())
    new = await store.begin("key", sample_model())
    await store.append_trials(new.id, [sample_trial()])
    await store.append_failure(new.id, Observation(length_tokens=1, failure=Cause.LOAD_FAILED))
    await store.save_cost(new.id, Cost(loads=2, seconds=2.5))
    await store.mark_load(new.id, 65536)
    return await store.contents()


def make() -> tuple[StoreContents, bytes]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        contents = with_store(path, fill)
        return contents, path.read_bytes()


CONTENTS, DATABASE = make()
DOCUMENT = json.loads(dump_contents(CONTENTS))


def check(contents: StoreContents) -> None:
    """What a store gives out, every store takes."""
    assert load_contents(dump_contents(contents)) == contents


async def use_all(store: SqliteStore) -> tuple[str, ...]:
    await store.unfinished("key")
    await store.unfinished_models()
    await store.interrupted()
    reports = await store.reports()
    assert len({stored.key for stored in reports}) == len(reports)
    await store.summaries()
    check(await store.contents())
    with suppress(StoreError):
        await store.merge(CONTENTS)
    return store.warnings


@fuzz
@given(texts_of(DOCUMENT))
def test_exports(text: str) -> None:
    contents = put_through("export of a store", lambda: load_contents(text), StoreError)
    if contents is None:
        return
    check(contents)

    async def merge(store: SqliteStore) -> StoreContents:
        await store.merge(CONTENTS)
        with suppress(StoreError):
            await store.merge(contents)
        return await store.contents()

    after = with_store(":memory:", merge)
    check(after)
    # Nothing that was there is lost, whatever was merged.
    kept = {measurement.id: measurement for measurement in after.measurements}
    for before in CONTENTS.measurements:
        now = kept[before.id]
        assert now.trials[: len(before.trials)] == before.trials
        assert before.report is None or now.report == before.report


def read(path: Path) -> bool:
    if with_store(path, use_all):
        raise NotTaken  # a file set aside, or rows left out
    return True


@fuzz_slowly
@given(damaged(DATABASE))
def test_damaged_files(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        path.write_bytes(content)
        put_through("file of a store", lambda: read(path), NotTaken, StoreError, writes=True)
        names = {entry.name for entry in Path(folder).iterdir()}
        kept = {name for name in names if name.startswith("store.set-aside-")}
        beside = {"store.lock", "store.suspect", "store-wal", "store-shm", "store-journal"}
        assert names - kept <= {"store", *beside}
        assert all(Path(folder, name).read_bytes() == content for name in kept)
        if not content[:100].startswith(DATABASE[:16]):
            assert not content or path.read_bytes() == content


CELLS = [
    *(("measurements", column) for column in ("id", "key", "body", "cost", "replaced")),
    *(("trials", column) for column in ("measurement", "name", "body")),
    ("failures", "body"),
    ("loads", "context_length"),
    *(("reports", column) for column in ("measurement", "finished", "summary", "body")),
]


@st.composite
def cells(draw: st.DrawFn, before: object) -> object:
    """Anything that SQLite can hold in one place."""
    if isinstance(before, bytes) and draw(st.booleans()):
        # Not if it was damaged already: then there is nothing to change a part of.
        with suppress(ValueError, RecursionError):
            return as_text(draw(changed(json.loads(before))))
        return draw(damaged(before)).decode("utf-8", "replace")
    return draw(
        st.none()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats()
        | st.binary(max_size=30)
        | TEXTS.filter(lambda text: text.isascii() or text.isprintable())
    )


@fuzz_slowly
@given(st.data())
def test_rows(data: st.DataObject) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        path.write_bytes(DATABASE)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.text_factory = bytes
            for _ in range(data.draw(st.integers(1, 3))):
                table, column = data.draw(st.sampled_from(CELLS))
                rows = connection.execute(f"SELECT seq, {column} FROM {table}").fetchall()
                seq, before = data.draw(st.sampled_from(rows))
                value = data.draw(cells(before))
                # A value that the table itself does not take cannot be there either.
                with suppress(sqlite3.IntegrityError):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? WHERE seq = ?", (value, seq)
                    )
        put_through("rows of a store", lambda: read(path), NotTaken, StoreError, writes=True)
