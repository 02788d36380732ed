"""The exported document, and what is refused as one."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from lmstrix.errors import StoreError
from lmstrix.stores.export import StoreContents, dump_contents, load_contents
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial


async def _sample() -> StoreContents:
    store = SqliteStore(":memory:")
    for key in ("a", "b"):
        new = await store.begin(key, sample_model(key=key))
        await store.append_trials(new.id, [sample_trial()])
        await store.finish(new.id, sample_report())
    new = await store.begin("c", sample_model(key="c"))
    await store.mark_load(new.id, 65536)
    return await store.contents()


@pytest.fixture
def document() -> dict[str, Any]:
    """An export as plain JSON."""
    return json.loads(dump_contents(anyio.run(_sample)))


def test_a_document_that_was_written_is_read(document: dict[str, Any]) -> None:
    assert list(document) == ["format", "schema_version", "measurements"]
    assert (document["format"], document["schema_version"]) == ("lmstrix-store", 1)
    document["comment"] = document["measurements"][0]["comment"] = "unknown keys are left out"
    contents = load_contents(json.dumps(document))
    assert [kept.key for kept in contents.measurements] == ["a", "b", "c"]
    assert contents.measurements[2].deaths == (65536,)
    assert contents == load_contents(dump_contents(contents))


def test_a_newer_document_is_refused(document: dict[str, Any]) -> None:
    newer: dict[str, object] = {"format": document["format"], "schema_version": 2, "runs": []}
    document["measurements"][0]["report"]["schema_version"] = 99
    for text in (json.dumps(newer), json.dumps(document)):
        with pytest.raises(StoreError, match="newer") as caught:
            load_contents(text)
        assert "Update" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        *("", "null", "[]", "{}", '{"llms": {}}', '{"format": "lmstrix-store"}'),
        '{"format": "other", "schema_version": 1, "measurements": []}',
        '{"format": "lmstrix-store", "schema_version": 1e999, "measurements": []}',
        '{"format": "lmstrix-store", "schema_version": 1, "measurements": {}}',
        *("[" * 100_000, "9" * 10_000, "\udcff"),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(StoreError, match="not an export") as caught:
        load_contents(text)
    assert caught.value.hint
    assert len(str(caught.value)) < 500


WRONG: dict[str, list[object]] = {
    "id": ["../../etc/passwd", "", "F" * 32, "0" * 31 + "\n"],
    "deaths": [[0], [-1], [2**63], [True]],
    "started_at": ["2026-01-02T03:04:05", 5],
    "trials": [["x"], "abc"],
    "report": ["none"],
    "replaced": ["no"],
    "cost": [{"seconds": float("nan")}],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_one_wrong_value_refuses_all(document: dict[str, Any], name: str, value: object) -> None:
    document["measurements"][1][name] = value
    with pytest.raises(StoreError, match="not an export"):
        load_contents(json.dumps(document))


def test_the_place_of_an_impossible_value_is_named(document: dict[str, Any]) -> None:
    document["measurements"][1]["report"]["bracket"] = [5, 1]
    with pytest.raises(StoreError, match=r"measurements\[1\]\.report\.bracket: "):
        load_contents(json.dumps(document))


def test_an_id_may_be_there_once(document: dict[str, Any]) -> None:
    document["measurements"][1]["id"] = document["measurements"][0]["id"]
    with pytest.raises(StoreError, match="same id"):
        load_contents(json.dumps(document))
