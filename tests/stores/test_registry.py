"""The registry of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from lmstrix.errors import StoreError
from lmstrix.stores.archive import ImportedResult
from lmstrix.stores.registry import parse_registry, read_registry

ENTRY: dict[str, Any] = {
    "id": "publisher/model-8b",
    "path": "publisher/model-8b/model-8b-Q4_K_M.gguf",
    "size_bytes": 4_920_753_152,
    "ctx_in": 131_072,
    "ctx_out": 4096,
    "has_tools": True,
    "has_vision": False,
    "tested_max_context": 31_744,
    "context_test_status": "completed",
    "context_test_date": "2025-08-14T14:23:11.042519+00:00",
    "ttft_seconds": 0.4,
    "tps": 38.7,
    "description": None,
    "keywords": [],
    "last_known_good_context": 31_744,
    "last_known_bad_context": None,
    "loadable_max_context": None,
    "failed": False,
    "error_msg": "",
}


def only(entry: object, name: str = "filed/under") -> ImportedResult:
    (result,) = parse_registry(json.dumps({"llms": {name: entry}})).results
    return result


def test_what_is_useful_is_taken() -> None:
    result = only(ENTRY)
    assert result.tested_at is not None
    assert result.tested_at.isoformat() == "2025-08-14T14:23:11.042519+00:00"
    assert attrs.evolve(result, tested_at=None) == ImportedResult(
        source="lmstrix.json",
        model_key="publisher/model-8b",
        model_path="publisher/model-8b/model-8b-Q4_K_M.gguf",
        size_bytes=4_920_753_152,
        declared_context=131_072,
        tested_context=31_744,
        last_good_context=31_744,
        status="completed",
    )


def test_a_time_without_offset_was_local() -> None:
    result = only({**ENTRY, "context_test_date": "2025-08-14T14:23:11"})
    assert result.tested_at is not None
    assert result.tested_at.utcoffset() is not None
    assert result.tested_at.replace(tzinfo=None).isoformat() == "2025-08-14T14:23:11"


def test_without_an_id_the_name_counts() -> None:
    assert only({**ENTRY, "id": None}).model_key == "filed/under"
    assert only({**ENTRY, "id": None, "model_id": "m"}).model_key == "m"


def test_a_failed_test_is_kept_as_what_it_says() -> None:
    failed = {**ENTRY, "tested_max_context": None, "last_known_good_context": None}
    result = only({**failed, "last_known_bad_context": 31_744, "context_test_status": "failed"})
    assert (result.tested_context, result.last_bad_context) == (None, 31_744)
    assert result.status == "failed"


def test_an_untested_model_says_nothing() -> None:
    registry = parse_registry(
        json.dumps({"path": "/x", "llms": {"a": {"id": "a", "ctx_in": 4096}, "b": ENTRY}})
    )
    assert (len(registry.results), registry.untested, registry.skipped) == (1, 1, 0)


@pytest.mark.parametrize("entry", [None, [], "x", 5, {}, [ENTRY]])
def test_an_entry_that_is_no_object_is_skipped(entry: object) -> None:
    registry = parse_registry(json.dumps({"llms": {"a": entry, "b": ENTRY}}))
    assert (len(registry.results), registry.skipped) == (1, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ctx_in", "131072"),
        ("ctx_in", True),
        ("ctx_in", -5),
        ("ctx_in", 0),
        ("ctx_in", 8192.5),
        ("ctx_in", 10**30),
        ("path", ["/etc/passwd"]),
        ("path", "x" * 5000),
        ("path", "\udcff"),
        ("context_test_date", "yesterday"),
        ("context_test_date", 1e300),
        ("context_test_date", "0001-01-01T00:00:00"),
        ("context_test_status", "\x1b[31mhacked"),
    ],
)
def test_a_value_that_makes_no_sense_is_left_out(field: str, value: object) -> None:
    result = only({**ENTRY, field: value})
    assert result.tested_context == 31_744
    name = {
        "ctx_in": "declared_context",
        "path": "model_path",
        "context_test_date": "tested_at",
        "context_test_status": "status",
    }[field]
    assert not getattr(result, name) or value == "0001-01-01T00:00:00"


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "{}", '{"llms": []}', '{"llms": {"a": NaN}}', "[" * 100_000],
)
def test_what_is_no_registry_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match="no registry") as caught:
        parse_registry(text)
    assert "lmstrix.json" in caught.value.hint


def test_it_is_read_from_a_file_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "lmstrix.json"
    content = json.dumps({"llms": {"a": ENTRY}}).encode()
    file.write_bytes(content)
    assert len(read_registry(file).results) == 1
    assert file.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["lmstrix.json"]
