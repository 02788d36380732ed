"""Sizes without a tokenizer: what is asked for, by the server's own count."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import lmstrix
from lmstrix.adapters.ollama import OllamaAdapter
from lmstrix.adapters.token_counts import TokenCounts
from lmstrix.testing import simulated
from lmstrix.testing.ollama import OllamaServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators import haystack
from lmstrix.validators.haystack import WITH_CROWD, filler_sentences
from lmstrix.validators.recall import Recall

LENGTHS = (512, 768, 1024, 1536, 2048, 3072, 4096, 5120, 8192, 16384, 32768)


@pytest.mark.parametrize("validator", [Recall(), Recall(spec=WITH_CROWD)], ids=["prose", "numbers"])
async def test_prompts_fill_the_length_and_never_exceed_it(validator: Recall) -> None:
    engine = SimulatedAdapter(SimulatedModel(key="m", declared=65536, true_context=65536))
    async with OllamaServer(engine) as server:
        adapter = OllamaAdapter(server.host)
        async with adapter.load(await adapter.find_model("m"), 65536) as loaded:
            questions = validator.questions(loaded, seed=3)
            for length in LENGTHS:
                for index in range(3):
                    question = await questions.question(length, index)
                    reply = await loaded.complete(
                        question.prompt, max_tokens=question.max_tokens, stop=question.stop
                    )
                    assert reply.prompt_tokens == server.prompt_tokens[-1]
                    assert 0.97 * length <= reply.prompt_tokens
                    assert reply.prompt_tokens + question.max_tokens <= length


def in_capitals_now_and_then(seed: int) -> Iterator[str]:
    """Sixty sentences in capitals after sixty others."""
    for index, sentence in enumerate(filler_sentences(seed)):
        yield sentence.upper() if index // 60 % 2 else sentence


@pytest.fixture
def other_tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Capitals take twice as many tokens. Texts are tokenised once, so they are forgotten."""
    monkeypatch.setattr(simulated, "TOKEN", re.compile(r"[A-Z]{1,2}|[A-Za-z][a-z]*|\d|[^\w\s]"))
    monkeypatch.setattr(haystack, "filler_sentences", in_capitals_now_and_then)
    simulated.forget_texts()
    yield
    simulated.forget_texts()


@pytest.mark.usefixtures("other_tokens")
async def test_text_that_becomes_denser_never_exceeds_the_length() -> None:
    engine = SimulatedAdapter(SimulatedModel(key="m", declared=65536, true_context=65536))
    async with OllamaServer(engine) as server:
        adapter = OllamaAdapter(server.host)
        async with adapter.load(await adapter.find_model("m"), 65536) as loaded:
            questions = Recall().questions(loaded, seed=3)
            for length in LENGTHS:
                question = await questions.question(length, 0)
                reply = await loaded.complete(question.prompt, max_tokens=question.max_tokens)
                filled = reply.prompt_tokens + question.max_tokens
                assert 0.93 * length - 60 <= filled <= length


async def test_counting_reads_little_more_than_the_prompts() -> None:
    """On a server with a prefix cache."""
    engine = SimulatedAdapter(SimulatedModel(key="m", declared=65536, true_context=65536))
    async with OllamaServer(engine) as server:
        adapter = OllamaAdapter(server.host)
        async with adapter.load(await adapter.find_model("m"), 65536) as loaded:
            questions = Recall().questions(loaded, seed=3)
            for length in LENGTHS:
                question = await questions.question(length, 0)
                await loaded.complete(question.prompt, max_tokens=question.max_tokens)
    assert engine.counters.prompt_tokens < 1.25 * LENGTHS[-1]


def test_a_growing_text_is_known_to_a_fraction_of_its_growth() -> None:
    """Code; the truth is a tokenizer that the estimate knows nothing about."""
    files = sorted(Path(inspect.getfile(lmstrix)).parent.rglob("*.py"))
    text = "".join(path.read_text(encoding="utf-8") for path in files)[:400_000]
    counts = TokenCounts()
    size, part = 500, ""
    while size < len(text):
        part = text[:size]
        truth = len(re.findall(r"\w{1,4}|\s+|[^\w\s]", part))
        if size > 20_000:
            estimate = counts.estimate(part)
            assert estimate.least <= truth
            assert estimate.tokens == pytest.approx(truth, rel=0.05)
        counts.learn(part, truth)
        size = size * 6 // 5
    assert counts.estimate(part).is_certain
