from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.adapters.streaming import (
    Generation,
    Items,
    ThoughtSplitter,
    ends_in_thought,
    whole_reply,
    with_answer_prefix,
)
from lmstrix.errors import EngineTimeout, EngineUnavailable
from lmstrix.json_values import Json
from lmstrix.models import PrefillProgress, Reply, ReplyChunk


def split(pieces: list[str], *, inside: bool) -> tuple[str, str]:
    splitter = ThoughtSplitter(inside=inside)
    chunks = [chunk for piece in pieces for chunk in splitter.feed(piece)]
    chunks += splitter.finish()
    return (
        "".join(c.text for c in chunks if c.is_reasoning),
        "".join(c.text for c in chunks if not c.is_reasoning),
    )


@pytest.mark.parametrize(
    ("text", "inside", "expected"),
    [
        ("42", False, ("", "42")),
        (" 42\n", False, ("", " 42\n")),
        ("<think>\nhm</think>\n\n42", False, ("hm", "42")),
        ("\n<think></think>42", False, ("", "42")),
        ("hm</think>\n\n42 </think>", True, ("hm", "42 </think>")),
        ("hm", True, ("hm", "")),
        ("hm </thin", True, ("hm </thin", "")),
        ("<thin", False, ("", "<thin")),
        ("a <think>b</think>", False, ("", "a <think>b</think>")),
        ("</think>", False, ("", "</think>")),
        ("", True, ("", "")),
    ],
)
def test_thoughts_are_told_apart(text: str, inside: bool, expected: tuple[str, str]) -> None:
    assert split([text], inside=inside) == expected
    assert split(list(text), inside=inside) == expected


PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "<thi", "nk>", "</", "think>", " ", "\n", "x", "<"])
    | st.text(max_size=5),
    max_size=12,
)


@given(pieces=PIECES, inside=st.booleans())
def test_how_the_text_is_cut_does_not_matter(pieces: list[str], inside: bool) -> None:
    assert split(pieces, inside=inside) == split(["".join(pieces)], inside=inside)


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        ("<|im_start|>assistant\n", "<|im_start|>assistant\nYes"),
        ("assistant\n<think>\n", "assistant\n<think>\n\n</think>\n\nYes"),
        ("assistant<think>", "assistant<think>\n\n</think>\n\nYes"),
        ("assistant\n<think>\n\n</think>\n\n", "assistant\n<think>\n\n</think>\n\nYes"),
        ("<|start|>assistant", "<|start|>assistant<|channel|>final<|message|>Yes"),
    ],
)
def test_an_answer_prefix_stands_behind_the_thought(formatted: str, expected: str) -> None:
    assert with_answer_prefix(formatted, "Yes") == expected
    assert with_answer_prefix(formatted, "") == formatted
    assert not ends_in_thought(with_answer_prefix(formatted, "Yes"))


class Parrot(Generation):
    """Every event is a piece of the reply, or progress of the prefill."""

    def _facts(self, event: Json, elapsed_s: float) -> list[PrefillProgress | ReplyChunk]:
        if "text" not in event:
            return [PrefillProgress(prompt_tokens=9, cached_tokens=0, processed_tokens=1)]
        self._written(str(event["text"]), elapsed_s)
        return self._said(self._splitter.feed(str(event["text"])))


ENDLESS: dict[str, tuple[Json, float, type[Exception]]] = {
    "in tokens": ({"text": "a "}, 0.0, EngineUnavailable),
    "in empty pieces": ({"text": ""}, 0.0, EngineUnavailable),
    "in text": ({"text": "a" * 50_000}, 0.0, EngineUnavailable),
    "in prefill": ({}, 0.0, EngineUnavailable),
    "in time": ({"text": "a"}, 100.0, EngineTimeout),
}


@pytest.mark.parametrize(("event", "step_s", "kind"), ENDLESS.values(), ids=ENDLESS.keys())
def test_a_reply_that_never_ends_is_given_up(
    event: Json, step_s: float, kind: type[Exception]
) -> None:
    generation = Parrot(prompt_tokens=9, max_tokens=4, in_thought=False)

    def feed_many() -> None:
        for number in range(2000):
            generation.feed(event, number * step_s)

    with pytest.raises(kind, match="did not end a reply of 4 tokens"):
        feed_many()


async def test_more_cached_tokens_than_the_prompt_has_say_nothing() -> None:
    """The costs of a search would be negative."""

    async def items(cached: int) -> Items:
        yield Reply(text="", prompt_tokens=500, cached_tokens=cached)

    assert (await whole_reply(items(500))).cached_tokens == 500
    assert (await whole_reply(items(501))).cached_tokens is None
