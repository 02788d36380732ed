"""Does a reply decline the task? Then it says nothing about what the model knows.

Not finding the answer ("I cannot find that in the text") is not a refusal: it is a wrong answer.
"""

from __future__ import annotations

import re

from lmstrix.validators.folding import fold

__all__ = ["is_refusal"]

_DECLINED = (
    "(?:help|assist|comply|fulfil+|do that|do this|provide|share|disclose|discuss|"
    "answer (?:that|this)|continue with|engage|participate|respond)"
)
_PHRASES = (
    rf"\bi (?:cannot|can't|can not|won't|will not|must decline to) {_DECLINED}",
    rf"\bi(?:'m| am) (?:not able|unable) to {_DECLINED}",
    r"\bi'?m sorry,? (?:but|i can)",
    r"\bi am sorry,? (?:but|i can)",
    r"\bsorry,? (?:but )?i (?:can't|cannot)",
    r"\bi apologi[sz]e,? but",
    r"\bas an? (?:ai|artificial intelligence|language model)\b",
    r"\bich kann (?:dir|ihnen|dabei|damit|da) .{0,20}nicht",
    r"\bes tut mir leid",
    r"\btut mir leid,? (?:aber|ich)",
    r"\bje (?:ne peux pas|suis desole|suis désolé)",
    r"\bdésolée?,? (?:mais|je)",
    r"\blo siento,? (?:pero|no)",
    r"\bno puedo (?:ayudar|hacer|proporcionar|compartir)",
    r"\bmi dispiace,? (?:ma|non)",
    r"\bnon posso (?:aiutar|fornir)",
    r"\bdesculpe,? (?:mas|não)|\bnão posso (?:ajudar|fornecer)",
)
_REFUSES = re.compile("|".join(_PHRASES))
_REFUSES_ELSEWHERE = re.compile(
    r"я не могу (?:помочь|ответить|предоставить)|извините,? (?:но|я)|к сожалению,? я не могу|"
    r"抱歉|对不起|我(?:无法|不能)(?:提供|帮助|回答|协助)|申し訳(?:ありません|ございません)|"
    r"お(?:答え|手伝い)(?:する(?:こと)?は?)?できません|죄송합니다"
)
_MISSES = re.compile(
    r"\b(?:text|passage|document|story|mention|find|found|contain|remember|recall|know|"
    r"information|text(?:e|o)|erwähnt|finde|trouve|encuentro|trovo)\b|"
    r"文中|文本|本文|文章|текст"
)


def is_refusal(text: str) -> bool:
    """Whether `text` declines, in one of some ten languages, and gives another reason than
    that the answer is not there.
    """
    plain = text.casefold().replace("\u2019", "'")
    if _MISSES.search(plain):
        return False
    return bool(_REFUSES.search(plain) or _REFUSES.search(fold(plain))) or bool(
        _REFUSES_ELSEWHERE.search(plain)
    )
