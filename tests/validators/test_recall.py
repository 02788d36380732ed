"""The recall validator: the contract, which needles are asked for, and what sizing costs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import pairwise

import pytest

from lmstrix.errors import ConfigurationError
from lmstrix.models import Prompt, Question
from lmstrix.ports import LoadedModel, Validator
from lmstrix.testing.contracts.validator import ValidatorContract
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators.recall import Recall
from lmstrix.validators.recall.needles import deck

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
    return "middle" if 0.25 < depth <= 0.75 else "spread"


def stems(text: str) -> set[str]:
    return {n.fact.stem for n in deck(3) if f"{n.fact.stem} {n.value}" in text}


async def rounds(loaded: LoadedModel, length: int) -> list[Question]:
    """One round: as many questions as pass before a needle of the document comes again."""
    source = Recall().questions(loaded, 3)
    asked = [await source.question(length, i) for i in range(40)]
    first = asked[0].prompt.answer_prefix
    again = next(i for i, q in enumerate(asked) if i and q.prompt.answer_prefix == first)
    return asked[:again]


@pytest.mark.parametrize("length", [2048, 4096, 8192, 16384, 65536])
async def test_all_regions_are_in_the_first_four_questions(
    loaded: LoadedModel, length: int
) -> None:
    source = Recall().questions(loaded, 3)
    regions = [region(await source.question(length, i)) for i in range(4)]
    assert sorted(regions) == ["head", "middle", "spread", "tail"]


@pytest.mark.parametrize("length", [1024, 4096, 16384])
async def test_each_needle_is_asked_for_once_in_a_round(loaded: LoadedModel, length: int) -> None:
    asked = await rounds(loaded, length)
    placed = [q.prompt.answer_prefix for q in asked if region(q) != "tail"]
    assert len(placed) == len(set(placed))
    assert sum(region(q) == "tail" for q in asked) == 2
    text = asked[0].prompt.user
    missing = stems(text) - set(placed)
    heads = sum(text.index(stem) < 0.11 * len(text) for stem in stems(text))
    assert len(missing) == max(0, heads - 3), "only the head's needles are more than are asked for"


async def test_the_number_of_needles_grows_with_the_logarithm(loaded: LoadedModel) -> None:
    """Each doubling adds one or two (log 2 / log 1.6 = 1.5), from a few at 512 tokens."""
    source = Recall().questions(loaded, 3)
    counts = [len(stems((await source.question(n, 0)).prompt.user)) for n in DOUBLINGS]
    assert 3 <= counts[0] <= 6
    added = [b - a for a, b in pairwise(counts)]
    assert all(0 <= more <= 3 for more in added)
    assert 1 <= sum(added) / len(added) <= 2


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
    with pytest.raises(ConfigurationError, match="128 tokens or more"):
        await Recall().questions(loaded, 3).question(100, 0)
