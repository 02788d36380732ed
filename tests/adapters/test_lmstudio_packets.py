"""What the packets of a prediction mean."""

from __future__ import annotations

import pytest

from lmstrix.adapters.lmstudio.protocol import Generation
from lmstrix.errors import (
    ContextOverflow,
    EngineUnavailable,
    PredictionError,
    PromptTruncated,
)
from lmstrix.json_values import Json
from lmstrix.models import PrefillProgress, Reply, ReplyChunk, StopReason


def started(
    *, sent: int | None = 100, max_tokens: int = 10, context: int = 512, thinks: bool = False
) -> Generation:
    return Generation(prompt_tokens=sent, max_tokens=max_tokens, context=context, in_thought=thinks)


def fragment(content: object, kind: object = "none") -> Json:
    return {"type": "fragment", "fragment": {"content": content, "reasoningType": kind}}


def success(reason: str = "eosFound", read: object = 100, generated: object = 3) -> Json:
    stats = {"stopReason": reason, "promptTokensCount": read, "predictedTokensCount": generated}
    return {"type": "success", "stats": stats}


def progress(**details: object) -> Json:
    return {"type": "promptProcessingProgress", "progress": 0.5, "details": details}


def reply_of(generation: Generation, *packets: Json) -> Reply:
    for packet in packets:
        generation.feed(packet, 1.5)
    assert generation.reply is not None
    return generation.reply


TOLD = (
    fragment("<think>", "reasoningStartTag"),
    fragment("hm", "reasoning"),
    fragment("</think>", "reasoningEndTag"),
    fragment("Yes"),
)


@pytest.mark.parametrize(
    ("thinks", "packets"),
    [
        (False, TOLD),
        (True, TOLD),
        (False, (fragment("<thi"), fragment("nk>hm</think>Yes"))),
        (True, (fragment("hm</think>Yes"),)),
    ],
)
def test_reasoning_is_kept_apart(thinks: bool, packets: tuple[Json, ...]) -> None:
    reply = reply_of(started(thinks=thinks), *packets, success())
    assert (reply.text, reply.reasoning) == ("Yes", "hm")


def test_what_is_held_back_comes_with_the_last_packet() -> None:
    generation = started()
    assert generation.feed(fragment("<th"), 0.0) == []
    assert generation.feed(success(), 0.0) == [ReplyChunk(text="<th")]


@pytest.mark.parametrize("reason", ["eosFound", "contextLengthReached"])
@pytest.mark.parametrize("read", [0, -1, None, 10**9, "100", float("nan"), True])
def test_an_unknown_number_of_prompt_tokens_is_no_limit(read: object, reason: str) -> None:
    """Least of all that the server had shortened the prompt; but without any count, that the
    context is full is believed.
    """
    believed = read is None and reason == "contextLengthReached"
    with pytest.raises(ContextOverflow if believed else EngineUnavailable):
        started().feed(success(reason, read=read, generated=0), 0.0)


def test_numbers() -> None:
    told = {"timeToFirstTokenSec": 0.25, "tokensPerSecond": float("inf")}
    last = {"type": "success", "stats": {"promptTokensCount": 100, **told}}
    reply = reply_of(started(), fragment("a"), last)
    assert (reply.ttft_s, reply.tokens_per_second, reply.cached_tokens) == (0.25, None, None)
    assert reply_of(started(), fragment("a"), success()).ttft_s == 1.5


def test_progress() -> None:
    generation = started()
    counts = {"cachedTokenCount": 40, "totalPromptTokenCount": 100}
    (first,) = generation.feed(progress(**counts, unprocessedPromptTokenCount=30), 0.0)
    assert first == PrefillProgress(prompt_tokens=100, cached_tokens=40, processed_tokens=70)
    (second,) = generation.feed(progress(**counts, unprocessedPromptTokenCount=50), 0.0)
    assert second == first
    (third,) = started().feed(progress(), 0.0)
    assert third == PrefillProgress(prompt_tokens=100, cached_tokens=0, processed_tokens=50)
    assert started(sent=None).feed(progress(), 0.0) == []
    assert reply_of(generation, success()).cached_tokens == 40


def test_less_read_than_sent_is_a_truncated_prompt() -> None:
    with pytest.raises(PromptTruncated) as caught:
        started().feed(success(read=99), 0.0)
    assert (caught.value.read_tokens, caught.value.sent_tokens) == (99, 100)
    generation = started()
    assert reply_of(generation, success(read=101)).prompt_tokens == 101
    assert generation.surplus == 1


def test_the_end_of_the_context() -> None:
    full = success("contextLengthReached", generated=3)
    assert reply_of(started(), full).stop_reason is StopReason.CONTEXT_LENGTH
    for generation, packet in (
        (started(context=105), full),
        (started(), success("contextLengthReached", generated=0)),
    ):
        with pytest.raises(ContextOverflow) as caught:
            generation.feed(packet, 0.0)
        assert caught.value.prompt_tokens == 100


def test_other_ends() -> None:
    with pytest.raises(EngineUnavailable):
        started().feed(success("modelUnloaded"), 0.0)
    with pytest.raises(PredictionError):
        started().feed(success("failed"), 0.0)
    assert reply_of(started(), success("of tomorrow")).stop_reason is StopReason.UNKNOWN
