"""`LMStrix.watch` and `LMStrix.stream`, left in every way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

import anyio
import pytest
from simulations import BOTH_LOOPS

from lmstrix import (
    BenchFinished,
    BenchOptions,
    LMStrix,
    MapFinished,
    MapOptions,
    MeasurementFinished,
    MeasureOptions,
    ModelNotFound,
)
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

pytestmark = BOTH_LOOPS
BOTH_WAYS = pytest.mark.parametrize("way", ["watch", "stream"])


def client_of(adapter: SimulatedAdapter) -> LMStrix:
    return LMStrix(adapter=adapter, store="memory", levels=())


def followed(client: LMStrix, way: str) -> AbstractAsyncContextManager[AsyncIterator[object]]:
    """Something to follow that takes a while."""
    return client.watch("simulated") if way == "watch" else client.stream("simulated", "Why?")


@pytest.fixture
def adapter() -> SimulatedAdapter:
    return SimulatedAdapter(SimulatedModel(true_context=3000), reply_seconds=0.01)


@BOTH_WAYS
async def test_it_may_be_left_by_break(adapter: SimulatedAdapter, way: str) -> None:
    async with client_of(adapter) as client:
        async with followed(client, way) as items:
            async for _ in items:
                break
        assert adapter.counters.left_behind == 0
        assert (await client.infer("simulated", "Why?")).text


@BOTH_WAYS
async def test_an_error_in_the_block_is_raised(adapter: SimulatedAdapter, way: str) -> None:
    async def fail(client: LMStrix) -> None:
        async with followed(client, way) as items:
            async for _ in items:
                raise KeyError("mine")

    async with client_of(adapter) as client:
        with pytest.raises(KeyError, match="mine"):
            await fail(client)
    assert adapter.counters.left_behind == 0


@BOTH_WAYS
async def test_cancelling_the_block_ends_it(adapter: SimulatedAdapter, way: str) -> None:
    with anyio.move_on_after(0.05) as scope:
        async with client_of(adapter) as client, followed(client, way) as items:
            async for _ in items:
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert adapter.counters.left_behind == 0


async def test_what_the_measurement_raises_is_raised_at_the_end(adapter: SimulatedAdapter) -> None:
    async with client_of(adapter) as client:
        with pytest.raises(ModelNotFound):
            async with client.watch("no such model") as events:
                assert [event async for event in events] == []


async def test_the_last_event_has_the_result_of_each_kind(adapter: SimulatedAdapter) -> None:
    kinds = {
        MeasurementFinished: MeasureOptions(max_context=1024, certify=False),
        MapFinished: MapOptions(max_context=1024, lengths=2, trials=2),
        BenchFinished: BenchOptions(max_context=1024, rounds=1),
    }
    async with client_of(adapter) as client:
        for kind, options in kinds.items():
            async with client.watch("simulated", options) as events:
                heard = [event async for event in events]
            assert isinstance(heard[-1], kind)
