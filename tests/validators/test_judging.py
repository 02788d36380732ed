"""Reading replies: right answers in any dress, wrong ones in the right one's."""

from __future__ import annotations

from collections import Counter

import pytest

from lmstrix.models import Judgement, Prompt, Question, Reply, StopReason
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel
from lmstrix.validators.judging import judge_reply
from lmstrix.validators.recall import Recall

TEXT = (
    "Read the text.\n\nThe miller carried the heavy lantern near the river before sunrise, and "
    "nobody asked why. The vault of the Osprey Hotel opens with the number 48213.\n\nSay it again."
)
VALUES = {"48213": "number", "BK-417": "code", "58-Q": "code"}


def asked(expected: str) -> Question:
    prompt = Prompt(user=TEXT, answer_prefix="The vault of the Osprey Hotel opens with the number")
    kind = VALUES.get(expected, "word")
    return Question(prompt=prompt, expected=expected, kind=kind, depth=0.5, max_tokens=16)


def judge(expected: str, text: str) -> Judgement:
    reply = Reply(text=text, prompt_tokens=100, stop_reason=StopReason.STOP_STRING)
    return judge_reply(asked(expected), reply)


RIGHT = {
    "48213": " 48213| 48213.|**48213**| 48,213 and then| 48.213| 48 213| 48'213| 48_213| #48213!|"
    " 48\u202f213| 48\u00a0213| 4 8 2 1 3| 4-8-2-1-3|(48213), said the clerk|48213 of the year|"
    "Sure! The text says that the vault opens with the number 48213.|Not 11111 but 48213|"
    # fullwidth, Arabic and Indic digits, an Arabic separator, a zero width space, other marks
    " \uff14\uff18\uff12\uff11\uff13| \u0664\u0668\u0662\u0661\u0663|"
    " \u096a\u096e\u0968\u0967\u0969| 48\u066c213| 48\u200b213|\ufeff48213| \u200e48213\u200e|"
    " Of course! Here it is: **48213**. Is there anything else?|<b>48213</b>|"
    " the answer, as far as I can tell, is 48213|!!!!!!!!!!!! 48213 !!!!!!!!!!!!!|"
    " The vault of the Osprey Hotel opens with the number 48213.",
    # other hyphens, fullwidth letters, Cyrillic and Greek letters, a soft hyphen
    "BK-417": " BK-417| BK-417.| BK417| bk-417| Bk417,| BK - 417| BK\u2010417| BK\u2011417|"
    " BK\u2013417| BK\u2014417| BK\u2212417| \uff22\uff2b\uff0d\uff14\uff11\uff17|"
    " \u0412\u041a-417| \u0392\u039a-417| B\u00adK-417| BK\uff0d417| BK\u2043417|"
    "The code is `BK-417`, as the text says",
    "58-Q": " 58Q",
    "Amber": " amber, I think",
    "papaya": " \u0440\u0430\u0440\u0430\u0443\u0430| PAPAYA!",
    "kiwi": " \uff4b\uff49\uff57\uff49| is \u201ckiwi\u201d, as the text says",
}
WRONG = {
    "48213": " 482130| 148213| 1,482,13| 48.2135| 4821| 48231| 8213| forty-eight thousand|"
    " x48213y48213z 99999 and 11111 or 22222|It is 11111; 48213; 22222| 11111 22222 48213|"
    "one of 48211; 48212; 48213; 48214|I do not know.|the same as before|"
    # the text is repeated until the value comes
    f"{TEXT}|{TEXT.upper()}|"
    " sunrise, and nobody asked why. The vault of the Osprey Hotel opens with 48213|"
    # not knowing is not a refusal
    "I cannot find that in the text.|I'm sorry, but the text does not mention it.|"
    "I'm sorry, but I don't remember.|Es tut mir leid, aber der Text sagt das nicht.|"
    "I'm sorry, but I do not know.|I helped the miller, and he cannot come.|"
    "nothing that I know of.",
    "BK-417": " BK-418| KB-417| BK-4170| ABK-417| 417| BK| BK-41|B-K and 417|"
    " AB-111, BK-417, CD-222, EF-333",
    "amber": " chamber",
    "kiwi": " banana, kiwi, mango or papaya|kiwi\nbanana\nmango\npapaya",
}
EMPTY = {"48213": "| |\n\t \u00a0"}
GIBBERISH = {
    "48213": " the the the the the the|The THE the the|!!!!!|\u2026 ??? \U0001f999|=====a=====|"
    "<<<>>> 1 {{{}}}|____"
}
REFUSALS = {
    "48213": "I cannot help with that.|I can't assist with this request.|I'm sorry, but|"
    "I can\u2019t help with that|I am sorry, but I cannot provide that|"
    "I\u2019m sorry, but I can\u2019t share private numbers|I'm unable to help with that.|"
    "As an AI language model, I must decline|I apologize, but I will not do this|"
    "Es tut mir leid, aber dabei kann ich nicht helfen.|Ich kann dir dabei leider nicht helfen.|"
    "Je suis désolé, mais je ne peux pas vous aider.|Lo siento, pero no puedo ayudar con eso.|"
    "Mi dispiace, ma non posso aiutarti.|Desculpe, mas não posso ajudar.|"
    "Извините, но я не могу помочь с этим.|"  # noqa: RUF001 - what is refused in
    "抱歉，我无法提供这个信息。|对不起，我不能回答。|"  # noqa: RUF001 - what is refused in
    "申し訳ありませんが、お手伝いできません。|죄송합니다, 도와드릴 수 없습니다."
}
TABLES = {
    Judgement.PASS: RIGHT,
    Judgement.WRONG: WRONG,
    Judgement.EMPTY: EMPTY,
    Judgement.GIBBERISH: GIBBERISH,
    Judgement.INCONCLUSIVE: REFUSALS,
}
CASES = [
    (judgement, expected, text)
    for judgement, table in TABLES.items()
    for expected, texts in table.items()
    for text in texts.split("|")
]


@pytest.mark.parametrize(("judgement", "expected", "text"), CASES)
def test_replies(judgement: Judgement, expected: str, text: str) -> None:
    assert judge(expected, text) is judgement


@pytest.mark.parametrize("text", REFUSALS["48213"].split("|"))
def test_a_refusal_that_tells_the_value_does_not_refuse(text: str) -> None:
    assert judge("48213", f"{text} It is 48213.") is Judgement.PASS


@pytest.mark.parametrize(
    ("text", "reasoning", "stop", "judgement"),
    [
        ("", "Let me see", StopReason.MAX_TOKENS, Judgement.INCONCLUSIVE),
        (" \n", "Let me see", StopReason.MAX_TOKENS, Judgement.INCONCLUSIVE),
        (" 48213", "", StopReason.CANCELLED, Judgement.INCONCLUSIVE),
        ("", "", StopReason.CANCELLED, Judgement.INCONCLUSIVE),
        # Thoughts that the engine left in the text.
        ("<think> Let me see, the vault", "", StopReason.MAX_TOKENS, Judgement.INCONCLUSIVE),
        ("<think>It is 48213", "", StopReason.MAX_TOKENS, Judgement.INCONCLUSIVE),
        ("<think>11111?</think> 48213", "", StopReason.END, Judgement.PASS),
        ("\n<Thinking>48213?</Thinking> 11111", "", StopReason.END, Judgement.WRONG),
        ("<think>Hm.</think>", "", StopReason.END, Judgement.EMPTY),
        ("<|channel|>analysis<|message|>48213", "", StopReason.MAX_TOKENS, Judgement.INCONCLUSIVE),
        # A thought that ended, and an answer that ran out, are answers.
        ("", "It is 48213", StopReason.END, Judgement.EMPTY),
        ("", "", StopReason.MAX_TOKENS, Judgement.EMPTY),
        (" 11111", "Let me see", StopReason.MAX_TOKENS, Judgement.WRONG),
        (" 48213 and", "Let me see", StopReason.MAX_TOKENS, Judgement.PASS),
    ],
)
def test_thoughts_and_cut_replies(
    text: str, reasoning: str, stop: StopReason, judgement: Judgement
) -> None:
    reply = Reply(text=text, reasoning=reasoning, stop_reason=stop, prompt_tokens=100)
    assert judge_reply(asked("48213"), reply) is judgement


@pytest.mark.parametrize("beyond", [Beyond.WORD_SALAD, Beyond.LOOPS, Beyond.NOISE])
async def test_broken_replies_are_gibberish_mostly(beyond: Beyond) -> None:
    """As the recall questions of a whole measurement meet them: sixteen tokens, cut off."""
    model = SimulatedModel(declared=8192, true_context=0, beyond=beyond)
    adapter, judged = SimulatedAdapter(model), Counter[Judgement]()
    async with adapter.load(model.info, 8192) as loaded:
        for seed in range(4):
            source = Recall().questions(loaded, seed)
            for index in range(20):
                question = await source.question(4096, index)
                given = await loaded.complete(
                    question.prompt, max_tokens=question.max_tokens, stop=question.stop
                )
                judged[Recall().judge(question, given)] += 1
    assert judged[Judgement.GIBBERISH] > 0.6 * judged.total()
    assert judged[Judgement.PASS] <= 1  # a word of the text may be the right one by chance
