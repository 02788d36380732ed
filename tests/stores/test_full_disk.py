"""No space left, no right to write, no file at all: a clear error, and nothing is lost."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import pytest

from lmstrix.errors import StoreError
from lmstrix.stores.archive import StoreContents
from lmstrix.stores.jsonl import JsonlStore
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

STORES = {"sqlite": SqliteStore, "jsonl": JsonlStore}

pytestmark = pytest.mark.parametrize("kind", sorted(STORES))


@pytest.fixture
def anyio_backend() -> str:
    """The work is done in threads: one event loop is enough."""
    return "asyncio"


@asynccontextmanager
async def opened(kind: str, path: Path) -> AsyncGenerator[SqliteStore | JsonlStore]:
    store = STORES[kind](path)
    try:
        yield store
    finally:
        await store.aclose()


async def fill(kind: str, path: Path, begun: str, count: int) -> list[int]:
    """Append until the store says that it is full; the acknowledged ones."""
    acknowledged: list[int] = []
    async with opened(kind, path) as store:
        for index in range(count):
            try:
                await store.append_trial(begun, sample_trial(index=index, reply="x" * 2000))
            except StoreError as error:
                said = f"{error} {error.hint}"
                break
            acknowledged.append(index)
        else:
            pytest.fail("the disk was never full")
    assert str(path) in said
    assert "space" in said
    return acknowledged


async def found(kind: str, path: Path) -> list[int]:
    async with opened(kind, path) as store:
        stored = await store.unfinished("key")
        assert stored is not None
        assert store.warnings == ()
        return [trial.index for trial in stored.trials]


async def begin(kind: str, path: Path) -> str:
    async with opened(kind, path) as store:
        return (await store.begin("key", sample_model())).id


def names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def make_room(path: Path) -> None:
    (path.parent / "ballast").unlink()


async def test_a_full_disk_is_a_store_error_and_nothing_is_lost(
    kind: str, small_disk: Path
) -> None:
    path = small_disk / "store"
    begun = await begin(kind, path)
    (small_disk / "ballast").write_bytes(b"x" * 60_000)
    acknowledged = await fill(kind, path, begun, 500)
    assert acknowledged
    make_room(path)
    assert await found(kind, path) == acknowledged
    async with opened(kind, path) as store:
        await store.append_trial(begun, sample_trial(index=1000))
        await store.finish(begun, sample_report())
        assert len(await store.reports()) == 1


@contextmanager
def largest_file(size: int) -> Generator[None]:
    """No file of this process may grow beyond `size` bytes."""
    if sys.platform == "win32":
        pytest.skip("there are no limits for a process")
    import resource  # noqa: PLC0415 - not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_file_that_may_not_grow_is_a_store_error(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    begun = await begin(kind, path)
    with largest_file(path.stat().st_size + 30_000):
        acknowledged = await fill(kind, path, begun, 500)
    assert await found(kind, path) == acknowledged
    async with opened(kind, path) as store:
        await store.append_trial(begun, sample_trial(index=1000))
    assert await found(kind, path) == [*acknowledged, 1000]


async def test_a_merge_that_does_not_fit_changes_nothing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "store"
    begun = await begin(kind, path)
    async with opened(kind, path) as store:
        (mine,) = (await store.contents()).measurements
    trials = tuple(sample_trial(index=index, reply="x" * 2000) for index in range(500))
    more = StoreContents(
        measurements=(attrs.evolve(mine, id="f" * 32, trials=trials, replaced=True),)
    )
    with largest_file(path.stat().st_size + 100_000):
        async with opened(kind, path) as store:
            with pytest.raises(StoreError):
                await store.merge(more)
    async with opened(kind, path) as store:
        assert (await store.contents()).measurements == (mine,)
        assert store.warnings == ()
        assert (await store.merge(more)).trials == 500
        await store.append_trial(begun, sample_trial())


async def test_a_read_only_folder_is_a_store_error(kind: str, read_only_folder: Path) -> None:
    async with opened(kind, read_only_folder / "store") as store:
        with pytest.raises(StoreError) as caught:
            await store.begin("key", sample_model())
        assert "folder" in caught.value.hint


async def test_a_folder_in_a_file_is_a_store_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    async with opened(kind, tmp_path / "file" / "store") as store:
        with pytest.raises(StoreError) as caught:
            await store.begin("key", sample_model())
        assert caught.value.hint


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such files")
@pytest.mark.parametrize("what", ["folder", "pipe", "device"])
async def test_what_is_no_file_is_refused_and_left_alone(
    kind: str, tmp_path: Path, what: str
) -> None:
    path = tmp_path / "store"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/null")
    async with opened(kind, path) as store:
        with pytest.raises(StoreError, match="not a file"):
            await store.begin("key", sample_model())
    assert names_in(tmp_path) == ["store"]
    assert "null.lock" not in names_in(Path("/dev"))


async def test_a_lock_that_is_none_is_a_store_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "store.lock").write_text("somebody's notes " * 100)
    async with opened(kind, tmp_path / "store") as store:
        with pytest.raises(StoreError, match=r"store\.lock is in the way"):
            await store.begin("key", sample_model())
    assert (tmp_path / "store.lock").read_text().startswith("somebody's notes")


async def test_a_store_of_the_other_kind_is_refused_and_left_alone(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "store"
    (other,) = set(STORES) - {kind}
    await begin(other, path)
    async with opened(kind, path) as store:
        with pytest.raises(StoreError, match=f"of the kind {other}") as caught:
            await store.begin("key", sample_model())
        assert other in caught.value.hint
    assert await found(other, path) == []
