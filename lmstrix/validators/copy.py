"""Copy: can the model still continue a passage of its prompt, word by word?

A question shows the beginning of a passage and compares the few words that follow. Each of them is
asked for after the right words, as in training, so the share of right words falls slowly with the
length. In a longer greedy copy (48 tokens) SmolLM2-135M soon strays into a similar sentence, even
at 512 tokens, and the rest of the reply says nothing about its memory.
"""

from __future__ import annotations

from itertools import takewhile

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Question, Region, Reply
from lmstrix.ports import LoadedModel
from lmstrix.validators.haystack import PLAIN, Cut, Haystack, HaystackSpec, Sentence, asked_of
from lmstrix.validators.judging import fold, judge_by, words_of
from lmstrix.validators.needles import SHARES, region_of_turn

SENTENCES = 3
"""Sentences in a passage: about 30 words."""

FEWEST_SHOWN, MOST_SHOWN = 8, 16
"""Words of a passage that are shown; the number differs from question to question."""

SHOWN_STEP = 4
"""Coprime to the number of possibilities, so that all of them take turns."""

COMPARED_WORDS = 4


@attrs.frozen(kw_only=True)
class Passage:
    """A piece of the document: the words that are shown, and those that follow."""

    shown: str
    following: str
    position_tokens: int


def passage_near(
    cut: Cut, target_tokens: float, turn: int, within_tokens: tuple[float, float]
) -> Passage | None:
    """A passage near a place, shown up to another word for each `turn`.

    One that begins within `within_tokens` is preferred, then one of filler alone: values cannot be
    predicted and would measure recall again. None if the beginning of every passage is repeated
    elsewhere in the document.
    """
    begin, end = within_tokens

    def rank(sentences: tuple[Sentence, ...]) -> tuple[bool, bool, float]:
        position = sentences[0].position_tokens
        has_fact = any(sentence.planted is not None for sentence in sentences)
        return not begin <= position < end, has_fact, abs(position - target_tokens)

    starts = range(len(cut.sentences) - SENTENCES + 1)
    ordered = sorted((cut.sentences[at : at + SENTENCES] for at in starts), key=rank)
    passages = (_passage(cut.text, sentences, turn) for sentences in ordered)
    return next((passage for passage in passages if passage is not None), None)


def _passage(text: str, sentences: tuple[Sentence, ...], turn: int) -> Passage | None:
    words = " ".join(s.text for s in sentences).split(" ")
    most = min(MOST_SHOWN, len(words) - COMPARED_WORDS)
    count = FEWEST_SHOWN + turn * SHOWN_STEP % (most - FEWEST_SHOWN + 1)
    shown = " ".join(words[:count])
    if text.count(shown) != 1:
        return None
    return Passage(
        shown=shown,
        following=" ".join(words[count : count + COMPARED_WORDS]),
        position_tokens=sentences[0].position_tokens,
    )


COPY_TOKENS = 16
"""Reserved for a reply of four words."""

SHOWN_TOKENS = 40
"""Reserved for the shown words, with which the answer begins."""

REQUEST = "Continue just as the text does, word by word."


class CopyQuestions:
    """Questions on one master document, for one loaded model."""

    def __init__(self, loaded: LoadedModel, seed: int, spec: HaystackSpec) -> None:
        self._haystack = Haystack(
            loaded,
            seed,
            spec,
            frames=[lambda document: asked_of(document, REQUEST)],
            reply_tokens=COPY_TOKENS + SHOWN_TOKENS,
        )
        self._passages: dict[tuple[int, float, int, Region | None], Passage] = {}

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        """See `lmstrix.ports.QuestionSource`."""
        if region is None:
            region, index = region_of_turn(index)
        begin, end = region.span
        turn, at = divmod(index, len(SHARES))
        # Another word at each depth, so that a round is not all beginnings of sentences.
        return await self._asked(
            length_tokens, begin + SHARES[at] * (end - begin), turn + at, region
        )

    async def at_depth(self, length_tokens: int, depth: float, turn: int = 0) -> Question:
        """A question about the passage nearest to `depth`; each `turn` asks for another word."""
        return await self._asked(length_tokens, depth, turn, None)

    async def _asked(
        self, length_tokens: int, depth: float, turn: int, region: Region | None
    ) -> Question:
        cut = await self._haystack.cut(length_tokens)
        key = length_tokens, depth, turn, region
        passage = self._passages.get(key)
        if passage is None:
            begin, end = region.span if region else (0.0, 1.0)
            within = begin * length_tokens, end * length_tokens
            passage = passage_near(cut, depth * length_tokens, turn, within)
            if passage is None:
                raise ConfigurationError(f"{length_tokens} tokens hold no passage to copy")
            self._passages[key] = passage
        share = passage.position_tokens / length_tokens
        return Question(
            prompt=asked_of(cut.text, REQUEST, answer_prefix=passage.shown),
            expected=passage.following,
            kind="copy",
            depth=min(1.0, share),
            max_tokens=COPY_TOKENS,
            stop=("\n",),
            region=region or Region.at(share),
        )


PASS_SCORE = 0.5
"""A reply passes if it copies the first two of four words."""


def copied_share(expected: str, text: str) -> float:
    """The share of the words of `expected` that `text` copies before the first slip.

    Case, punctuation and look-alike characters do not matter. After the first slip the model
    continues its own words, not the text, so they say nothing.
    """
    wanted, written = words_of(fold(expected)), words_of(fold(text))
    right = takewhile(lambda pair: pair[0] == pair[1], zip(wanted, written, strict=False))
    return sum(1 for _ in right) / len(wanted) if wanted else 0.0


@attrs.frozen(kw_only=True)
class Copy:
    """Verbatim continuation of a passage: its score falls before recall does."""

    spec: HaystackSpec = PLAIN
    name: str = attrs.field(default="copy", init=False)
    baseline_length: int = attrs.field(default=512, init=False)
    regions: tuple[Region, ...] = attrs.field(default=tuple(Region), init=False)

    def questions(self, loaded: LoadedModel, seed: int) -> CopyQuestions:
        """See `lmstrix.ports.Validator`."""
        return CopyQuestions(loaded, seed, self.spec)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`."""
        return judge_by(reply, lambda text: copied_share(question.expected, text) >= PASS_SCORE)

    def score(self, question: Question, reply: Reply) -> float:
        """See `lmstrix.ports.GradedValidator`. A map's cell is the mean of `copied_share`."""
        return copied_share(question.expected, reply.answer or "")
