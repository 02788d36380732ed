"""``lmstrix.json`` of an earlier version: anybody may have edited it."""

from __future__ import annotations

import anyio
from fuzz_counts import put_through
from fuzz_stores import check_contents
from fuzz_values import fuzz, texts_of
from hypothesis import given
from lmstrix.stores.memory import MemoryStore
from lmstrix.stores.registry import parse_registry

from lmstrix.errors import StoreError
from lmstrix.stores.export import StoreContents

REGISTRY = {
    "path": "/home/user/.lmstudio",
    "llms": {
        name: {
            "id": name,
            "path": f"publisher/{name}.gguf",
            "size_bytes": 5000,
            "ctx_in": 131_072,
            "tested_max_context": 31_744,
            "loadable_max_context": None,
            "last_known_good_context": 31_744,
            "last_known_bad_context": 65_536,
            "context_test_status": "completed",
            "context_test_date": "2025-08-14T14:23:11.042519",
        }
        for name in ("a", "b")
    },
}


@fuzz
@given(texts_of(REGISTRY))
def test_registries(text: str) -> None:
    registry = put_through("registry of version 1", lambda: parse_registry(text), StoreError)
    if registry is None:
        return
    contents = StoreContents(imported=registry.results)
    check_contents(contents)
    store = MemoryStore()
    assert anyio.run(store.merge, contents).imported == len(registry.results)
    anyio.run(store.imported)
