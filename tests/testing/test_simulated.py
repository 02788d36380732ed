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


@pytest.mark.parametrize("beyond", [Beyond.NOISE, Beyond.WORD_SALAD, Beyond.LOOPS])
async def test_what_never_ends_is_cut_off_and_repeatable(beyond: Beyond) -> None:
    model = attrs.evolve(MODEL, beyond=beyond)
    reply = await asked(model, FACTS["end"])
    assert reply.stop_reason is StopReason.MAX_TOKENS
    assert reply.generated_tokens == 12
    assert reply == await asked(model, FACTS["end"])
    assert reply.text != (await asked(model, FACTS["head"])).text or beyond is Beyond.LOOPS
    assert (await asked(model, "The river is 41.")).text.strip() == "41."
