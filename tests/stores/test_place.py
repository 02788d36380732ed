"""A store whose file goes away while it is in use, and one that may only be read."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lmstrix import LMStrix
from lmstrix.errors import StoreError
from lmstrix.events import Event, MeasurementFinished, TrialFinished
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model, sample_report, sample_trial
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel


def delete(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copyfile(path, other)
    delete(path)
    other.rename(path)


def rename(path: Path) -> None:
    path.rename(path.with_name("other"))


@pytest.mark.skipif(sys.platform == "win32", reason="an open file stays where it is")
@pytest.mark.parametrize("lose", [delete, remove_folder, replace, rename])
async def test_a_store_that_goes_away_fails_instead_of_losing_results(
    path: Path, store: SqliteStore, lose: Callable[[Path], None]
) -> None:
    first = await store.begin("first", sample_model())
    await store.append_trials(first.id, [sample_trial()])
    lose(path)
    with pytest.raises(StoreError, match="deleted or replaced"):
        await store.finish(first.id, sample_report())
    # What comes next is kept in the file that is there now.
    second = await store.begin("second", sample_model())
    await store.finish(second.id, sample_report())
    assert [stored.key for stored in await SqliteStore(path).reports()] == ["second"]


@pytest.mark.skipif(sys.platform == "win32", reason="an open file stays where it is")
async def test_a_measurement_whose_store_goes_away_is_reported_in_full(path: Path) -> None:
    asked: list[Event] = []

    def lose(event: Event) -> None:
        asked.append(event)
        if sum(isinstance(one, TrialFinished) for one in asked) == 20 and path.exists():
            delete(path)

    adapter = SimulatedAdapter(SimulatedModel(key="m", declared=4096, true_context=3000))
    async with LMStrix(adapter=adapter, store=path) as client:
        report = await client.find_true_context("m", observers=[lose])
    assert report.measured
    assert any("deleted or replaced" in note for note in report.notes)
    assert isinstance(asked[-1], MeasurementFinished)
    assert asked[-1].store_error is not None


def keep_log(path: Path) -> None:
    """As a process leaves it that is killed: the newest commits are in the log alone."""
    for suffix in ("", "-wal"):
        path.with_name(f"copy{suffix}").write_bytes(Path(f"{path}{suffix}").read_bytes())


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "killed"])
async def test_a_store_that_may_not_be_written_can_be_read(
    path: Path, store: SqliteStore, protect: Callable[[Path], None], *, closed: bool
) -> None:
    new = await store.begin("key", sample_model())
    await store.append_trials(new.id, [sample_trial()])
    await store.finish(new.id, sample_report())
    keep_log(path)
    await store.aclose()
    place = path if closed else path.with_name("copy")
    protect(path.parent)
    reader = SqliteStore(place)
    assert [stored.report for stored in await reader.reports()] == [sample_report()]
    assert len(await reader.summaries()) == 1
    assert len((await reader.contents()).measurements[0].trials) == 1
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot be written"):
            await reader.begin("another", sample_model())
    assert [stored.key for stored in await reader.reports()] == ["key"]
    assert reader.warnings == ()
    await reader.aclose()
