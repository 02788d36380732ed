"""What every store must do, as a pytest suite.

::

class TestMyStore(StoreContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = MyStore()
        yield store
        await store.aclose()
"""
# ruff: noqa: S101 - a test suite asserts, also where it is shipped

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from lmstrix.errors import StoreError
from lmstrix.models import Cause, Cost, Observation
from lmstrix.ports import Store
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

__all__ = ["HOSTILE_NAMES", "DurableStoreContract", "StoreContract"]

HOSTILE_NAMES = (
    "",
    "../../etc/passwd",
    "a'; DROP TABLE trials; --",
    "%s_%d?*",
    "nul\0inside",
    "line\nbreak\u2028and\x1b[31mescape",
    "модель-模型-🦙",
    "lone surrogate \udcff",
    "\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT}",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "x" * 10_000,
)
"""Names that a model or a file can really have. All differ, also the two that look alike."""


@pytest.mark.anyio
class StoreContract:
    """Subclass it and override the fixture `store` with one that gives an empty store."""

    @pytest.fixture
    def store(self) -> Store:
        """An empty store, closed by the fixture afterwards."""
        raise NotImplementedError("override the fixture `store`")

    async def test_it_is_a_store(self, store: Store) -> None:
        """It has the port's shape, and a location for a human."""
        assert isinstance(store, Store)
        assert isinstance(store.location, str)

    async def test_an_empty_store_holds_nothing(self, store: Store) -> None:
        """Nothing is found, and nothing is an error."""
        assert await store.unfinished("key") is None
        assert list(await store.reports()) == []
        assert list(await store.unfinished_models()) == []

    async def test_a_new_measurement_is_empty_and_unfinished(self, store: Store) -> None:
        """`begin` gives what `unfinished` gives back."""
        new = await store.begin("key", sample_model())
        assert (new.key, new.trials, new.failures, new.cost) == ("key", (), (), Cost())
        assert new.started_at.utcoffset() is not None
        assert await store.unfinished("key") == new
        assert list(await store.unfinished_models()) == [sample_model()]

    async def test_trials_come_back_in_order(self, store: Store) -> None:
        """Whole, and in the order in which they were appended."""
        new = await store.begin("key", sample_model())
        trials = [sample_trial(index=i, length_tokens=9000 - i, depth=None) for i in range(20)]
        for trial in trials:
            await store.append_trial(new.id, trial)
        found = await store.unfinished("key")
        assert found is not None
        assert found.id == new.id
        assert list(found.trials) == trials

    async def test_failures_and_cost_come_back(self, store: Store) -> None:
        """Failures in order, and the cost that was saved last."""
        new = await store.begin("key", sample_model())
        failures = [
            Observation(length_tokens=n, failure=Cause.CRASHED_ON_FILL) for n in (8192, 4096)
        ]
        for failure in failures:
            await store.append_failure(new.id, failure)
        await store.save_cost(new.id, Cost(loads=1, seconds=1.5))
        await store.save_cost(new.id, Cost(loads=2, seconds=2.5))
        found = await store.unfinished("key")
        assert found is not None
        assert list(found.failures) == failures
        assert found.cost == Cost(loads=2, seconds=2.5)

    async def test_a_load_that_never_ended_is_seen(self, store: Store) -> None:
        """From its mark until it is cleared; the last mark counts."""
        new = await store.begin("key", sample_model())
        assert new.trying is None
        for length in (65536, 8192):
            await store.mark_load(new.id, length)
            found = await store.unfinished("key")
            assert found is not None
            assert found.trying == length
        for _ in range(2):
            await store.clear_load(new.id)
            assert await store.unfinished("key") == new

    async def test_only_a_length_can_be_marked(self, store: Store) -> None:
        """Nothing that is none, and nothing that a store could not give back."""
        new = await store.begin("key", sample_model())
        for length in (0, -1, 2**70):
            with pytest.raises(StoreError):
                await store.mark_load(new.id, length)
        assert await store.unfinished("key") == new

    async def test_a_measurement_begun_anew_has_no_mark(self, store: Store) -> None:
        """Whoever begins anew has decided to."""
        old = await store.begin("key", sample_model())
        await store.mark_load(old.id, 65536)
        new = await store.begin("key", sample_model())
        assert new.trying is None
        assert await store.unfinished("key") == new

    async def test_there_is_nothing_to_warn_of(self, store: Store) -> None:
        """In a store that was used as it should be."""
        new = await store.begin("key", sample_model())
        await store.append_trial(new.id, sample_trial())
        await store.unfinished("key")
        assert list(store.warnings) == []

    async def test_what_was_given_back_does_not_change(self, store: Store) -> None:
        """A later append shows only in a later answer."""
        new = await store.begin("key", sample_model())
        before = await store.unfinished("key")
        await store.append_trial(new.id, sample_trial())
        assert before is not None
        assert before.trials == ()

    async def test_begin_replaces_an_unfinished_measurement(self, store: Store) -> None:
        """Only the new one is offered, and it does not inherit trials."""
        old = await store.begin("key", sample_model())
        await store.append_trial(old.id, sample_trial())
        new = await store.begin("key", sample_model())
        assert new.id != old.id
        assert await store.unfinished("key") == new
        assert len(await store.unfinished_models()) == 1

    async def test_keys_are_apart(self, store: Store) -> None:
        """One key's measurement neither replaces nor shows another's trials."""
        first = await store.begin("first", sample_model(key="first"))
        second = await store.begin("second", sample_model(key="second"))
        await store.append_trial(first.id, sample_trial(index=1))
        await store.append_trial(second.id, sample_trial(index=2))
        found = await store.unfinished("first")
        assert found is not None
        assert [trial.index for trial in found.trials] == [1]
        assert {model.key for model in await store.unfinished_models()} == {"first", "second"}

    async def test_a_finished_measurement_is_a_report(self, store: Store) -> None:
        """It is no longer unfinished, and its report comes back whole."""
        new = await store.begin("key", sample_model())
        await store.finish(new.id, sample_report())
        assert await store.unfinished("key") is None
        assert list(await store.unfinished_models()) == []
        (stored,) = await store.reports()
        assert (stored.id, stored.key, stored.report) == (new.id, "key", sample_report())

    async def test_reports_are_newest_first_and_once_per_key(self, store: Store) -> None:
        """Newest is what was finished last."""
        for key, true_context in (("a", 1), ("b", 2), ("c", 3), ("a", 4)):
            new = await store.begin(key, sample_model())
            await store.finish(new.id, sample_report(true_context=true_context))
        found = [(stored.key, stored.report.true_context) for stored in await store.reports()]
        assert found == [("a", 4), ("c", 3), ("b", 2)]

    async def test_a_report_stays_when_its_key_is_begun_again(self, store: Store) -> None:
        """An unfinished repetition hides nothing."""
        first = await store.begin("key", sample_model())
        await store.finish(first.id, sample_report())
        second = await store.begin("key", sample_model())
        assert await store.unfinished("key") == second
        assert [stored.id for stored in await store.reports()] == [first.id]

    async def test_hostile_names_are_only_text(self, store: Store) -> None:
        """Any text is a key, a name and a reply; it comes back as it was and stays apart."""
        for name in HOSTILE_NAMES:
            new = await store.begin(name, sample_model(key=name, path=name))
            await store.append_trial(new.id, sample_trial(reply=name))
        for name in HOSTILE_NAMES:
            found = await store.unfinished(name)
            assert found is not None
            assert found.key == name
            assert [trial.reply for trial in found.trials] == [name]
            await store.finish(found.id, sample_report(model=sample_model(key=name)))
        keys = [stored.key for stored in await store.reports()]
        assert keys == list(reversed(HOSTILE_NAMES))

    async def test_an_unknown_measurement_is_an_error(self, store: Store) -> None:
        """Nothing is remembered under an id that the store did not give."""
        with pytest.raises(StoreError):
            await store.append_trial("unknown", sample_trial())
        with pytest.raises(StoreError):
            await store.append_failure("unknown", Observation(length_tokens=1))
        with pytest.raises(StoreError):
            await store.save_cost("unknown", Cost())
        with pytest.raises(StoreError):
            await store.mark_load("unknown", 8192)
        with pytest.raises(StoreError):
            await store.clear_load("unknown")
        with pytest.raises(StoreError):
            await store.finish("unknown", sample_report())
        assert list(await store.reports()) == []

    async def test_tasks_may_append_at_once(self, store: Store) -> None:
        """No trial is lost or doubled, and each task's trials keep their order."""
        new = await store.begin("key", sample_model())

        async def append(seed: int) -> None:
            for index in range(10):
                await store.append_trial(new.id, sample_trial(seed=seed, index=index))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for seed in range(5):
                    tasks.start_soon(append, seed)
        found = await store.unfinished("key")
        assert found is not None
        assert len(found.trials) == 50
        for seed in range(5):
            assert [t.index for t in found.trials if t.seed == seed] == list(range(10))

    async def test_a_cancelled_append_happened_or_not(self, store: Store) -> None:
        """Never half, never twice; and the store goes on working."""
        new = await store.begin("key", sample_model())
        for index in range(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(store.append_trial, new.id, sample_trial(index=index))
                # From not yet begun to well inside.
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(index * 0.0003)
                tasks.cancel_scope.cancel()
        await store.append_trial(new.id, sample_trial(index=99))
        found = await store.unfinished("key")
        assert found is not None
        indices = [trial.index for trial in found.trials]
        assert indices[-1] == 99
        assert indices == sorted(set(indices))

    async def test_closing_twice_is_no_error(self, store: Store) -> None:
        """Also before anything was stored, and after."""
        await store.begin("key", sample_model())
        await store.aclose()
        await store.aclose()

    async def test_closing_an_unused_store_is_no_error(self, store: Store) -> None:
        """There is nothing to let go of."""
        await store.aclose()


class DurableStoreContract(StoreContract):
    """For a store that outlives its object; override `open_store` too."""

    @pytest.fixture
    def open_store(self) -> Callable[[], Store]:
        """Gives a further store object on the same place; the test closes it."""
        raise NotImplementedError("override the fixture `open_store`")

    async def test_another_object_goes_on(
        self, store: Store, open_store: Callable[[], Store]
    ) -> None:
        """Trials, failures, cost and reports are there for whoever comes next."""
        new = await store.begin("key", sample_model())
        await store.append_trial(new.id, sample_trial())
        await store.append_failure(new.id, Observation(length_tokens=1, failure=Cause.LOAD_FAILED))
        await store.save_cost(new.id, Cost(loads=3))
        await store.mark_load(new.id, 65536)
        before = await store.unfinished("key")
        await store.aclose()
        other = open_store()
        assert before is not None
        assert before.trying == 65536
        try:
            assert await other.unfinished("key") == before
            await other.finish(new.id, sample_report())
        finally:
            await other.aclose()
        third = open_store()
        try:
            assert [stored.id for stored in await third.reports()] == [new.id]
        finally:
            await third.aclose()

    async def test_two_objects_at_once(self, store: Store, open_store: Callable[[], Store]) -> None:
        """Each sees at once what the other has appended."""
        other = open_store()
        try:
            new = await store.begin("key", sample_model())
            await other.append_trial(new.id, sample_trial(index=1))
            await store.append_trial(new.id, sample_trial(index=2))
            found = await other.unfinished("key")
            assert found is not None
            assert [trial.index for trial in found.trials] == [1, 2]
        finally:
            await other.aclose()
