"""Files that are no JSON-lines store, and stores that were damaged, cut off or edited."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import platformdirs
import pytest

from lmstrix.errors import StoreError
from lmstrix.stores._jsonl_lines import HEADER
from lmstrix.stores.jsonl import JsonlStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[JsonlStore]:
    store = JsonlStore(path)
    try:
        yield store
    finally:
        await store.aclose()


async def indices(path: Path) -> tuple[list[int], tuple[str, ...]]:
    """Indices of the trials under ``key``, and the warnings of a store that was just opened."""
    async with opened(path) as store:
        found = await store.unfinished("key")
        return [trial.index for trial in found.trials] if found else [], store.warnings


async def fill(path: Path, count: int = 3) -> str:
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        for index in range(count):
            await store.append_trial(new.id, sample_trial(index=index))
    return new.id


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def content_of(path: Path) -> bytes:
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lmstrix.jsonl"


@pytest.fixture
def anyio_backend() -> str:
    """The work is done in threads: one event loop is enough."""
    return "asyncio"


def remove(path: Path) -> None:
    path.unlink()


def aside(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{path.name}.set-aside-*"))


def test_the_default_is_in_the_users_data_folder() -> None:
    expected = platformdirs.user_data_path("lmstrix") / "lmstrix.jsonl"
    assert JsonlStore().location == str(expected)


async def test_people_can_read_it(path: Path) -> None:
    identity = await fill(path, count=1)
    async with opened(path) as store:
        await store.mark_load(identity, 8192)
        await store.clear_load(identity)
        await store.finish(identity, sample_report())
    lines = [json.loads(line) for line in content_of(path).splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds == ["store", "begin", "trial", "load", "load", "report"]
    assert all(line.get("measurement", identity) == identity for line in lines)
    assert lines[2]["trial"]["reply"] == sample_trial().reply


@pytest.mark.parametrize(
    "content",
    [
        b"x\n",
        b"hello",
        b"\0" * 100,
        b'{"llms": {}}\n',
        b"[1]\n" * 1000,
        b'{"kind": "store", "format": "other", "version": 1}\n',
        b'{"kind": "store", "format": "lmstrix", "version": "1"}\n',
        b'{"kind": "store", "format": "lmstrix", "version": 0}\n',
        HEADER[:-1] + b"x",
        b"x" * 10_000 + b"\n" + HEADER,
        b"\xef\xbb\xbf" + HEADER,
    ],
)
async def test_a_file_that_is_no_store_is_set_aside(path: Path, content: bytes) -> None:
    put(path, content)
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        assert await store.unfinished("key") == new
        (warning,) = store.warnings
    (kept,) = aside(path)
    assert content_of(kept) == content
    assert str(path) in warning
    assert kept.name in warning


@pytest.mark.parametrize("length", range(0, len(HEADER), 13))
async def test_a_first_line_that_was_cut_off_is_no_loss(path: Path, length: int) -> None:
    put(path, HEADER[:length])
    await fill(path)
    assert await indices(path) == ([0, 1, 2], ())
    assert aside(path) == []


async def test_a_newer_store_is_refused_and_left_alone(path: Path) -> None:
    content = HEADER.replace(b"1", b"2") + b'{"kind": "hologram"}\n'
    put(path, content)
    async with opened(path) as store:
        with pytest.raises(StoreError, match="newer") as caught:
            await store.begin("key", sample_model())
        assert "Update" in caught.value.hint
    assert content_of(path) == content
    assert aside(path) == []


async def test_a_line_that_was_cut_off_is_set_apart(path: Path) -> None:
    await fill(path)
    whole = content_of(path)
    last = whole.rstrip(b"\n").rindex(b"\n") + 1
    # At a few places of the last line; its last byte is the newline.
    for length in (last + 1, last + 40, last + 200, len(whole) - 2):
        put(path, whole[:length])
        found, warnings = await indices(path)
        assert found == [0, 1]
        assert len(warnings) == 1
        assert "cut off" in warnings[0]
        # Said once. What was there of it is still there, and what follows has its own line.
        assert await indices(path) == ([0, 1], ())
        assert content_of(path).startswith(whole[:length] + b"\n")
        async with opened(path) as store:
            stored = await store.unfinished("key")
            assert stored is not None
            await store.append_trial(stored.id, sample_trial(index=7))
        assert await indices(path) == ([0, 1, 7], ())


async def test_a_line_without_its_end_of_line_counts(path: Path) -> None:
    await fill(path)
    put(path, content_of(path)[:-1])
    assert await indices(path) == ([0, 1, 2], ())
    assert content_of(path).endswith(b"}}\n")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"null",
        b"\xff\xfe\x00",
        b'{"kind": "hologram"}',
        b'{"kind": "trial", "measurement": "unknown", "trial": {}}',
        b'{"kind": "trial", "measurement": "' + b"0" * 32 + b'", "trial": {}}',
        b'{"kind": "begin", "measurement": "x"}',
        b'{"kind": "load", "measurement": "x", "context_length": 1e999}',
        b"[" * 100_000,
        b'{"kind": "cost", "measurement": "x", "cost": {"loads": ' + b"9" * 5000 + b"}}",
    ],
)
async def test_a_line_that_cannot_be_read_is_left_out(path: Path, line: bytes) -> None:
    await fill(path)
    lines = content_of(path).splitlines(keepends=True)
    put(path, b"".join([*lines[:3], line + b"\n", *lines[3:]]))
    async with opened(path) as store:
        for _ in range(2):
            found = await store.unfinished("key")
            assert found is not None
            assert [trial.index for trial in found.trials] == [0, 1, 2]
            (warning,) = store.warnings
            assert warning.startswith("1 line was left out")
    assert aside(path) == []


async def test_a_trial_that_cannot_be_read_is_left_out(path: Path) -> None:
    await fill(path)
    put(path, content_of(path).replace(b'"index": 1,', b'"index": "1",'))
    found, warnings = await indices(path)
    assert found == [0, 2]
    assert warnings[0].startswith("1 line was left out")


async def test_an_older_report_stands_in_for_one_that_cannot_be_read(path: Path) -> None:
    async with opened(path) as store:
        for true_context in (1111, 2222):
            new = await store.begin("key", sample_model())
            await store.finish(new.id, sample_report(true_context=true_context))
    put(path, content_of(path).replace(b'"true_context": 2222', b'"true_context": "2222"'))
    async with opened(path) as store:
        assert [stored.report.true_context for stored in await store.reports()] == [1111]
        assert [summary.true_context for summary in await store.summaries()] == [1111]
        assert len(store.warnings) == 1
        kept = (await store.contents()).measurements
        assert [(k.report is None, k.replaced) for k in kept] == [(False, False), (True, True)]


async def test_a_file_edited_by_hand_is_read_again(path: Path) -> None:
    async with opened(path) as store:
        new = await store.begin("key", sample_model())
        await store.append_trial(new.id, sample_trial(index=1))
        # As an editor does it: another file under the same name.
        other = path.with_name("edited")
        put(other, content_of(path).replace(b'"index": 1,', b'"index":  5,'))
        other.rename(path)
        await store.append_trial(new.id, sample_trial(index=2))
        found = await store.unfinished("key")
        assert found is not None
        assert [trial.index for trial in found.trials] == [5, 2]
        remove(path)
        assert await store.unfinished("key") is None
        with pytest.raises(StoreError, match="no such measurement"):
            await store.append_trial(new.id, sample_trial(index=3))


async def test_a_file_rewritten_in_place_is_read_again(path: Path) -> None:
    async with opened(path) as store:
        await store.begin("key", sample_model())
        other = path.with_name("other")
        new = await fill(other, count=4)
        # The same file to the system, and larger than before.
        put(path, content_of(other))
        found = await store.unfinished("key")
        assert found is not None
        assert (found.id, len(found.trials)) == (new, 4)
        assert store.warnings == ()


async def test_a_line_longer_than_any_is_left_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(path)
    put(path, content_of(path) + b"x" * 10_000 + b"\n")
    monkeypatch.setattr("lmstrix.stores._jsonl_file.MAX_LINE", 4096)
    found, warnings = await indices(path)
    assert found == [0, 1, 2]
    assert warnings[0].startswith("1 line was left out")
