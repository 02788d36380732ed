"""Arguments, options and plug-ins that cannot work: an error at once, and no number."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import attrs
import pytest

from lmstrix import (
    Ask,
    BenchOptions,
    ConfigurationError,
    Done,
    EngineUnavailable,
    LMStrix,
    MapOptions,
    MeasureOptions,
    ModelInfo,
    Prompt,
    RetryPolicy,
    UnsupportedModel,
)
from lmstrix.models import Judgement, Observation, Question, Reply
from lmstrix.problem import SearchProblem
from lmstrix.search.gallop import Gallop
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators.recall import Recall

SMALL = SimulatedModel(key="m", declared=2048, true_context=1000)


def client_of(adapter: SimulatedAdapter, **parts: Any) -> LMStrix:
    return LMStrix(adapter=adapter, store="memory", levels=(), **parts)


class Faulty(Gallop):
    """A strategy whose steps are wrong."""

    step: object = None

    def next_step(self, problem: SearchProblem, history: Sequence[Observation]) -> Ask | Done:
        return cast("Ask | Done", self.step)


class Agrees(Recall):
    """A validator that says yes or no."""

    def judge(self, question: Question, reply: Reply) -> Judgement:
        return cast("Judgement", question.expected in reply.text)


async def test_a_judgement_that_is_none_is_named() -> None:
    adapter = SimulatedAdapter(SMALL)
    async with client_of(adapter, validator=Agrees()) as client:
        with pytest.raises(TypeError, match=r"'recall' gave True, which is no Judgement"):
            await client.find_true_context("m")
    assert not adapter.counters.left_behind


@pytest.mark.parametrize(
    "step",
    [None, Ask(length_tokens=1024, trials=0), Ask(length_tokens=4096, trials=2), "512"],
    ids=["nothing", "no question", "beyond", "text"],
)
async def test_a_strategy_that_gives_no_step_is_named(step: object) -> None:
    strategy = Faulty()
    strategy.step = step
    adapter = SimulatedAdapter(SMALL)
    async with client_of(adapter, strategy=strategy) as client:
        with pytest.raises(ConfigurationError, match=r"'gallop' gave .* which is no step"):
            await client.find_true_context("m")
        with pytest.raises(ConfigurationError, match="which is no step"):
            await _watched(client)
    assert adapter.counters.left_behind == 0


async def _watched(client: LMStrix) -> None:
    async with client.watch("m") as events:
        async for _ in events:
            pass


@pytest.mark.parametrize("count", [0, -5, 10**9])
async def test_a_tokenizer_that_does_not_count_ends_the_measurement(count: int) -> None:
    class Miscounted(SimulatedAdapter):
        @asynccontextmanager
        async def load(self, *args: Any, **rest: Any) -> AsyncGenerator[Any]:
            async with super().load(*args, **rest) as loaded:

                async def count_tokens(text: str) -> int:
                    return count

                cast("Any", loaded).count_tokens = count_tokens
                yield loaded

    async with client_of(Miscounted(SMALL)) as client:
        options = MeasureOptions(retry=RetryPolicy(attempts=1))
        with pytest.raises(EngineUnavailable, match="its tokenizer does not work"):
            await client.find_true_context("m", options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": None},
        {"prompt": [{"role": "user"}]},
        {"prompt": "half a pair: \ud800"},
        {"prompt": Prompt(user="Why?", system=cast("str", 5))},
        {"max_tokens": 0},
        {"max_tokens": "5"},
        {"max_tokens": float("nan")},
        {"context_length": 0},
        {"context_length": "512"},
    ],
)
async def test_a_prompt_that_cannot_be_sent_loads_nothing(wrong: dict[str, Any]) -> None:
    adapter = SimulatedAdapter(SMALL)
    given: dict[str, Any] = {"prompt": "Why?", **wrong}
    async with client_of(adapter) as client:
        with pytest.raises(ConfigurationError):
            await client.infer("m", **given)
        with pytest.raises(ConfigurationError, match="a length is a number of tokens"):
            await client.check_context("m", cast("int", None))
    assert adapter.counters.loads == 0


@pytest.mark.parametrize(
    "parts",
    [
        {"levels": None},
        {"observers": None},
        {"observers": print},
        {"adapter_settings": {"load_s": 5}},
        {"adapter_settings": ["load_s"]},
        {"others": ["ollama"]},
        {"host": 11_434},
    ],
    ids=str,
)
def test_a_part_of_another_kind_is_refused(parts: dict[str, Any]) -> None:
    given: dict[str, Any] = {"adapter": SimulatedAdapter(SMALL), "store": "memory", **parts}
    with pytest.raises(ConfigurationError):
        LMStrix(**given)


async def test_options_of_another_kind_are_refused() -> None:
    wrong = cast("Any", BenchOptions())
    adapter = SimulatedAdapter(SMALL)
    async with client_of(adapter) as client:
        for call in (client.find_true_context, client.map_context, client.forecast):
            with pytest.raises(ConfigurationError, match="not BenchOptions"):
                await call("m", wrong)
        with pytest.raises(ConfigurationError, match="BenchOptions, not MapOptions"):
            await client.bench("m", cast("Any", MapOptions()))
        with pytest.raises(ConfigurationError, match="observers are a sequence"):
            await client.find_true_context("m", observers=cast("Any", print))
        with pytest.raises(ConfigurationError, match="list_models"):
            await client.known_reports(cast("Any", ["m"]))
    assert adapter.counters.loads == 0


async def test_a_time_that_is_none_is_left_out() -> None:
    class Broken(SimulatedAdapter):
        @asynccontextmanager
        async def load(self, *args: Any, **more: Any) -> AsyncGenerator[Any]:
            async with super().load(*args, **more) as loaded:
                complete = loaded.complete

                async def untimed(*args: Any, **more: Any) -> Reply:
                    reply = await complete(*args, **more)
                    return attrs.evolve(reply, ttft_s=float("nan"), tokens_per_second=-1.0)

                cast("Any", loaded).complete = untimed
                yield loaded

    async with client_of(Broken(SMALL)) as client:
        report = await client.find_true_context("m")
    assert report.certified
    assert {(point.ttft_s, point.tokens_per_second) for point in report.curve} == {(None, None)}


async def test_a_listed_model_that_writes_no_text() -> None:
    adapter = SimulatedAdapter(SMALL)
    async with client_of(adapter) as client:
        with pytest.raises(UnsupportedModel, match="'embedding'"):
            await client.find_true_context(ModelInfo(key="e", path="e", type="embedding"))
    assert adapter.counters.loads == 0


async def test_more_texts_are_foreseen() -> None:
    async with client_of(SimulatedAdapter(SMALL)) as client:
        two = await client.forecast("m")
        four = await client.forecast("m", MeasureOptions(documents=4))
        none = await client.forecast("m", MeasureOptions(certify=False))
    assert four.usual_prompt_tokens - two.usual_prompt_tokens == 2 * 2048
    assert four.most_prompt_tokens - two.most_prompt_tokens == 2 * 2048
    assert two.usual_prompt_tokens - none.usual_prompt_tokens == 2048


async def test_an_exit_within_a_watch_stays_one() -> None:
    async with client_of(SimulatedAdapter(SMALL)) as client:
        with pytest.raises(SystemExit):
            async with client.watch("m"):
                raise SystemExit(3)
