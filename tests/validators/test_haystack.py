"""The haystack: one text for all validators, whatever they ask about it."""

from __future__ import annotations

from itertools import combinations, islice
from typing import cast

import pytest

from lmstrix.models import Judgement, Prompt
from lmstrix.ports import LoadedModel, Validator
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators.coherence import Coherence
from lmstrix.validators.copy import Copy
from lmstrix.validators.haystack import HaystackSpec, filler_sentences, share_haystack
from lmstrix.validators.needles import CODES, NEAR, NUMBERS, WORDS, beginning_of, deck
from lmstrix.validators.recall import Recall
from lmstrix.validators.ruler import Crowd, Tracing

HUGE = 10**6
EVERYTHING = HaystackSpec(crowd=True, chains=True)
ALL: tuple[Validator, ...] = tuple(
    kind(spec=EVERYTHING) for kind in (Recall, Coherence, Copy, Crowd, Tracing)
)


@pytest.mark.parametrize("validator", ALL, ids=lambda v: v.name)
@pytest.mark.parametrize("seed", range(5))
async def test_a_full_haystack_has_a_baseline(
    loaded: LoadedModel, validator: Validator, seed: int
) -> None:
    source = validator.questions(loaded, seed)
    asked = [await source.question(validator.baseline_length, i) for i in range(12)]
    assert len({(q.prompt.answer_prefix, q.prompt.user) for q in asked}) >= 3
    for question in asked:
        reply = await loaded.complete(
            question.prompt, max_tokens=question.max_tokens, stop=question.stop
        )
        assert validator.judge(question, reply) is Judgement.PASS


@pytest.mark.parametrize("validator", ALL, ids=lambda v: v.name)
async def test_asked_in_turn_little_is_read_twice(validator: Validator) -> None:
    """With recall's questions at every length in between."""
    model = SimulatedModel(declared=HUGE, true_context=HUGE)
    adapter = SimulatedAdapter(model)
    async with adapter.load(model.info, HUGE) as loaded:
        sources = [v.questions(loaded, 5) for v in (ALL[0], validator)]
        for length in (1024, 2048, 4096, 8192):
            for source in sources:
                for index in range(4):
                    question = await source.question(length, index)
                    await loaded.complete(question.prompt, max_tokens=question.max_tokens)
    assert adapter.counters.prompt_tokens < 1.35 * 8192


class Odd:
    """A loaded model whose tokenizer adds `extra` to every text, and whose whole prompts have
    `share` more tokens than their pieces.
    """

    def __init__(self, loaded: LoadedModel, extra: int, share: float) -> None:
        self._loaded, self._extra, self._share = loaded, extra, share

    def __getattr__(self, name: str) -> object:
        return getattr(self._loaded, name)

    async def count_tokens(self, text: str) -> int:
        return await self._loaded.count_tokens(text) + self._extra

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        counted = await self._loaded.count_prompt_tokens(prompt)
        return self._extra + int(counted * (1 + self._share))


@pytest.mark.parametrize(("extra", "share"), [(1, 0.0), (3, 0.0), (1, 0.02), (0, -0.02), (0, 0.1)])
async def test_a_length_is_never_exceeded(loaded: LoadedModel, extra: int, share: float) -> None:
    model = cast("LoadedModel", Odd(loaded, extra, share))
    for validator in (Recall(), Coherence()):
        source = validator.questions(model, 3)
        for length in (512, 5000, 700, 40_000, 6000, 39_000):
            sizes: list[int] = []
            for index in range(20):
                question = await source.question(length, index)
                counted = await model.count_prompt_tokens(question.prompt)
                sizes.append(counted + question.max_tokens)
            assert length - 64 < max(sizes) <= length


def test_validators_are_made_to_share() -> None:
    given = Recall(), Coherence(), Copy(), Crowd(), Tracing()
    assert share_haystack(given) == ALL
    assert share_haystack([Recall(), Coherence()]) == (Recall(), Coherence())


def test_stems_are_unlike_one_another() -> None:
    stems = [*NUMBERS, *WORDS, *CODES]
    assert len(set(stems)) == len(stems)
    assert len({tuple(s.split()[-2:]) for s in stems}) == len(stems)
    assert set(NEAR) <= set(stems)
    near = set(NEAR.values())
    assert not near & set(stems)
    assert not any(one in other for one, other in combinations([*stems, *near], 2))


def test_a_fact_is_named_by_its_first_words() -> None:
    stems = [needle.fact.stem for needle in deck(1)]
    begun = [beginning_of(stem) for stem in stems]
    assert len(set(begun)) == len(stems)
    for stem, begin in zip(stems, begun, strict=True):
        assert [other for other in stems if f"{other} ".startswith(f"{begin} ")] == [stem]


def test_values_are_no_words_of_the_filler() -> None:
    filler = " ".join(islice(filler_sentences(1), 3000)).casefold().split()
    said = {word.strip(".,") for word in filler}
    words = {n.value for seed in range(30) for n in deck(seed) if n.fact.kind == "word"}
    assert len(words) > 15
    assert not words & said
