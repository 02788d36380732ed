"""The recall validator: which needles are asked for, and what sizing costs."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from typing import cast

import pytest

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Prompt, Question, Region, Reply, StopReason
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix.validators.coherence import Coherence
from lmstrix.validators.needles import SPARE_FACTS, deck, distractors
from lmstrix.validators.recall import Recall


def is_closing(question: Question) -> bool:
    spare = {n.fact.stem for seed in (3, 1004) for n in deck(seed)[:SPARE_FACTS]}
    document = question.prompt.user.rsplit("\n\n", 1)[0]
    return question.prompt.answer_prefix in spare and document.endswith(f" {question.expected}.")


@pytest.mark.parametrize("length", [4096, 8192, 40000])
@pytest.mark.parametrize("region", Region)
async def test_ten_questions_differ(loaded: LoadedModel, length: int, region: Region) -> None:
    source = Recall().questions(loaded, 3)
    asked = [await source.question(length, i, region) for i in range(10)]
    told = Counter(q.expected for q in asked)
    at_an_end = region in (Region.HEAD, Region.TAIL)  # which are short: few needles stand there
    assert max(told.values()) <= (3 if at_an_end else 2)
    assert len(told) >= (5 if at_an_end else 9)
    assert len({(q.prompt.answer_prefix, q.prompt.user) for q in asked}) == 10
    closing = [i for i, q in enumerate(asked) if is_closing(q)]
    assert closing == ([2, 5, 8] if region is Region.TAIL else [])


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


async def test_documents_of_one_measurement_have_their_needles_in_each_others_gaps(
    loaded: LoadedModel,
) -> None:
    """In the middle of 60,000 tokens, needles stand 600 tokens apart or more."""
    first, second = [
        [(await source.question(60_000, i, Region.MIDDLE)).depth or 0 for i in range(40)]
        for source in (Recall().questions(loaded, seed) for seed in (1001, 1002))
    ]
    assert min(abs(a - b) for a in first for b in second) > 250 / 60_000


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


def asks(stem: str, value: str, kind: str = "number") -> Question:
    prompt = Prompt(user="", answer_prefix=stem)
    return Question(prompt=prompt, expected=value, kind=kind, depth=0.5, max_tokens=16)


LIST = Question(
    prompt=Prompt(user="A text.\n\nFinish these.", answer_prefix="1. The river is"),
    expected="",
    kind="several",
    depth=None,
    max_tokens=60,
    parts=(
        asks("The river is", "41234"),
        asks("The hill has the number", "52345"),
        asks("The fruit of the king is the", "kiwi", "word"),
    ),
)
SORRY = " I'm sorry, but I can't help with that."
HILL, FRUIT = "The hill has the number", "The fruit of the king is the"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (f" 41234.\n2. {HILL} 52345.\n3. {FRUIT} kiwi.", "+++"),
        (f" 41234\n\n2) **{HILL}** 52345\n3) {FRUIT.lower()} KIWI", "+++"),
        (" 41234. 2. 52345. 3. kiwi.", "+++"),
        (" 41234\n2. 52345\n3. kiwi", "+++"),
        (" 41234\n52345\nkiwi", "+++"),
        (f"1. The river is 41234.\n2. {HILL} 52345.\n3. kiwi", "+++"),
        (f" 41234.\n3. {FRUIT} kiwi.", "+-+"),
        (f" 41234.\n{FRUIT} kiwi.\n{HILL} 52345.", "+++"),
        (f" 41234.\n2. {HILL} 41234.\n3. {FRUIT} mango.", "+--"),
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
    ("text", "reasoning", "stop", "judgement"),
    [
        ("", "", StopReason.END, Judgement.EMPTY),
        (" 4", "", StopReason.CANCELLED, Judgement.INCONCLUSIVE),
        ("#$%&* " * 9, "", StopReason.UNKNOWN, Judgement.GIBBERISH),
        ("", "Hm", StopReason.MAX_TOKENS, Judgement.INCONCLUSIVE),
        (SORRY, "", StopReason.UNKNOWN, Judgement.INCONCLUSIVE),
    ],
)
def test_what_is_no_answer_says_so_of_every_part(
    text: str, reasoning: str, stop: StopReason, judgement: Judgement
) -> None:
    reply = Reply(text=text, reasoning=reasoning, stop_reason=stop, prompt_tokens=9)
    assert set(Recall().judge_each(LIST, reply)) == {judgement}


def test_no_value_stands_for_two_facts() -> None:
    for seed in range(20):
        values = [n.value for n in deck(seed)]
        values += [d.sentence.split()[-1].strip(".") for d in distractors(deck(seed), seed)]
        assert len(set(values)) == len(values)
