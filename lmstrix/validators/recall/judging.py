"""Reads a reply: is the value in it, and if not, what is there instead?"""

from __future__ import annotations

import re
import unicodedata

from lmstrix.models import Judgement, Reply, StopReason

__all__ = ["judge_reply"]

_SEPARATED_DIGITS = re.compile(
    r"(?<=\d)[\s,.'\u2019_](?=\d{3}(?!\d))"  # groups of three
    r"|(?<!\d\d)(?<=\d)\s(?=\d(?!\d))"  # digit by digit
)
_DIGITS = re.compile(r"\d+")
_WORDS = re.compile(r"[^\W_]+")
_HYPHENS = re.compile(r"[-\u2010-\u2015\u2212]")

MOST_CANDIDATES = 2
"""A reply that offers more values than this is a list, not an answer."""

MOST_ALIKE_WORDS = 3
"""A short reply in which one word stands more often than this, and nothing else, loops."""


def judge_reply(kind: str, expected: str, reply: Reply) -> Judgement:
    """Pass, or what kind of failure.

    Digits may be grouped, codes may lose their hyphen, case does not matter. A reply that
    ended inside its thought, or was cancelled, is inconclusive: it is no answer at all.
    """
    text = unicodedata.normalize("NFKC", reply.text)
    if _is_unfinished(text, reply):
        return Judgement.INCONCLUSIVE
    words = _WORDS.findall(text.casefold())
    if not words:
        return Judgement.EMPTY if not text.strip() else Judgement.GIBBERISH
    if _has_value(kind, expected, text):
        return Judgement.PASS
    return Judgement.GIBBERISH if _loops(words) or _is_symbols(text) else Judgement.WRONG


def _is_unfinished(text: str, reply: Reply) -> bool:
    if reply.stop_reason is StopReason.CANCELLED:
        return True
    ran_out = reply.stop_reason is StopReason.MAX_TOKENS
    return bool(reply.reasoning) and ran_out and not text.strip()


def _has_value(kind: str, expected: str, text: str) -> bool:
    if kind == "number":
        found = _DIGITS.findall(_SEPARATED_DIGITS.sub("", text))
        return expected in found and len(set(found)) <= MOST_CANDIDATES
    if kind == "code":
        wanted = _HYPHENS.sub("", expected).casefold()
        joined = re.sub(r"(?<=\w)\s*[-\u2010-\u2015\u2212]\s*(?=\w)", "", text).casefold()
        return wanted in _WORDS.findall(joined)
    return expected.casefold() in _WORDS.findall(text.casefold())


def _loops(words: list[str]) -> bool:
    return len(words) > MOST_ALIKE_WORDS and len(set(words)) == 1


def _is_symbols(text: str) -> bool:
    """Whether most of what is not white space is neither letter nor digit."""
    solid = [c for c in text if not c.isspace()]
    return sum(c.isalnum() for c in solid) * 2 < len(solid)
