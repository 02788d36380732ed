"""The coherence validator: the contract, and what simulated models write. The classifier of
texts has tests of its own.
"""

from __future__ import annotations

import pytest

from lmstrix.models import Judgement, Question, Reply, StopReason
from lmstrix.ports import ComparingValidator, LoadedModel, Validator
from lmstrix.testing.contracts.validator import ValidatorContract
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.coherence import Coherence

LANGUAGE = (
    " small boy who lived by the sea. He had a boat of his own, and every morning he went out "
    "to catch fish for his mother. One day the wind was so strong that he could not turn back."
)


class TestCoherence(ValidatorContract):
    tells_values = False

    @pytest.fixture
    def validator(self) -> Validator:
        return Coherence()


async def judged(model: SimulatedModel, length: int) -> set[Judgement]:
    adapter, validator = SimulatedAdapter(model), Coherence()
    async with adapter.load(model.info, 8192) as loaded:
        source = validator.questions(loaded, 3)
        return {await one(loaded, validator, await source.question(length, i)) for i in range(8)}


async def one(loaded: LoadedModel, validator: Coherence, question: Question) -> Judgement:
    reply = await loaded.complete(
        question.prompt, max_tokens=question.max_tokens, stop=question.stop
    )
    return validator.judge(question, reply)


BROKEN = (Beyond.WORD_SALAD, Beyond.LOOPS, Beyond.NOISE, Beyond.EMPTY)


@pytest.mark.parametrize("beyond", Beyond)
async def test_every_model_writes_while_it_can(beyond: Beyond) -> None:
    assert await judged(SimulatedModel(true_context=2000, beyond=beyond), 2000) == {Judgement.PASS}


@pytest.mark.parametrize("beyond", BROKEN)
async def test_what_is_no_language_fails(beyond: Beyond) -> None:
    found = await judged(SimulatedModel(true_context=2000, beyond=beyond), 2100)
    assert found == {Judgement.EMPTY if beyond is Beyond.EMPTY else Judgement.GIBBERISH}


@pytest.mark.parametrize("beyond", [Beyond.FORGETS_HEAD, Beyond.FORGETS_ALL, Beyond.SAME_NUMBER])
async def test_who_forgets_still_writes(beyond: Beyond) -> None:
    model = SimulatedModel(true_context=2000, beyond=beyond)
    assert await judged(model, 8000) == {Judgement.PASS}


async def test_a_truth_of_its_own() -> None:
    model = SimulatedModel(true_context=2000, coherent_context=4000)
    assert await judged(model, 4000) == {Judgement.PASS}
    assert await judged(model, 4100) == {Judgement.GIBBERISH}


@pytest.mark.parametrize(
    ("reply", "judgement"),
    [
        (Reply(text=LANGUAGE, prompt_tokens=9), Judgement.PASS),
        (Reply(text="", prompt_tokens=9, stop_reason=StopReason.END), Judgement.EMPTY),
        (Reply(text=LANGUAGE[:20], prompt_tokens=9), Judgement.INCONCLUSIVE),
        (Reply(text=" the last" * 40, prompt_tokens=9), Judgement.GIBBERISH),
        (
            Reply(text=f"I'm sorry, but I cannot help with that. {LANGUAGE}", prompt_tokens=9),
            Judgement.INCONCLUSIVE,
        ),
    ],
)
async def test_replies(reply: Reply, judgement: Judgement) -> None:
    adapter = SimulatedAdapter()
    async with adapter.load(await adapter.find_model("simulated"), 8192) as loaded:
        question = await Coherence().questions(loaded, 1).question(512, 0)
    assert Coherence().judge(question, reply) is judgement


async def test_what_is_broken_at_short_length_too_says_nothing() -> None:
    validator = Coherence()
    assert isinstance(validator, ComparingValidator)
    adapter = SimulatedAdapter()
    async with adapter.load(await adapter.find_model("simulated"), 8192) as loaded:
        question = await validator.questions(loaded, 1).question(512, 0)
    loop = Reply(text=" They make bread by making it." * 12, prompt_tokens=9)
    assert validator.compare(question, loop, LANGUAGE) is Judgement.GIBBERISH
    assert validator.compare(question, loop, loop.text) is Judgement.INCONCLUSIVE
    fine = Reply(text=LANGUAGE, prompt_tokens=9)
    assert validator.compare(question, fine, loop.text) is Judgement.PASS
