"""The recall validator: which needles are asked for, and what sizing costs."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from itertools import pairwise
from math import ceil, log
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Prompt, Question, Region, Reply, StopReason
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators.coherence import Coherence
from lmstrix.validators.needles import (
    SPARE_FACTS,
    choices,
    deck,
    distractors,
    needle_positions,
    standing,
)
from lmstrix.validators.recall import Recall


def is_closing(question: Question) -> bool:
    spare = {n.fact.stem for seed in (3, 1004) for n in deck(seed)[:SPARE_FACTS]}
    document = question.prompt.user.rsplit("\n\n", 1)[0]
    return question.prompt.answer_prefix in spare and document.endswith(f" {question.expected}.")


@pytest.mark.parametrize("length", [4096, 8192, 40000])
@pytest.mark.parametrize("region", Region)
async def test_ten_questions_ask_for_different_needles(
    loaded: LoadedModel, length: int, region: Region
) -> None:
    source = Recall().questions(loaded, 3)
    asked = [await source.question(length, i, region) for i in range(10)]
    told = Counter(q.expected for q in asked)
    inside = sum(begin_to_end(region, length, p) for p in standing(3, length))
    assert max(told.values()) <= ceil(10 / (inside - 1)) + 1
    assert len(told) >= min(10, inside - 2)  # one may land behind the next border
    assert len({(q.prompt.answer_prefix, q.prompt.user) for q in asked}) == 10
    closing = [i for i, q in enumerate(asked) if is_closing(q)]
    assert closing == ([2, 5, 8] if region is Region.TAIL else [])


def begin_to_end(region: Region, length: int, position: float) -> bool:
    begin, end = region.span
    return begin * length <= position < end * length


async def test_a_document_keeps_no_model_alive() -> None:
    adapter = SimulatedAdapter(SimulatedModel(key="m"))
    async with adapter.load(SimulatedModel(key="m").info, 4096) as loaded:
        source: QuestionSource | None = Recall().questions(loaded, 77)
        assert source is not None
        await source.question(2048, 0)
        lives = weakref.ref(loaded)
    del loaded, source
    gc.collect()
    assert lives() is None


async def test_questions_fill_short_lengths_too(loaded: LoadedModel) -> None:
    source = Recall().questions(loaded, 3)
    for length in (512, 768, 1024, 2048, 4096, 5120, 8192):
        for index in range(10):
            question = await source.question(length, index)
            prompt_tokens = await loaded.count_prompt_tokens(question.prompt)
            assert 0.97 * length <= prompt_tokens
            assert prompt_tokens + question.max_tokens <= length


@pytest.mark.parametrize("region", Region)
async def test_short_lengths_have_questions_too(loaded: LoadedModel, region: Region) -> None:
    """A region without a needle asks for the nearest one, the tail for closing facts."""
    source = Recall().questions(loaded, 1004)
    for length in (200, 300, 512):
        asked = [await source.question(length, i, region) for i in range(10)]
        assert {q.region for q in asked} == {region}
        if region is Region.TAIL:
            assert all(is_closing(q) for q in asked)
            assert len({q.expected for q in asked}) == 10


@pytest.mark.parametrize("seed", [1001, 1002, 1003, 1004, 900_001])
@pytest.mark.parametrize("length", [4096, 4500, 6000, 8192, 33_333, 131_072, 1_000_000])
def test_needles_stand_densely_enough(seed: int, length: int) -> None:
    positions = standing(seed, length)
    inside = {r: sum(begin_to_end(r, length, p) for p in positions) for r in Region}
    assert min(inside.values()) >= 3
    assert min(inside[Region.MIDDLE], inside[Region.LATE], inside[Region.EARLY]) >= 6
    assert len(positions) < 1.05 * (35 + log(length / 3429) / log(1.028)) + 1


def test_documents_of_one_measurement_have_their_needles_in_each_others_gaps() -> None:
    first, second = (list(needle_positions(seed, 50_000)) for seed in (1001, 1002))
    for (a, b), between in zip(pairwise(first), second, strict=False):
        assert 0.45 < (between - a) / (b - a) < 0.55
    third, fourth = (next(needle_positions(seed, 200)) for seed in (1003, 1004))
    assert (third, fourth) == (72, 120)


async def test_the_text_has_its_needles_where_they_are_planned(loaded: LoadedModel) -> None:
    source = Recall().questions(loaded, 1002)
    for index in range(40):
        question = await source.question(60_000, index, Region.MIDDLE)
        position = (question.depth or 0) * 60_000
        assert min(abs(position - p) for p in standing(1002, 60_000)) < 60


@given(
    positions=st.lists(st.integers(0, 9000), unique=True).map(sorted),
    length=st.integers(512, 9000),
    region=st.sampled_from(Region),
)
def test_choices_are_fair(positions: list[int], length: int, region: Region) -> None:
    """Each needle of the region comes before any comes twice; more questions change none."""
    picks = choices(positions, length, region, 25)
    assert all(picks[:n] == choices(positions, length, region, n) for n in (1, 10))
    inside = {i for i, p in enumerate(positions) if begin_to_end(region, length, p)}
    asked = [p for p in picks if p is not None]
    if inside:
        assert set(asked) <= inside
        times = Counter(dict.fromkeys(inside, 0) | Counter(asked))
        assert max(times.values()) - min(times.values()) <= 1


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


async def asked_everywhere(loaded: LoadedModel, lengths: list[int], seed: int) -> int:
    """Ask recall and coherence at all lengths; the characters of the longest prompt."""
    longest = 0
    for validator in (Recall(), Coherence()):
        source = validator.questions(loaded, seed)
        for length in lengths:
            for region in validator.regions or (None,):
                for index in range(4):
                    question = await source.question(length, index, region)
                    longest = max(longest, len(question.prompt.user))
    return longest


@pytest.mark.parametrize("answer", [8192, 65_536])
async def test_the_text_is_not_tokenised_over_and_over(loaded: LoadedModel, answer: int) -> None:
    """A climb to the answer, sixty lengths around it, and a certificate on another document."""
    counting = Counting(loaded)
    model = cast("LoadedModel", counting)
    climb = [512 * 2**n for n in range(20) if 512 * 2**n <= answer]
    near = [answer + step * answer // 256 for step in range(-30, 30)]
    longest = await asked_everywhere(model, [*climb, *near], 1001)
    await asked_everywhere(model, near, 1002)
    assert counting.plain + counting.prompts <= 6 * longest
    assert counting.prompt_calls < 60
    before = counting.plain, counting.prompts
    await asked_everywhere(model, near, 1001)
    assert counting.plain == before[0]


async def test_too_short_a_length_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ConfigurationError, match="144 tokens or more"):
        await Recall().questions(loaded, 3).question(140, 0)


FACTS = (
    ("The river is", "41234"),
    ("The hill has the number", "52345"),
    ("The fruit of the king is the", "kiwi"),
)
LIST = Question(
    prompt=Prompt(user="A text.\n\nFinish these.", answer_prefix="1. The river is"),
    expected="",
    kind="several",
    depth=None,
    max_tokens=60,
    parts=tuple(
        Question(
            prompt=Prompt(user="", answer_prefix=stem),
            expected=value,
            kind="word" if value == "kiwi" else "number",
            depth=0.5,
            max_tokens=16,
        )
        for stem, value in FACTS
    ),
)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (
            " 41234.\n2. The hill has the number 52345.\n3. The fruit of the king is the kiwi.",
            "+++",
        ),
        (
            " 41234\n\n2) **The hill has the number** 52345\n3) the fruit of the king is the KIWI",
            "+++",
        ),
        (" 41234. 2. 52345. 3. kiwi.", "+++"),
        (" 41234\n2. 52345\n3. kiwi", "+++"),
        (" 41234\n52345\nkiwi", "+++"),
        ("1. The river is 41234.\n2. The hill has the number 52345.\n3. kiwi", "+++"),
        (" 41234.\n3. The fruit of the king is the kiwi.", "+-+"),
        (" 41234.\nThe fruit of the king is the kiwi.\nThe hill has the number 52345.", "+++"),
        (
            " 41234.\n2. The hill has the number 41234.\n3. The fruit of the king is the mango.",
            "+--",
        ),
        (" 52345\n2. 41234\n3. kiwi", "--+"),
        (" 41234.", "+--"),
        (" 41234, 52345, kiwi, 61234, 71234", "---"),
        (" nothing that I know of.", "---"),
        (" 11111\n2. 22222\n3. 33333\n4. kiwi", "---"),
    ],
)
def test_each_part_is_judged_by_itself(text: str, right: str) -> None:
    judged = Recall().judge_each(LIST, Reply(text=text, prompt_tokens=90))
    assert "".join("+" if j is Judgement.PASS else "-" for j in judged) == right
    assert set(judged) <= {Judgement.PASS, Judgement.WRONG}
    whole = Recall().judge(LIST, Reply(text=text, prompt_tokens=90))
    assert (whole is Judgement.PASS) == (right == "+++")


@pytest.mark.parametrize(
    ("reply", "judgement"),
    [
        (Reply(text="", prompt_tokens=9, stop_reason=StopReason.END), Judgement.EMPTY),
        (
            Reply(text=" 4", prompt_tokens=9, stop_reason=StopReason.CANCELLED),
            Judgement.INCONCLUSIVE,
        ),
        (Reply(text="#$%&* " * 9, prompt_tokens=9), Judgement.GIBBERISH),
        (
            Reply(text="", reasoning="Hm", prompt_tokens=9, stop_reason=StopReason.MAX_TOKENS),
            Judgement.INCONCLUSIVE,
        ),
        (
            Reply(text=" I'm sorry, but I can't help with that.", prompt_tokens=9),
            Judgement.INCONCLUSIVE,
        ),
    ],
)
def test_what_is_no_answer_says_so_of_every_part(reply: Reply, judgement: Judgement) -> None:
    assert set(Recall().judge_each(LIST, reply)) == {judgement}
