"""The coherence validator: does the model still write language with the window full?

It asks for free writing and judges it with `lmstrix.validators.judging`, by itself or in comparison
with the model's own writing at a short length.
"""

from __future__ import annotations

from functools import partial

import attrs

from lmstrix.models import Judgement, Prompt, Question, Region, Reply, StopReason
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.validators.haystack import PLAIN, Haystack, HaystackSpec, asked_of
from lmstrix.validators.judging import Kind, assess, is_refusal

WRITING_TOKENS = 64
"""Enough for statistics, and short enough for small models, which begin to loop in a longer greedy
text at any length: of 66 texts that SmolLM2-135M wrote after 1k to 8k tokens, 58 are language after
64 tokens and 50 after 96. After 11.5k or more, 1 of 15 is."""

REQUESTS = (
    ("Explain at length why people like to work in a garden.", "People like"),
    ("Write a long story about a girl and a river.", "Long ago, there was a girl who"),
    ("Write a long description of the town in this text.", "The town"),
    ("Write a long story about a boy and a boat.", "Once upon a time, there was a"),
    ("Explain at length why people like to walk by the sea.", "People walk"),
    ("Write a long description of the weather in this text.", "The weather"),
    ("Explain at length why people keep bees.", "People keep"),
    ("Write a long description of a forest in autumn.", "The forest"),
)
"""The requests, each with the first words of its answer, so that base models and reasoning models
write at once. There are as many as a level asks at one length at most: the same request would get
the same text again."""
KINDS = 4
"""The baseline asks so many; each later one is compared with one of them."""

_JUDGEMENTS = {
    Kind.FINE: Judgement.PASS,
    Kind.LOOP: Judgement.GIBBERISH,
    Kind.WORD_SALAD: Judgement.GIBBERISH,
    Kind.SYMBOLS: Judgement.GIBBERISH,
    Kind.EMPTY: Judgement.EMPTY,
    Kind.INSTANT_STOP: Judgement.EMPTY,
    Kind.TOO_SHORT: Judgement.INCONCLUSIVE,
    Kind.LIKE_OWN: Judgement.INCONCLUSIVE,
}


@attrs.frozen(kw_only=True)
class Coherence:
    """Does the model still write language, about anything, with the window full?"""

    spec: HaystackSpec = PLAIN
    name: str = attrs.field(default="coherence", init=False)
    baseline_length: int = attrs.field(default=512, init=False)
    regions: tuple[Region, ...] = attrs.field(default=(), init=False)
    """Empty: no request is about one place in the document."""

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        """See `lmstrix.ports.Validator`."""
        return _Requests(loaded, seed, self.spec)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`. Any language passes, also one that was not asked for."""
        del question
        return _judged(reply, own=None)

    def compare(self, question: Question, reply: Reply, own: str) -> Judgement:
        """See `lmstrix.ports.ComparingValidator`. A text that is broken in the same way as the
        model's own at a short length is inconclusive.
        """
        del question
        return _judged(reply, own=own)


def _judged(reply: Reply, *, own: str | None) -> Judgement:
    said = reply.answer
    if said is None:
        return Judgement.INCONCLUSIVE
    kind = assess(said, own=own, ended=reply.stop_reason is StopReason.END)
    if kind is Kind.FINE and is_refusal(said):
        return Judgement.INCONCLUSIVE
    return _JUDGEMENTS[kind]


class _Requests:
    """Requests after one document, for one loaded model."""

    def __init__(self, loaded: LoadedModel, seed: int, spec: HaystackSpec) -> None:
        frames = [partial(_prompt, index=index) for index in range(len(REQUESTS))]
        self._haystack = Haystack(loaded, seed, spec, frames=frames, reply_tokens=WRITING_TOKENS)

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        """See `lmstrix.ports.QuestionSource`. After the last request the first comes again."""
        del region
        cut = await self._haystack.cut(length_tokens)
        return Question(
            prompt=_prompt(cut.text, index),
            expected="",
            kind=f"writing {index % KINDS}",  # a reply is compared with one of its kind
            depth=None,
            max_tokens=WRITING_TOKENS,
        )


def _prompt(document: str, index: int) -> Prompt:
    request, start = REQUESTS[index % len(REQUESTS)]
    return asked_of(document, request, answer_prefix=start)
