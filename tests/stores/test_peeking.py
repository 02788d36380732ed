"""A look at a store's file sees what the store says, and changes nothing."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from lmstrix.ports import Store
from lmstrix.stores.jsonl import JsonlStore
from lmstrix.stores.peeking import Open, foreign, peek
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: what is tested here has none."""
    return "asyncio"


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def fill(store: Store) -> None:
    """One finished measurement, one begun twice, one begun once."""
    done = await store.begin("one", sample_model(key="a"))
    await store.append_trial(done.id, sample_trial())
    await store.finish(done.id, sample_report(model=sample_model(key="a")))
    await store.begin("two", sample_model(key="b"))
    await store.begin("two", sample_model(key="b"))
    await store.begin("three", sample_model(key="c'\ud800"))


@pytest.mark.parametrize(("name", "kind"), [("s.sqlite3", SqliteStore), ("s.jsonl", JsonlStore)])
async def test_it_sees_what_the_store_says(
    tmp_path: Path, name: str, kind: type[SqliteStore | JsonlStore]
) -> None:
    path = tmp_path / name
    store = kind(path)
    await fill(store)
    while_open = peek(path)
    expected = [model.key for model in await store.unfinished_models()]
    await store.aclose()
    before = everything(tmp_path)
    found = peek(path)
    assert everything(tmp_path) == before
    for seen in (while_open, found):
        assert (seen.exists, seen.reports, seen.trouble) == (True, 1, "")
        assert seen.model_keys == ("c'\ud800", "b", "a")
        assert [one.model_key for one in seen.unfinished] == expected
        assert seen.unfinished[-1] == Open(model_key="b", key="two")
        assert seen.size_bytes > 0


def test_no_file_is_none_yet(tmp_path: Path) -> None:
    found = peek(tmp_path / "none.sqlite3")
    assert (found.exists, found.trouble) == (False, "")
    assert not list(tmp_path.iterdir())


def test_what_is_no_store_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 200)
    assert "no store" in peek(path).trouble
    assert "no store" in foreign(path)
    assert peek(tmp_path).trouble  # a folder
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    assert "damaged" in peek(path).trouble
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert "another program" in peek(other).trouble
    assert "another program" in foreign(other)
    assert sorted(everything(tmp_path)) == ["file", "other.db"]


@pytest.mark.parametrize("begin", [b"", b'{"kind": "sto', b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_store_that_is_being_made_or_damaged_is_not_foreign(tmp_path: Path, begin: bytes) -> None:
    path = tmp_path / "store"
    assert foreign(path) == ""
    path.write_bytes(begin)
    assert foreign(path) == ""


def test_a_database_without_tables_yet_is_not_foreign(tmp_path: Path) -> None:
    """Another process may be about to make them."""
    path = tmp_path / "new.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        assert path.stat().st_size > 0
        assert foreign(path) == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "regular file" in peek(pipe).trouble
    assert foreign(pipe) == ""
