"""The largest context that loads: how few loads find it, and what stands in its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest
from simulations import Giving, measure

from lmstrix import LMStrix, MeasureOptions
from lmstrix.errors import EngineUnavailable, LoadError, LoadRefused, OutOfMemory
from lmstrix.events import Event, LoadStarted
from lmstrix.measure.engine import Engine
from lmstrix.measure.loading import MOST_SIZES, Loadable, find_loadable
from lmstrix.models import Cause, LoadProgress, Outcome
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

FLOOR = 512


@attrs.define
class Search:
    """One search for what loads, with what it did."""

    simulated: SimulatedModel = attrs.field(factory=SimulatedModel)
    memory_bytes: int | None = None
    loads: int = 0
    sizes: list[int] = attrs.field(factory=list[int])
    left_loaded: int | None = None
    owns_engine: bool = True
    make: Callable[..., SimulatedAdapter] = SimulatedAdapter

    async def run(self, wanted: int = 131072, *, force: bool = False, **told: Any) -> Loadable:
        adapter = self.make(
            self.simulated, memory_bytes=self.memory_bytes, owns_engine=self.owns_engine
        )
        model = self.simulated.info
        engine = Engine(adapter, model, self._hear, self._count)
        try:
            found = await find_loadable(
                adapter, model, engine, wanted=wanted, floor=FLOOR, force=force, **told
            )
            self.left_loaded = (await engine.at_least(0, 0)).effective_context
        finally:
            await engine.release()
            assert adapter.counters.left_behind == 0
            assert min(self.sizes, default=FLOOR) >= FLOOR
        return found

    def _hear(self, event: Event) -> None:
        if isinstance(event, LoadStarted):
            self.sizes.append(event.context_length)

    @property
    def tried(self) -> int:
        """How many sizes were tried; a size that was tried again counts once."""
        return len(set(self.sizes))

    def _count(self) -> None:
        self.loads += 1


def is_above(found: Loadable, loadable: int, width: float = 256) -> bool:
    """Whether the size that failed is larger than what loads, and by no more than `width`."""
    return found.failed_at is not None and loadable < found.failed_at <= loadable + width


async def test_an_estimate_that_was_too_hopeful_is_searched_below() -> None:
    found = await Search(SimulatedModel(loadable=5000), memory_bytes=9000 * 1024).run()
    assert 5000 - 256 <= found.context_length <= 5000
    assert found.limit is Cause.LOAD_FAILED
    assert is_above(found, 5000)


@pytest.mark.parametrize("loadable", [*range(600, 131072, 6151), 66047, 131071])
async def test_blind_it_takes_few_sizes(loadable: int) -> None:
    search = Search(SimulatedModel(loadable=loadable))
    found = await search.run()
    assert search.tried <= MOST_SIZES
    assert found.failed_at is not None
    assert found.context_length <= loadable < found.failed_at
    assert is_above(found, found.context_length, max(256, found.context_length / 64))
    assert found.limit is Cause.LOAD_FAILED
    assert search.left_loaded == found.context_length


@pytest.mark.parametrize("loadable", [513, 8192, 100_000])
async def test_a_huge_claim_does_not_hide_the_size_that_loads(loadable: int) -> None:
    search = Search(SimulatedModel(loadable=loadable))
    found = await search.run(10_000_000)
    assert min(loadable * 31 / 32, loadable - 256) <= found.context_length <= loadable
    assert search.tried <= MOST_SIZES


@pytest.mark.parametrize("deadly", [1024, 20_000, 131_072])
async def test_a_size_at_which_two_runs_died_is_not_tried(deadly: int) -> None:
    search = Search()
    found = await search.run(deaths=(deadly, 500_000, deadly))
    assert max(search.sizes) < deadly == found.failed_at
    assert deadly - found.context_length <= max(256, found.context_length / 64)
    assert found.limit is Cause.LOAD_FAILED
    assert found.untried
    assert "2 earlier runs died" in found.detail
    assert search.tried <= MOST_SIZES


async def test_a_failure_below_a_deadly_size_is_proof_enough() -> None:
    found = await Search(SimulatedModel(loadable=5000)).run(deaths=(20_000, 20_000))
    assert 5000 * 63 / 64 - 256 <= found.context_length <= 5000
    assert not found.untried
    assert is_above(found, 5000, 5000 / 64 + 256)


@pytest.mark.parametrize(
    "told",
    [
        {"deaths": (20_000,)},
        {"deaths": (20_000, 30_000)},
        {"deaths": (20_000, 20_000), "loaded_before": 20_000},
        {"deaths": (20_000, 20_000), "force": True},
        {"deaths": (200_000, 200_000)},
    ],
    ids=str,
)
async def test_a_mark_alone_is_no_verdict(told: dict[str, Any]) -> None:
    search = Search()
    assert await search.run(**told) == Loadable(context_length=131072, limit=None)
    assert search.loads == 1


async def test_what_was_loaded_since_does_not_clear_a_larger_size() -> None:
    found = await Search().run(deaths=(20_000, 20_000), loaded_before=8192)
    assert found.failed_at == 20_000


async def test_deaths_say_nothing_about_a_server() -> None:
    found = await Search(owns_engine=False).run(deaths=(20_000, 20_000, 20_000))
    assert found == Loadable(context_length=131072, limit=None)


@pytest.mark.parametrize("limit", ["refused_above", "loadable"])
async def test_a_failure_with_a_clear_reason_is_tried_again_at_the_end(limit: str) -> None:
    search = Search(attrs.evolve(SimulatedModel(), **{limit: 900}))
    found = await search.run(1024)
    assert search.sizes == [1024, 768, 1024, 768]
    assert (found.context_length, found.failed_at) == (768, 1024)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("loadable", [12_000, 131_072])
@pytest.mark.parametrize("error", [OutOfMemory, LoadRefused])
async def test_one_load_that_fails_once_is_no_limit(
    error: type[LoadError], loadable: int, at: int
) -> None:
    """Another program has the memory for a moment, or the engine's guard thinks so."""

    loads = 0

    class Short(SimulatedAdapter):
        async def before_load(
            self, context_length: int, on_progress: Callable[[LoadProgress], None]
        ) -> int:
            nonlocal loads
            loads += 1
            if loads == at:
                raise error("no memory (simulated)")
            return await super().before_load(context_length, on_progress)

    search = Search(SimulatedModel(loadable=loadable), make=Short)
    found = await search.run()
    assert loadable * 63 / 64 - 256 <= found.context_length <= loadable
    assert search.left_loaded == found.context_length


class Slow(SimulatedAdapter):
    """Loads in steps, the last of which are no longer different."""

    async def before_load(
        self, context_length: int, on_progress: Callable[[LoadProgress], None]
    ) -> int:
        for _ in range(40):
            await anyio.sleep(0.05)
            on_progress(LoadProgress(fraction=0.0))
        return context_length


async def test_a_load_that_goes_on_is_not_hung() -> None:
    found = await Search(make=Slow).run(8192, load_timeout_s=1.5)
    assert found == Loadable(context_length=8192, limit=None)


def rounding(model: SimulatedModel) -> Giving:
    """Gives a multiple of 256 tokens, as llama.cpp does."""
    return Giving(model, lambda _, wanted: -(-wanted // 256) * 256)


@pytest.mark.parametrize(
    ("declared", "options", "cause"),
    [
        (1000, MeasureOptions(), Cause.DECLARED_MAXIMUM),
        (32768, MeasureOptions(max_context=1000), Cause.MAX_CONTEXT),
    ],
)
async def test_what_an_engine_gives_beyond_what_was_wanted_is_not_used(
    declared: int, options: MeasureOptions, cause: Cause
) -> None:
    adapter = rounding(SimulatedModel(key="m", declared=declared, true_context=10**6))
    report = await measure(adapter, options)
    assert (report.true_context, report.loadable_context) == (1000, 1000)
    assert report.cause is cause
    assert adapter.counters.most_prompt_tokens <= 1000


async def test_one_size_is_the_size_that_was_asked_for() -> None:
    adapter = rounding(SimulatedModel(true_context=10**6))
    check = await LMStrix(adapter=adapter, store="memory").check_context("simulated", 1000)
    assert (check.outcome, check.passes) == (Outcome.PASS, 20)  # four in each region


async def test_an_engine_that_clamps_after_a_failure_is_believed_at_once() -> None:
    search = Search(SimulatedModel(loadable=40_000, clamped_to=5000))
    found = await search.run(65_536)
    assert (found.context_length, found.limit) == (5000, Cause.CLAMPED)
    assert search.loads <= 4
    assert search.left_loaded == 5000


async def test_what_loaded_and_no_longer_does_is_trouble_with_the_machine() -> None:
    """Not a model that cannot be loaded: something else fills the memory meanwhile."""

    def filling(model: SimulatedModel, **more: Any) -> Giving:
        return Giving(model, lambda e, wanted: 10**6 if e.counters.loads > 1 else wanted, **more)

    search = Search(SimulatedModel(loadable=3000), make=filling)
    with pytest.raises(EngineUnavailable, match="loaded earlier, but no longer do"):
        await search.run(8192)
