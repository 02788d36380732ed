"""The map and the benchmark: one load, tokens counted apart, nothing left behind."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from simulations import AT_ONCE, Failing, only

from lmstrix import LMStrix, MeasureOptions, PredictionError
from lmstrix.errors import (
    ConfigurationError,
    EngineCrashed,
    EngineUnavailable,
    LMStrixError,
    LoadFailed,
)
from lmstrix.events import Event, LoadStarted, ReplyTimed
from lmstrix.measure.options import BenchOptions, MapOptions, RetryPolicy
from lmstrix.measure.sweep import map_context
from lmstrix.models import ContextMap, ModelInfo, Prompt, Reply, SpeedBench, cells_of
from lmstrix.reports.text import render_bench
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.copy import Copy
from lmstrix.validators.recall import Recall

TRUTH = 3000
MAPPED = SimulatedModel(key="m", declared=4096, true_context=TRUTH, beyond=Beyond.FORGETS_HEAD)
MAPPED_ANEW = attrs.evolve(MAPPED, reuses_prefixes=False)
MAP = MapOptions(lengths=8, retry=AT_ONCE)


async def draw(adapter: SimulatedAdapter, options: MapOptions = MAP) -> ContextMap:
    model = await adapter.find_model("m")
    return await map_context(adapter, model, [Recall(), Copy()], options)


async def test_the_head_is_lost_beyond_the_window_and_its_limit_keeps_its_score() -> None:
    found = await draw(SimulatedAdapter(MAPPED))
    assert TRUTH * 0.85 <= (found.layer("recall").limit(0.85) or 0) <= TRUTH / 0.85
    with pytest.raises(KeyError):
        found.layer("nosuch")
    assert found.lengths[0] == 512
    assert found.lengths[-1] == 4096
    for layer in found.layers:
        inside = [c for c in layer.cells if c.length_tokens <= TRUTH]
        assert inside
        assert all(c.score == 1 for c in inside), layer.name
        top = {c.depth_bin: c.score for c in layer.cells if c.length_tokens == 4096}
        assert top[0] < 1
        assert top[max(top)] == 1


async def test_the_document_is_read_once() -> None:
    adapter = SimulatedAdapter(MAPPED)
    found = await draw(adapter)
    cost = found.cost
    assert 0.9 * 4096 <= cost.document_tokens <= 1.1 * 4096
    assert cost.questions == len(found.lengths) * 2 * MAP.trials
    assert cost.document_tokens + cost.question_tokens == adapter.counters.prompt_tokens
    assert cost.cached_tokens == adapter.counters.cached_tokens
    assert cost.loads == adapter.counters.loads == 1
    assert adapter.counters.left_behind == 0


async def test_without_reuse_it_says_the_price_and_stops() -> None:
    adapter = SimulatedAdapter(MAPPED_ANEW)
    with pytest.raises(ConfigurationError, match="prompt tokens instead of 4,096") as caught:
        await draw(adapter)
    assert "--force" in caught.value.hint
    assert adapter.counters.prompt_tokens < 2 * MAP.trials * 512
    assert adapter.counters.left_behind == 0


async def test_without_reuse_it_can_be_forced() -> None:
    options = MapOptions(lengths=2, trials=2, max_context=1024, force=True)
    found = await draw(SimulatedAdapter(MAPPED_ANEW), options)
    assert found.lengths == (512, 1024)
    assert "reads every prompt from the start" in found.notes[0]


async def test_every_load_is_counted() -> None:
    events: list[Event] = []
    adapter = SimulatedAdapter(attrs.evolve(MAPPED, declared=32768, loadable=9000))
    async with LMStrix(adapter=adapter, store="memory", observers=[events.append]) as client:
        found = await client.map_context("m", MapOptions(lengths=2, trials=2))
    assert found.cost.loads == len(only(LoadStarted, events)) > 1


async def test_a_lost_engine_is_tried_again() -> None:
    adapter = SimulatedAdapter(MAPPED, faults=[EngineUnavailable("away")] * 2)
    assert (await draw(adapter)).lengths[-1] == 4096
    assert adapter.counters.left_behind == 0


@pytest.mark.parametrize("error", [EngineCrashed("it died"), EngineUnavailable("away")])
async def test_what_was_asked_before_a_failure_is_the_map(error: LMStrixError) -> None:
    found = await draw(Failing(MAPPED, error, lambda _, tokens: tokens > 2500))
    assert 512 < found.lengths[-1] <= 2560
    assert {cell.length_tokens for layer in found.layers for cell in layer.cells} == {
        *found.lengths
    }
    assert any(str(error) in note for note in found.notes)


async def test_every_tenth_of_the_window_is_asked_about() -> None:
    found = await draw(SimulatedAdapter(MAPPED), attrs.evolve(MAP, trials=10))
    longest = found.lengths[-1]
    cells = found.layer("recall").cells
    assert len({c.depth_bin for c in cells if c.length_tokens == longest}) >= 9


async def test_what_is_clamped_is_mapped_as_far_as_it_goes() -> None:
    clamped = attrs.evolve(MAPPED, clamped_to=2048)
    assert (await draw(SimulatedAdapter(clamped))).lengths[-1] == 2048


def test_cells_are_means() -> None:
    cells = cells_of([(512, 0.05, True, 1.0), (512, 0.09, False, 0.5), (512, 1.0, True, 1.0)])
    assert [(c.depth_bin, c.trials, c.passes, c.score) for c in cells] == [
        (0, 2, 1, 0.75),
        (9, 1, 1, 1.0),
    ]


@pytest.mark.parametrize("force", [False, True])
async def test_no_more_is_loaded_than_memory_is_expected_to_hold(force: bool) -> None:
    adapter = SimulatedAdapter(MAPPED, memory_bytes=3000 * MAPPED.bytes_per_token)
    found = await draw(adapter, attrs.evolve(MAP, force=force))
    assert 3000 - 512 <= found.lengths[-1] <= 3000
    assert "are available" in " ".join(found.notes)
    assert adapter.counters.loads == 1


# The benchmark.

MODEL = SimulatedModel(key="m", declared=4096, true_context=10**6)
READS, WRITES = 1000.0, 50.0
"""Tokens a second of `TimedAdapter`."""
RETRY = RetryPolicy(attempts=2, first_wait_s=0.001, longest_wait_s=0.002)
OPTIONS = BenchOptions(rounds=2, retry=RETRY)


class TimedAdapter(SimulatedAdapter):
    """Simulated models that say how long they took."""

    counts = True
    """Whether they also say how many tokens were cached."""

    @asynccontextmanager
    async def load(
        self, model: ModelInfo, context_length: int, **more: Any
    ) -> AsyncGenerator[Any, None]:
        async with super().load(model, context_length, **more) as loaded:
            complete = loaded.complete

            async def ask(prompt: Prompt, **options: Any) -> Reply:
                reply = await complete(prompt, **options)
                read = reply.prompt_tokens - (reply.cached_tokens or 0)
                timed = attrs.evolve(reply, ttft_s=read / READS, tokens_per_second=WRITES)
                return timed if self.counts else attrs.evolve(timed, cached_tokens=None)

            loaded.complete = ask
            yield loaded


@pytest.mark.parametrize("reuses", [True, False])
async def test_without_counts_times_tell_whether_prefixes_are_reused(reuses: bool) -> None:
    adapter = TimedAdapter(attrs.evolve(MAPPED, reuses_prefixes=reuses))
    adapter.counts = False
    if reuses:
        assert (await draw(adapter)).lengths
        return
    with pytest.raises(ConfigurationError, match="reads every prompt from the start"):
        await draw(adapter)


@pytest.mark.parametrize("reuses", [True, False])
async def test_without_counts_times_tell_what_is_read(reuses: bool) -> None:
    adapter = TimedAdapter(attrs.evolve(MODEL, reuses_prefixes=reuses))
    adapter.counts = False
    async with LMStrix(adapter=adapter, store="memory") as client:
        report = await client.find_true_context("m", MeasureOptions(certify=False))
    longest = report.curve[-1]
    assert longest.length_tokens == 4096
    assert longest.full_ttft_s == pytest.approx(4096 / READS, rel=1 / 8)
    assert report.cost.prompt_tokens == pytest.approx(adapter.counters.prompt_tokens, rel=1 / 4)
    # If nothing is reused, there are several in one request.
    asked = report.baseline.trials + sum(point.trials for point in report.curve)
    assert (adapter.counters.replies < asked) is not reuses


async def test_without_counts_a_budget_is_spent_on_what_times_say_is_read() -> None:
    adapter = TimedAdapter(MODEL)
    adapter.counts = False
    async with LMStrix(adapter=adapter, store="memory") as client:
        report = await client.find_true_context("m", MeasureOptions(budget_tokens=30_000))
    assert (report.true_context, report.certified) == (4096, True)


async def bench(adapter: SimulatedAdapter, options: BenchOptions = OPTIONS) -> SpeedBench:
    async with LMStrix(adapter=adapter, store="memory") as client:
        found = await client.bench("m", options)
    assert adapter.counters.left_behind == 0
    return found


async def test_speeds_at_lengths_that_double() -> None:
    adapter = TimedAdapter(MODEL)
    found = await bench(adapter)
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


async def test_a_benchmark_of_an_engine_that_reuses_nothing_and_tells_no_times() -> None:
    adapter = SimulatedAdapter(attrs.evolve(MODEL, reuses_prefixes=False))
    found = await bench(adapter, attrs.evolve(OPTIONS, max_context=512, rounds=1))
    [point] = found.points
    assert (point.reused, point.prefill_tokens_per_second) == (0.0, None)
    assert "-" in render_bench(found)


async def test_what_was_measured_below_a_crash_is_the_result() -> None:
    crashing = attrs.evolve(MODEL, true_context=1500, beyond=Beyond.CRASHES)
    found = await bench(TimedAdapter(crashing))
    assert [p.length_tokens for p in found.points] == [512, 1024]
    assert not found.complete
    assert found.notes[-1].startswith("at 2,048 tokens: ")
    assert "ended before the longest length" in render_bench(found)
    with pytest.raises(PredictionError):
        await bench(TimedAdapter(attrs.evolve(crashing, true_context=100)))


@pytest.mark.parametrize("error", [EngineUnavailable("away"), LoadFailed("no memory")])
async def test_what_was_measured_before_the_engine_was_lost_is_the_result(
    error: LMStrixError,
) -> None:
    found = await bench(Failing(MODEL, error, lambda _, tokens: tokens > 1024))
    assert [p.length_tokens for p in found.points] == [512, 1024]
    assert not found.complete
    assert found.notes[-1].startswith(f"at 2,048 tokens: {error}")
    with pytest.raises(type(error)):
        await bench(Failing(MODEL, error, lambda _, tokens: tokens > 0))


async def test_it_loads_no_more_than_memory_holds() -> None:
    adapter = TimedAdapter(MODEL, memory_bytes=1024 + 2048 * MODEL.bytes_per_token)
    found = await bench(adapter)
    assert found.points[-1].length_tokens == found.context_length <= 2048
    assert adapter.counters.most_prompt_tokens < 2048
    assert "are available" in found.notes[0]


async def test_up_to_the_tested_true_context_unless_another_is_asked_for(tmp_path: Path) -> None:
    heard: list[Event] = []
    limited = attrs.evolve(MODEL, declared=2048, loadable=1024)
    async with LMStrix(adapter=TimedAdapter(limited), store=tmp_path / "s.sqlite3") as client:
        await client.find_true_context("m", MeasureOptions(certify=False))
        found = await client.bench("m", OPTIONS, observers=[heard.append])
        assert found.points[-1].length_tokens == 1024
        other = await client.bench("m", BenchOptions(max_context=512))
        assert other.points[-1].length_tokens == 512
    samples = sum(len(point.samples) for point in found.points)
    assert len(only(ReplyTimed, heard)) == samples == 8
