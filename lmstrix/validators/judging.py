"""Reads a reply: is the value in it, and if not, what is there instead?"""

from __future__ import annotations

import re
from collections.abc import Callable

from lmstrix.models import Judgement, Question, Reply, StopReason
from lmstrix.validators.broken import is_broken
from lmstrix.validators.folding import fold, words_of
from lmstrix.validators.refusals import is_refusal

__all__ = ["answer_of", "judge_by", "judge_reply"]

_THOUGHT = re.compile(
    r"\A\s*(?:<(think|thinking|thought|reasoning)>.*?(?:</\1>|\Z)"
    r"|<\|channel\|>analysis<\|message\|>.*?(?:<\|end\|>|\Z))",
    re.DOTALL | re.IGNORECASE,
)
"""A thought that the engine did not set apart."""

_SEPARATED_DIGITS = re.compile(
    r"(?<=\d)[\s,.'\u2019\u066c_](?=\d{3}(?!\d))"  # groups of three
    r"|(?<!\d\d)(?<=\d)[\s\-](?=\d(?!\d))"  # digit by digit
)
_DIGITS = re.compile(r"\d+")
_CODE = re.compile(r"(?<![^\W_])(?=\w*[a-z])(?=\w*\d)[a-z\d]{3,8}(?![^\W_])")
_AROUND_HYPHEN = re.compile(r"(?<=\w)\s*-\s*(?=\w)")
_LISTED = re.compile(r"[,;/|\n]|\band\b|\bor\b")

MOST_CANDIDATES = 2
"""A reply that offers more values than this is a list, not an answer."""

ECHO_CHARACTERS = 48
"""A value that comes after so long a verbatim piece of the prompt was found by repeating the
text, not by recalling. The longest stem is shorter once it was shown as the answer's beginning."""

MOST_CHARACTERS = 1000
"""Looked at in front of a value: time is bounded."""


def judge_reply(question: Question, reply: Reply) -> Judgement:
    """Pass, or what kind of failure.

    Digits may be grouped, codes may lose their hyphen, case and look-alike letters do not
    matter. A reply that ended inside its thought, or was cancelled, or declines, is
    inconclusive: it is not an answer. One that lists values, or repeats the prompt until
    the value comes, is wrong.
    """
    wanted = fold(question.expected)

    def passes(text: str) -> bool:
        return _has_value(question.kind, wanted, text) and not _is_echo(question, text)

    return judge_by(reply, passes)


def judge_by(reply: Reply, passes: Callable[[str], bool]) -> Judgement:
    """The same for any other rule: `passes` is given the folded text of the reply."""
    said = answer_of(reply)
    if said is None:
        return Judgement.INCONCLUSIVE
    text = fold(said)
    if not words_of(text):
        return Judgement.EMPTY if not text.strip() else Judgement.GIBBERISH
    if passes(text):
        return Judgement.PASS
    if is_broken(said):
        return Judgement.GIBBERISH
    return Judgement.INCONCLUSIVE if is_refusal(said) else Judgement.WRONG


def answer_of(reply: Reply) -> str | None:
    """The reply without its reasoning; None if it was cancelled, or cut off inside a
    thought, before it said anything.
    """
    if reply.stop_reason is StopReason.CANCELLED:
        return None
    said, thoughts = _THOUGHT.subn("", reply.text)
    ran_out = reply.stop_reason in (StopReason.MAX_TOKENS, StopReason.CONTEXT_LENGTH)
    thought = bool(thoughts) or bool(reply.reasoning)
    return None if thought and ran_out and not fold(said).strip() else said


def _numbers_in(folded: str) -> list[str]:
    """The numbers in a folded text, with their groups joined."""
    return _DIGITS.findall(_SEPARATED_DIGITS.sub("", folded))


def _has_value(kind: str, wanted: str, text: str) -> bool:
    if kind == "number":
        found = _numbers_in(text)
        return wanted in found and len(set(found)) <= MOST_CANDIDATES
    if kind == "code":
        joined = _AROUND_HYPHEN.sub("", text)
        if wanted.replace("-", "") not in words_of(joined):
            return False
        return len(set(_CODE.findall(joined))) <= MOST_CANDIDATES
    return wanted in words_of(text) and not _lists(text)


def _lists(text: str) -> bool:
    """Whether a text offers words one after another: each a word or two between separators."""
    offered = {part for p in _LISTED.split(text) if (part := p.strip(" .")) and _is_short(part)}
    return len(offered) > MOST_CANDIDATES


def _is_short(part: str) -> bool:
    return len(part.split()) <= 2


def _is_echo(question: Question, text: str) -> bool:
    """Whether a long piece of the prompt is repeated before the value comes."""
    before = text.partition(fold(question.expected).split("-")[0])[0]
    before = " ".join(before.replace(fold(question.prompt.answer_prefix), " ").split())
    before = before[-MOST_CHARACTERS:]
    if len(before) < ECHO_CHARACTERS:
        return False
    prompt = " ".join(fold(question.prompt.user).split())
    pieces = range(len(before) - ECHO_CHARACTERS + 1)
    return any(before[at : at + ECHO_CHARACTERS] in prompt for at in pieces)
