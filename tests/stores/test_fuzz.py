"""Everything that a store reads may be anybody's: no crash, no hang, no write elsewhere.

``LMSTRIX_TEST_FUZZ`` says how many inputs each parser gets; without it, a few.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import anyio
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lmstrix.errors import StoreError
from lmstrix.models import Cause, Cost, Observation
from lmstrix.stores._files import one_at_a_time
from lmstrix.stores._jsonl_lines import BeginLine, TrialLine
from lmstrix.stores._jsonl_log import Log
from lmstrix.stores._sqlite_file import open_database
from lmstrix.stores._sqlite_merge import merge
from lmstrix.stores._sqlite_rows import RowReader
from lmstrix.stores._sqlite_schema import create_tables
from lmstrix.stores.archive import ImportedResult, StoreContents
from lmstrix.stores.exchange import dump_contents, load_contents
from lmstrix.stores.memory import MemoryStore
from lmstrix.stores.registry import parse_registry
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

INPUTS = int(os.environ.get("LMSTRIX_TEST_FUZZ", "60"))

fuzz = settings(
    max_examples=INPUTS,
    deadline=None,
    database=None,
    derandomize="LMSTRIX_TEST_FUZZ" not in os.environ,
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
)

TEXTS = st.sampled_from(
    [
        "",
        "../../etc/passwd",
        "/dev/null",
        "C:\\Windows\\system32",
        "file:///etc/passwd?mode=rwc",
        "nul\0inside",
        "\x1b[2J\x07\r\n\u2028\u202e",
        "\udcff",
        "x" * 20_000,
        "'; DROP TABLE trials; --",
        "0" * 32,
        "9" * 5000,
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-01-02T03:04:05",
        "NaN",
    ]
)
NUMBERS = st.sampled_from([0, -1, 2**31, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400]) | st.floats()
SCALARS = st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS | st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, value: object) -> object:
    """A JSON value of which a few parts were replaced, removed, doubled or made deep."""
    for _ in range(draw(st.integers(1, 3))):
        value = _change(draw, value)
    return value


def _change(draw: st.DrawFn, value: object) -> object:
    go_on = draw(st.integers(0, 6)) > 0
    if isinstance(value, dict) and value and go_on:
        return _change_object(draw, cast("dict[str, object]", value))
    if isinstance(value, list) and value and go_on:
        items = cast("list[object]", value)
        at = draw(st.integers(0, len(items) - 1))
        if draw(st.integers(0, 5)) == 0:
            return [*items, items[at]]
        return [*items[:at], _change(draw, items[at]), *items[at + 1 :]]
    if draw(st.integers(0, 30)) == 0:
        return deep(draw(st.sampled_from([20, 900, 3000])))
    return draw(VALUES)


def _change_object(draw: st.DrawFn, fields: dict[str, object]) -> object:
    name = draw(st.sampled_from(sorted(fields)))
    kept = {key: item for key, item in fields.items() if key != name}
    what = draw(st.integers(0, 9))
    if what == 0:
        return kept
    if what == 1:
        return {**kept, draw(TEXTS): fields[name]}
    return {**kept, name: _change(draw, fields[name])}


def deep(levels: int) -> object:
    value: object = []
    for _ in range(levels):
        value = [value]
    return value


def as_text(value: object) -> str:
    """JSON with NaN and the like; nesting beyond what the writer can do is written by hand."""
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        return '{"deep": ' + "[" * 50_000 + "]" * 50_000 + "}"


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which a few were cut off, overwritten, doubled or put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        stop = min(len(content), start + draw(st.integers(0, 60)))
        part = draw(
            st.binary(max_size=60)
            | st.just(b"")
            | st.just(content[start:stop] * 2)
            | st.sampled_from([b"\n", b"\0" * 50, b"\xff\xfe", b"[" * 2000, b"1e999", b"NaN"])
        )
        content = content[:start] + part + content[stop:]
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


async def _contents() -> StoreContents:
    store = MemoryStore()
    for key in ("a", "b", "a"):
        new = await store.begin(key, sample_model(key=key))
        for index in range(2):
            await store.append_trial(new.id, sample_trial(index=index))
        await store.finish(new.id, sample_report())
    new = await store.begin("key", sample_model())
    await store.append_trial(new.id, sample_trial())
    await store.append_failure(new.id, Observation(length_tokens=1, failure=Cause.LOAD_FAILED))
    await store.save_cost(new.id, Cost(loads=2, seconds=2.5))
    await store.mark_load(new.id, 65536)
    moment = sample_report().finished_at
    result = ImportedResult(
        source="lmstrix.json", model_key="m", tested_context=1, tested_at=moment
    )
    await store.merge(StoreContents(imported=(result,)))
    return await store.contents()


CONTENTS = anyio.run(_contents)
DOCUMENT = json.loads(dump_contents(CONTENTS))
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


REGISTRY_TEXTS = changed(REGISTRY).map(as_text) | damaged(json.dumps(REGISTRY).encode()).map(
    lambda content: content.decode("utf-8", "surrogateescape")
)
EXPORT_TEXTS = changed(DOCUMENT).map(as_text) | damaged(json.dumps(DOCUMENT).encode()).map(
    lambda content: content.decode("utf-8", "surrogateescape")
)


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about a power cut."""

    def fsync(_: int) -> None:
        return None

    monkeypatch.setattr("os.fsync", fsync)


def check_contents(contents: StoreContents) -> None:
    """What a store gives out, every store takes."""
    assert load_contents(dump_contents(contents)) == contents


@fuzz
@given(REGISTRY_TEXTS)
def test_registries(text: str) -> None:
    try:
        registry = parse_registry(text)
    except StoreError:
        event("refused")
        return
    event("read")
    contents = StoreContents(imported=registry.results)
    check_contents(contents)
    store = MemoryStore()
    assert anyio.run(store.merge, contents).imported == len(registry.results)
    anyio.run(store.imported)


async def _merged(contents: StoreContents) -> StoreContents:
    store = MemoryStore()
    await store.merge(CONTENTS)
    await store.merge(contents)
    return await store.contents()


@fuzz
@given(EXPORT_TEXTS)
def test_exports(text: str) -> None:
    try:
        contents = load_contents(text)
    except StoreError:
        event("refused")
        return
    event("read")
    check_contents(contents)
    try:
        after = anyio.run(_merged, contents)
    except StoreError:
        return
    check_contents(after)
    # Nothing that was there is lost, whatever was merged.
    kept = {measurement.id: measurement for measurement in after.measurements}
    for before in CONTENTS.measurements:
        now = kept[before.id]
        assert now.trials[: len(before.trials)] == before.trials
        assert before.report is None or now.report == before.report


def _lines() -> list[object]:
    # A folder of its own, and gone before the first test.
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        log = Log(path)
        with one_at_a_time(path):
            log.catch_up()
            log.merge(CONTENTS)
        return [json.loads(line) for line in path.read_bytes().splitlines()]


LINES = _lines()


@st.composite
def jsonl_files(draw: st.DrawFn) -> bytes:
    """A store of which some lines were changed, and perhaps some bytes."""
    lines = [
        draw(changed(line)) if draw(st.integers(0, 5)) == 0 and number else line
        for number, line in enumerate(LINES)
    ]
    if draw(st.integers(0, 5)) == 0:
        lines = [lines[0], *draw(st.permutations(lines[1:]))]
    content = "".join(f"{as_text(line)}\n" for line in lines).encode("utf-8", "surrogatepass")
    return draw(damaged(content)) if draw(st.booleans()) else content


def check_log(path: Path) -> None:
    """Everything that reads the store, and two writes, which are there afterwards."""
    log = Log(path)
    line = BeginLine(
        measurement="e" * 32, key="new", model=sample_model(), started_at=datetime.now(UTC)
    )
    with one_at_a_time(path):
        log.catch_up()
        log.unfinished("key")
        log.unfinished_models()
        reports = log.reports()
        assert len({stored.key for stored in reports}) == len(reports)
        check_contents(log.contents())
        with suppress(StoreError):
            log.merge(CONTENTS)
        log.add(line, TrialLine(measurement="e" * 32, trial=sample_trial()))
    again = Log(path)
    with one_at_a_time(path):
        again.catch_up()
        found = again.unfinished("new")
        assert found is not None
        assert found.trials == (sample_trial(),)
        assert all(isinstance(note, str) for note in again.warnings)


@fuzz
@given(jsonl_files())
def test_jsonl_files(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        path.write_bytes(content)
        try:
            check_log(path)
        except StoreError:
            # A version that is newer, by accident: left alone. Nothing else is refused.
            version = json.loads(content.splitlines()[0])["version"]
            assert version > 1
            assert path.read_bytes() == content
        names = {entry.name for entry in Path(folder).iterdir()}
        kept = {name for name in names if name.startswith("store.set-aside-")}
        event("set aside" if kept else "read")
        assert names - kept == {"store", "store.lock"}
        assert all(Path(folder, name).read_bytes() == content for name in kept)


def use_rows(connection: sqlite3.Connection) -> None:
    """Everything that reads a store's rows, and a merge."""
    rows = RowReader()
    rows.unfinished(connection, "key")
    rows.unfinished_models(connection)
    reports = rows.reports(connection)
    assert len({stored.key for stored in reports}) == len(reports)
    rows.summaries(connection)
    rows.imported(connection)
    check_contents(
        StoreContents(measurements=tuple(rows.kept(connection)), imported=rows.imported(connection))
    )
    with suppress(StoreError):
        merge(connection, rows, CONTENTS)
    event("rows left out" if rows.skipped else "read")


def _filled() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.text_factory = bytes
    create_tables(connection)
    merge(connection, RowReader(), CONTENTS)
    return connection


CELLS = [
    *(("measurements", c) for c in ("id", "key", "model", "started_at", "cost", "report")),
    *(("measurements", c) for c in ("replaced", "finished")),
    *((table, "body") for table in ("trials", "failures", "summaries", "imported")),
    ("loads", "context_length"),
    ("trials", "measurement"),
]


@st.composite
def cells(draw: st.DrawFn, before: object) -> object:
    """What SQLite can hold in one place."""
    if isinstance(before, bytes) and draw(st.booleans()):
        # Not where it was damaged already: then there is nothing to change a part of.
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


@fuzz
@given(st.data())
def test_sqlite_rows(data: st.DataObject) -> None:
    connection = CONNECTION
    connection.execute("SAVEPOINT fuzz")
    try:
        for _ in range(data.draw(st.integers(1, 3))):
            table, column = data.draw(st.sampled_from(CELLS))
            rows = connection.execute(f"SELECT rowid, {column} FROM {table}").fetchall()
            row, before = data.draw(st.sampled_from(rows))
            value = data.draw(cells(before))
            # What the table itself does not take cannot be there either.
            with suppress(sqlite3.IntegrityError):
                connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))
        use_rows(connection)
    finally:
        connection.execute("ROLLBACK TO fuzz")
        connection.execute("RELEASE fuzz")


CONNECTION = _filled()


def _database() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        connection, _ = open_database(path)
        with closing(connection):
            merge(connection, RowReader(), CONTENTS)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("VACUUM")
        return path.read_bytes()


DATABASE = _database()


@fuzz
@given(damaged(DATABASE))
def test_sqlite_files(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        path.write_bytes(content)
        try:
            connection, notes = open_database(path)
            with closing(connection):
                use_rows(connection)
        except (StoreError, sqlite3.Error, OSError, ValueError):
            notes = ()  # The store makes a `StoreError` of each.
        names = {entry.name for entry in Path(folder).iterdir()}
        kept = {name for name in names if name.startswith("store.set-aside-")}
        event("set aside" if kept else "read")
        assert names - kept <= {"store", "store.lock", "store-wal", "store-shm", "store-journal"}
        assert not notes or kept
        assert all(Path(folder, name).read_bytes() == content for name in kept)
