from __future__ import annotations

import pytest

from lmstrix.ports import Store
from lmstrix.stores.archive import Archive
from lmstrix.stores.memory import MemoryStore
from lmstrix.testing.contracts.archive import ArchiveContract
from lmstrix.testing.contracts.store import StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestMemoryArchive(ArchiveContract):
    @pytest.fixture
    def archive(self) -> Archive:
        return MemoryStore()

    @pytest.fixture
    def other(self) -> Archive:
        return MemoryStore()


def test_it_is_nowhere() -> None:
    assert MemoryStore().location == ""
