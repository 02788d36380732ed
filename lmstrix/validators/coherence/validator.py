"""The coherence validator: free writing at a length, judged by what is written."""

from __future__ import annotations

import attrs

from lmstrix.models import Judgement, Prompt, Question, Region, Reply, StopReason
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.validators.coherence.text import assess
from lmstrix.validators.haystack import PLAIN, Haystack, HaystackSpec, asked_of
from lmstrix.validators.judging import answer_of
from lmstrix.validators.refusals import is_refusal

__all__ = ["REQUESTS", "WRITING_TOKENS", "Coherence"]

WRITING_TOKENS = 64
"""Enough for the statistics of a text, and short enough for small models, which begin to loop in a
longer greedy text at any length: of 66 texts that SmolLM2-135M wrote behind 1k to 8k tokens, 58
are language after 64 tokens, 50 after 96. Behind 11.5k and more 1 of 15 is."""

REQUESTS = (
    ("Explain at length why people like to work in a garden.", "People like"),
    ("Tell a long story about an old woman and her dog.", "There was once an old woman who"),
    ("Write a long description of the town in this text.", "The town"),
    ("Write a long story about a boy and a boat.", "Once upon a time, there was a"),
)
"""What is to be written, and the first words of it, so that base models and reasoning models
write at once. There are no more than a level's baseline has questions, so that each reply can be
compared with one to the same request."""


@attrs.frozen(kw_only=True)
class Coherence:
    """Does the model still write language, about anything, with the window full?"""

    spec: HaystackSpec = PLAIN
    name: str = attrs.field(default="coherence", init=False)
    baseline_length: int = attrs.field(default=512, init=False)

    @property
    def regions(self) -> tuple[Region, ...]:
        """None: a request is not about one part of the window."""
        return ()

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        """See `lmstrix.ports.Validator`."""
        return _Requests(loaded, seed, self.spec)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`. Whatever was asked for: any language will do."""
        del question
        return _judged(reply, own=None)

    def compare(self, question: Question, reply: Reply, own: str) -> Judgement:
        """See `lmstrix.ports.ComparingValidator`. Broken as at short length says nothing."""
        del question
        return _judged(reply, own=own)


def _judged(reply: Reply, *, own: str | None) -> Judgement:
    said = answer_of(reply)
    if said is None:
        return Judgement.INCONCLUSIVE
    judged = assess(said, own=own, ended=reply.stop_reason is StopReason.END).judgement
    return Judgement.INCONCLUSIVE if judged is Judgement.PASS and is_refusal(said) else judged


class _Requests:
    """Requests behind one master document, for one loaded model."""

    def __init__(self, loaded: LoadedModel, seed: int, spec: HaystackSpec) -> None:
        self._haystack = Haystack(
            loaded,
            seed,
            spec,
            frames=[_Frame(at) for at in range(len(REQUESTS))],
            reply_tokens=WRITING_TOKENS,
        )

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        """See `lmstrix.ports.QuestionSource`. After all requests the first comes again, in
        other words than before.
        """
        del region
        cut = await self._haystack.cut(length_tokens)
        return Question(
            prompt=_Frame(index)(cut.text),
            expected="",
            kind=f"writing {index % len(REQUESTS)}",  # a reply is compared with its own kind
            depth=None,
            max_tokens=WRITING_TOKENS,
        )


@attrs.frozen
class _Frame:
    """The prompt of request number `index`."""

    index: int

    def __call__(self, document: str) -> Prompt:
        request, start = REQUESTS[self.index % len(REQUESTS)]
        return asked_of(document, request, answer_prefix=start)
