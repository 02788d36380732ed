from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lmstrix.ports import Store
from lmstrix.stores.archive import Archive
from lmstrix.stores.jsonl import JsonlStore
from lmstrix.testing.contracts.archive import ArchiveContract
from lmstrix.testing.contracts.store import DurableStoreContract


@asynccontextmanager
async def opened(path: Path) -> AsyncGenerator[JsonlStore]:
    store = JsonlStore(path)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "lmstrix.jsonl"


class TestJsonlStore(DurableStoreContract):
    @pytest.fixture
    async def store(self, path: Path) -> AsyncIterator[Store]:
        async with opened(path) as store:
            yield store

    @pytest.fixture
    def open_store(self, path: Path) -> Callable[[], Store]:
        return lambda: JsonlStore(path)


class TestJsonlArchive(ArchiveContract):
    @pytest.fixture
    async def archive(self, path: Path) -> AsyncIterator[Archive]:
        async with opened(path) as store:
            yield store

    @pytest.fixture
    async def other(self, path: Path) -> AsyncIterator[Archive]:
        async with opened(path.with_name("other")) as store:
            yield store
