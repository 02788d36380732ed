"""The benchmark: exact tokens, speeds as measured, one load, nothing left behind."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from lmstrix import LMStrix, MeasureOptions, PredictionError
from lmstrix.events import Event, ReplyTimed
from lmstrix.measure import BenchOptions, RetryPolicy
from lmstrix.models import ModelInfo, Prompt, Reply, SpeedBench
from lmstrix.reports.text import render_bench
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m", declared=4096, true_context=10**6)
READS, WRITES = 1000.0, 50.0
"""Tokens a second of `TimedAdapter`."""
QUICK = RetryPolicy(attempts=2, first_wait_s=0.001, longest_wait_s=0.002)
OPTIONS = BenchOptions(rounds=2, retry=QUICK)


class TimedAdapter(SimulatedAdapter):
    """Simulated models that say how long they took."""

    @asynccontextmanager
    async def load(
        self, model: ModelInfo, context_length: int, **more: Any
    ) -> AsyncGenerator[Any, None]:
        async with super().load(model, context_length, **more) as loaded:
            complete = loaded.complete

            async def timed(prompt: Prompt, **options: Any) -> Reply:
                reply = await complete(prompt, **options)
                read = reply.prompt_tokens - (reply.cached_tokens or 0)
                return attrs.evolve(reply, ttft_s=read / READS, tokens_per_second=WRITES)

            loaded.complete = timed
            yield loaded


async def bench(
    model: SimulatedModel = MODEL, options: BenchOptions = OPTIONS, **engine: Any
) -> tuple[SpeedBench, TimedAdapter]:
    adapter = TimedAdapter(model, **engine)
    async with LMStrix(adapter=adapter, store="memory") as client:
        found = await client.bench(model.key, options)
    assert adapter.counters.left_behind == 0
    return found, adapter


async def test_speeds_at_lengths_that_double() -> None:
    found, adapter = await bench()
    assert [p.length_tokens for p in found.points] == [512, 1024, 2048, 4096]
    assert found.complete
    assert found.context_length == 4096
    assert adapter.counters.loads == 1
    for point in found.points:
        assert point.prefill_tokens_per_second == pytest.approx(READS)
        assert point.tokens_per_second == WRITES
        assert [s.warm for s in point.samples] == [False, True] * 2
        for sample in point.samples:
            assert 0.9 * point.length_tokens - 64 <= sample.prompt_tokens < point.length_tokens
            read_before = (sample.cached_tokens or 0) / sample.prompt_tokens
            assert (read_before > 0.9) if sample.warm else (read_before < 0.1)


async def test_an_engine_that_reuses_nothing_and_tells_no_times() -> None:
    forgetful = attrs.evolve(MODEL, reuses_prefixes=False)
    adapter = SimulatedAdapter(forgetful)
    async with LMStrix(adapter=adapter, store="memory") as client:
        found = await client.bench("m", attrs.evolve(OPTIONS, max_context=512, rounds=1))
    [point] = found.points
    assert (point.reused, point.prefill_tokens_per_second) == (0.0, None)
    assert "-" in render_bench(found)


async def test_what_was_measured_below_a_crash_is_the_result() -> None:
    crashing = attrs.evolve(MODEL, true_context=1500, beyond=Beyond.CRASHES)
    found, _ = await bench(crashing)
    assert [p.length_tokens for p in found.points] == [512, 1024]
    assert not found.complete
    assert found.notes[-1].startswith("at 2,048 tokens: ")
    assert "ended before the longest length" in render_bench(found)
    with pytest.raises(PredictionError):
        await bench(attrs.evolve(crashing, true_context=100))


async def test_it_loads_no_more_than_memory_holds() -> None:
    found, adapter = await bench(memory_bytes=1024 + 2048 * MODEL.bytes_per_token)
    assert found.points[-1].length_tokens == found.context_length <= 2048
    assert adapter.counters.most_prompt_tokens < 2048
    assert "are available" in found.notes[0]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_up_to_the_tested_true_context(tmp_path: Path) -> None:
    """Unless another length is asked for; and observers hear of every reply."""
    heard: list[Event] = []
    limited = attrs.evolve(MODEL, declared=2048, loadable=1024)
    async with LMStrix(adapter=TimedAdapter(limited), store=tmp_path / "s.sqlite3") as client:
        await client.find_true_context("m", MeasureOptions(certify=False))
        found = await client.bench("m", OPTIONS, observers=[heard.append])
        assert found.points[-1].length_tokens == 1024
        other = await client.bench("m", BenchOptions(max_context=512))
        assert other.points[-1].length_tokens == 512
    replies = [event for event in heard if isinstance(event, ReplyTimed)]
    assert len(replies) == sum(len(point.samples) for point in found.points) == 8
