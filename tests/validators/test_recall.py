"""The recall validator: the contract, which needles are asked for, and what sizing costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator
from itertools import pairwise

import pytest

from lmstrix.errors import ConfigurationError
from lmstrix.models import Prompt, Question
from lmstrix.ports import LoadedModel, Validator
from lmstrix.testing.contracts.validator import ValidatorContract
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators.needles import SPARE_FACTS, deck, distractors
from lmstrix.validators.recall import Recall

HUGE = 10**6


class TestRecall(ValidatorContract):
    @pytest.fixture
    def validator(self) -> Validator:
        return Recall()


@pytest.fixture
async def loaded() -> AsyncGenerator[LoadedModel, None]:
    adapter = SimulatedAdapter(SimulatedModel(declared=HUGE, true_context=HUGE))
    async with adapter.load(await adapter.find_model("simulated"), HUGE) as loaded:
        yield loaded


def region(question: Question) -> str:
    depth = question.depth or 0.0
    if depth <= 0.1:
        return "head"
    if question.prompt.user.rsplit("\n\n", 1)[0].endswith(f"{question.expected}."):
        return "tail"
    return "middle" if 0.35 < depth <= 0.65 else "spread"


def stems(text: str) -> set[str]:
    return {n.fact.stem for n in deck(3) if f"{n.fact.stem} {n.value}" in text}


@pytest.mark.parametrize("length", [1024, 2048, 3000, 4096, 8192, 16384, 65536])
async def test_all_regions_are_in_the_first_four_questions(
    loaded: LoadedModel, length: int
) -> None:
    source = Recall().questions(loaded, 3)
    regions = [region(await source.question(length, i)) for i in range(4)]
    assert sorted(regions) == ["head", "middle", "spread", "tail"]


@pytest.mark.parametrize("length", [4096, 8192, 40000])
async def test_no_needle_weighs_more_than_some_tenth(loaded: LoadedModel, length: int) -> None:
    source = Recall().questions(loaded, 3)
    asked = [await source.question(length, i) for i in range(20)]
    told = Counter(q.expected for q in asked)
    assert max(told.values()) <= 3
    assert len(told) >= 12
    assert len({(q.prompt.answer_prefix, q.prompt.user) for q in asked}) == 20


@pytest.mark.parametrize("share", [0.95, 0.9, 0.8, 0.7, 0.5])
@pytest.mark.parametrize("length", [4096, 11000, 40000])
async def test_the_pass_rate_falls_as_the_window_is_lost(
    loaded: LoadedModel, length: int, share: float
) -> None:
    """From the head on, or around the middle: about as many questions as tokens are lost."""
    source = Recall().questions(loaded, 3)
    depths = [(await source.question(length, i)).depth or 0.0 for i in range(20)]
    head = sum(depth > 1 - share for depth in depths) / 20
    middle = sum(abs(depth - 0.5) > (1 - share) / 2 for depth in depths) / 20
    for rate in (head, middle):
        assert share - 0.2 < rate < share + 0.1


async def test_the_number_of_needles_grows_with_the_logarithm(loaded: LoadedModel) -> None:
    """Each doubling adds four at most (log 2 / log 1.2 = 3.8), from a few at 512 tokens."""
    source = Recall().questions(loaded, 3)
    counts = [len(stems((await source.question(n, 0)).prompt.user)) for n in DOUBLINGS]
    assert 3 <= counts[0] <= 6
    added = [b - a for a, b in pairwise(counts)]
    assert all(2 <= more <= 5 for more in added)


async def test_a_map_asks_at_the_depth_it_wants(loaded: LoadedModel) -> None:
    source = Recall().questions(loaded, 3)
    for depth in (0.0, 0.2, 0.5, 0.8):
        question = await source.at_depth(8192, depth)
        assert abs((question.depth or 0.0) - depth) < 0.1
        assert await source.at_depth(8192, depth) == question
        assert await source.at_depth(8192, depth, turn=1) != question


async def test_a_distractor_is_near_and_never_asked_for(loaded: LoadedModel) -> None:
    source = Recall().questions(loaded, 3)
    asked = [await source.question(16384, i) for i in range(40)]
    text = asked[0].prompt.user
    near = list(distractors(deck(3)[SPARE_FACTS:], 3))
    standing = [d for d in near if d.sentence in text]
    assert standing
    told = {q.expected for q in asked}
    for distractor in standing:
        assert distractor.sentence.split()[-1].strip(".") not in told
        assert set(distractor.sentence.split()) & set(distractor.near.sentence.split())


@pytest.mark.parametrize("seed", range(20))
def test_no_value_stands_for_two_facts(seed: int) -> None:
    values = [n.value for n in deck(seed)]
    values += [d.sentence.split()[-1].strip(".") for d in distractors(deck(seed), seed)]
    assert len(set(values)) == len(values)


DOUBLINGS = (512, 1024, 2048, 4096, 8192, 16384)


class Counting:
    """A loaded model that counts the characters it is made to tokenise."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded
        self.plain = self.prompts = self.prompt_calls = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._loaded, name)

    async def count_tokens(self, text: str) -> int:
        self.plain += len(text)
        return await self._loaded.count_tokens(text)

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        self.prompt_calls += 1
        self.prompts += len(prompt.user)
        return await self._loaded.count_prompt_tokens(prompt)


async def test_the_text_is_not_tokenised_over_and_over(loaded: LoadedModel) -> None:
    counting = Counting(loaded)
    source = Recall().questions(counting, 3)  # type: ignore[arg-type] - delegates the rest
    longest = 0
    for length in DOUBLINGS:
        for index in range(20):
            question = await source.question(length, index)
            longest = max(longest, len(question.prompt.user))
    assert counting.plain <= 3 * longest
    # Each length's whole prompt once or twice; the lengths themselves add up to two documents.
    assert counting.prompts <= 4 * longest
    plain, prompts = counting.plain, counting.prompts
    for index in range(100):
        await source.question(DOUBLINGS[-1], index)
    assert (counting.plain, counting.prompts) == (plain, prompts)


async def test_too_short_a_length_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ConfigurationError, match="144 tokens or more"):
        await Recall().questions(loaded, 3).question(140, 0)
