from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.adapters.streaming import (
    ThoughtSplitter,
    ends_in_thought,
    with_answer_prefix,
)


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
