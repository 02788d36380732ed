"""What simulated models answer beyond their true context."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from lmstrix.models import Prompt, Reply, StopReason
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

WORDS = " ".join(f"w{n}." for n in range(300))
FACTS = {
    "head": f"The river is 41. {WORDS}",
    "middle": f"{WORDS} The river is 41. {WORDS}",
    "end": f"{WORDS} The river is 41.",
}
MODEL = SimulatedModel(true_context=400)


async def asked(model: SimulatedModel, user: str, prefix: str = "The river is") -> Reply:
    adapter = SimulatedAdapter(model)
    async with adapter.load(await adapter.find_model(model.key), 8192) as loaded:
        return await loaded.complete(Prompt(user=user, answer_prefix=prefix), max_tokens=12)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"beyond": Beyond.FORGETS_HEAD}, {"end"}),
        ({"beyond": Beyond.FORGETS_MIDDLE}, {"head", "end"}),
        ({"beyond": Beyond.KEEPS_FIRST}, {"head"}),
        ({"band": (0.0, 0.1), "beyond": Beyond.GIBBERISH}, {"middle", "end"}),
        ({"band": (0.4, 0.6), "beyond": Beyond.GIBBERISH}, {"head", "end"}),
        ({"band": (0.9, 1.0), "beyond": Beyond.GIBBERISH}, {"head", "middle"}),
    ],
)
async def test_what_is_forgotten(change: dict[str, Any], known: set[str]) -> None:
    model, request = attrs.evolve(MODEL, **change), "\n\nSay it again."
    replies = {place: (await asked(model, user + request)).text for place, user in FACTS.items()}
    assert {place for place, text in replies.items() if text.strip() == "41."} == known
    assert (await asked(model, "The river is 41.")).text.strip() == "41."


async def test_a_model_that_keeps_the_first_tokens_still_sees_the_request() -> None:
    model = attrs.evolve(MODEL, beyond=Beyond.KEEPS_FIRST)
    user = f"{FACTS['head']} {WORDS}\n\nContinue the text."
    assert (await asked(model, user)).text.startswith(" 41. w0")
    assert (await asked(model, user.replace("Continue", "Repeat"))).text.strip() == "41."


async def test_it_completes_a_list_line_by_line() -> None:
    text = f"The river is 41. The hill is red. {WORDS} The well is deep."
    user = f"{text}\n\nComplete these sentences:\n1. The river is\n2. The well is\n3. The hill is"
    whole = attrs.evolve(MODEL, true_context=9000)
    assert (await asked(whole, user, "1. The river is")).text == (
        " 41.\n2. The well is deep.\n3. The hill is red."
    )
    assert (await asked(MODEL, user, "1. The river is")).text == (
        " something else.\n2. The well is deep.\n3. The hill is something else."
    )
    replies = [
        await asked(
            attrs.evolve(whole, lapses=0.5),
            user.replace("these", f"these {n}"),
            "1. The river is",
        )
        for n in range(20)
    ]
    assert len({reply.text for reply in replies}) > 3


@pytest.mark.parametrize("beyond", [Beyond.NOISE, Beyond.WORD_SALAD, Beyond.LOOPS])
async def test_what_never_ends_is_cut_off_and_repeatable(beyond: Beyond) -> None:
    model = attrs.evolve(MODEL, beyond=beyond)
    reply = await asked(model, FACTS["end"])
    assert reply.stop_reason is StopReason.MAX_TOKENS
    assert reply.generated_tokens == 12
    assert reply == await asked(model, FACTS["end"])
    assert reply.text != (await asked(model, FACTS["head"])).text or beyond is Beyond.LOOPS
    assert (await asked(model, "The river is 41.")).text.strip() == "41."


async def test_it_thinks_unless_the_answer_has_begun() -> None:
    model = attrs.evolve(MODEL, reasoning="Hm, a river.")
    assert (await asked(model, "The river is 41.")).reasoning == ""
    reply = await asked(model, "The river is 41.", prefix="")
    assert reply.reasoning == "Hm, a river."
    assert reply.generated_tokens == 5 + 3


async def test_it_goes_on_with_the_text_when_told_to_copy() -> None:
    user = f"The river is 41. {WORDS}\n\nContinue the text from these words on."
    assert (await asked(attrs.evolve(MODEL, true_context=2000), user)).text == (
        " 41. w0. w1. w2. w3. w4."
    )


async def test_it_writes_when_told_to_write() -> None:
    user = f"{WORDS}\n\nWrite a long story."
    first = await asked(MODEL, user, prefix="Once")
    assert first.stop_reason is StopReason.MAX_TOKENS
    assert len(first.text.split()) > 8
    assert "w1" not in first.text
    assert (await asked(attrs.evolve(MODEL, coherent_context=100), user, prefix="Once")) != first


@pytest.mark.parametrize(
    ("habit", "text"),
    [
        (Beyond.SAME_NUMBER, " 48213."),
        (Beyond.REFUSES, " I'm sorry, but I cannot help with that."),
        (Beyond.ECHOES, " The river is 41. w0. w1. w2. w"),
    ],
)
async def test_habits(habit: Beyond, text: str) -> None:
    model = attrs.evolve(MODEL, true_context=0, beyond=habit)
    assert (await asked(model, FACTS["head"])).text.startswith(text)
    assert (await asked(model, "The river is 41.")).text != " 41."
