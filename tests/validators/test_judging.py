"""Reading replies: right answers in any dress, wrong ones in the right one's."""

from __future__ import annotations

import pytest

from lmstrix.models import Judgement, Reply, StopReason
from lmstrix.validators.recall.judging import judge_reply


def judge(kind: str, expected: str, text: str) -> Judgement:
    reply = Reply(text=text, prompt_tokens=100, stop_reason=StopReason.STOP_STRING)
    return judge_reply(kind, expected, reply)


@pytest.mark.parametrize(
    "text",
    [
        " 48213",
        " 48213.",
        "**48213**",
        " 48,213 and then",
        " 48.213",
        " 48 213",
        " 48'213",
        " 48_213",
        " 48\u202f213",
        " 48\u00a0213",
        " 4 8 2 1 3",
        " \uff14\uff18\uff12\uff11\uff13",  # fullwidth digits
        " #48213!",
        "Sure! The text says that the vault opens with the number 48213.",
        "Not 11111 but 48213",
        "(48213), said the clerk",
        "48213 of the year",
    ],
)
def test_right_numbers(text: str) -> None:
    assert judge("number", "48213", text) is Judgement.PASS


@pytest.mark.parametrize(
    "text",
    [
        " 482130",
        " 148213",
        " 1,482,13",
        " 48.2135",
        " 4821",
        " 48231",
        " 8213",
        " forty-eight thousand",
        " x48213y48213z 99999 and 11111 or 22222",
        "It is 11111; 48213; 22222",
        "one of 48211; 48212; 48213; 48214",
        "I do not know.",
        "the same as before",
    ],
)
def test_wrong_numbers(text: str) -> None:
    assert judge("number", "48213", text) is Judgement.WRONG


@pytest.mark.parametrize(
    "text",
    [
        " BK-417",
        " BK-417.",
        " BK417",
        " bk-417",
        " Bk417,",
        " BK - 417",
        " BK\u2010417",
        " BK\u2011417",
        " BK\u2013417",
        " BK\u2014417",
        " BK\u2212417",
        " \uff22\uff2b\uff0d\uff14\uff11\uff17",  # fullwidth letters, hyphen and digits
        "The code is `BK-417`, as the text says",
    ],
)
def test_right_codes(text: str) -> None:
    assert judge("code", "BK-417", text) is Judgement.PASS


@pytest.mark.parametrize(
    "text", [" BK-418", " KB-417", " BK-4170", " ABK-417", " 417", " BK", " BK-41", "B-K and 417"]
)
def test_wrong_codes(text: str) -> None:
    assert judge("code", "BK-417", text) is Judgement.WRONG


def test_words_are_whole_words() -> None:
    assert judge("word", "Amber", " amber, I think") is Judgement.PASS
    assert judge("word", "amber", " chamber") is Judgement.WRONG


@pytest.mark.parametrize("text", ["", " ", "\n\t \u00a0"])
def test_nothing_is_empty(text: str) -> None:
    assert judge("number", "48213", text) is Judgement.EMPTY


@pytest.mark.parametrize(
    "text",
    [
        " the the the the the the",
        "The THE the the",
        "!!!!!",
        "\u2026 ??? \U0001f999",
        "=====a=====",
        "<<<>>> 1 {{{}}}",
        "____",
    ],
)
def test_loops_and_symbols_are_gibberish(text: str) -> None:
    assert judge("number", "48213", text) is Judgement.GIBBERISH


def test_a_right_value_among_symbols_passes() -> None:
    assert judge("number", "48213", "!!!!!!!!!!!! 48213 !!!!!!!!!!!!!") is Judgement.PASS


@pytest.mark.parametrize(
    ("text", "reasoning", "stop", "judgement"),
    [
        ("", "Let me see", StopReason.MAX_TOKENS, Judgement.INCONCLUSIVE),
        (" \n", "Let me see", StopReason.MAX_TOKENS, Judgement.INCONCLUSIVE),
        (" 48213", "", StopReason.CANCELLED, Judgement.INCONCLUSIVE),
        ("", "", StopReason.CANCELLED, Judgement.INCONCLUSIVE),
        # A thought that ended, and an answer that ran out, are answers.
        ("", "It is 48213", StopReason.END, Judgement.EMPTY),
        ("", "", StopReason.MAX_TOKENS, Judgement.EMPTY),
        (" 11111", "Let me see", StopReason.MAX_TOKENS, Judgement.WRONG),
        (" 48213 and", "Let me see", StopReason.MAX_TOKENS, Judgement.PASS),
    ],
)
def test_what_is_no_answer_at_all(
    text: str, reasoning: str, stop: StopReason, judgement: Judgement
) -> None:
    reply = Reply(text=text, reasoning=reasoning, stop_reason=stop, prompt_tokens=100)
    assert judge_reply("number", "48213", reply) is judgement
