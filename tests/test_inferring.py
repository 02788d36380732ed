from __future__ import annotations

import pytest

from lmstrix import LMStrix
from lmstrix.errors import ConfigurationError, ContextOverflow
from lmstrix.models import Prompt, Reply
from lmstrix.testing.simulated import SimulatedAdapter


async def test_a_prompt_may_have_a_system_text() -> None:
    async with LMStrix(adapter=SimulatedAdapter(), store="memory") as lmstrix:
        plain = await lmstrix.infer("simulated", "Why?")
        asked = Prompt(user="Why?", system="Be very kind.")
        async with lmstrix.stream("simulated", asked) as stream:
            pieces = [piece async for piece in stream]
    whole = pieces[-1]
    assert isinstance(whole, Reply)
    assert whole.prompt_tokens > plain.prompt_tokens


async def test_what_does_not_fit_is_not_asked() -> None:
    adapter = SimulatedAdapter()
    async with LMStrix(adapter=adapter, store="memory") as lmstrix:
        with pytest.raises(ContextOverflow) as caught:
            await lmstrix.infer("simulated", "word " * 100, max_tokens=8, context_length=64)
        with pytest.raises(ConfigurationError):
            await lmstrix.infer("simulated", "Why?", max_tokens=0)
    assert (caught.value.context_length, adapter.counters.replies) == (64, 0)
    assert caught.value.prompt_tokens is not None
    assert caught.value.prompt_tokens > 100
    assert adapter.counters.left_behind == 0
