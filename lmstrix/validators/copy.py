"""Copy: can the model still go on with a passage of its prompt, word by word?

One question shows the beginning of a passage and compares the few words that follow: so each is
asked for behind the right words, as when a model is taught, and the share of words that are
right falls slowly with the length. Left to write 48 tokens greedily, SmolLM2-135M soon
strays into another sentence of the same make, at 512 tokens already, and after that nothing
it writes says what it remembers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Question, Region, Reply
from lmstrix.ports import LoadedModel
from lmstrix.validators.haystack import PLAIN, Cut, Haystack, HaystackSpec, Sentence, asked_of
from lmstrix.validators.judging import answer_of, fold, judge_by, words_of
from lmstrix.validators.needles import SHARES, region_of_turn

__all__ = ["PASS_SCORE", "Copy", "CopyQuestions", "copied_share", "copy_score"]

SENTENCES = 3
"""In one passage: some 30 words."""

FEWEST_SHOWN, MOST_SHOWN = 8, 16
"""Words of a passage that are shown: how many differs from question to question."""

SHOWN_STEP = 4
"""Coprime to the number of possibilities, so that all of them come in turn."""

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
    foreseen and would measure recall again. None if the document has no passage whose beginning
    is its own.
    """
    begin, end = within_tokens

    def distance(start: int) -> tuple[bool, float]:
        position = cut.sentences[start].position_tokens
        return not begin <= position < end, abs(position - target_tokens)

    filler = set(_starts(cut.sentences, filler_only=True))
    every = sorted(_starts(cut.sentences, filler_only=False), key=distance)
    inside = [start for start in every if not distance(start)[0]]
    ordered = (
        *(start for start in inside if start in filler),
        *inside,
        *(start for start in every if start in filler),
        *every,
    )
    passages = (_passage(cut.text, cut.sentences[i : i + SENTENCES], turn) for i in ordered)
    return next((passage for passage in passages if passage is not None), None)


def _starts(sentences: Sequence[Sentence], *, filler_only: bool) -> Iterator[int]:
    """Where runs of `SENTENCES` sentences begin."""
    run = 0
    for at, sentence in enumerate(sentences):
        run = 0 if filler_only and sentence.planted is not None else run + 1
        if run >= SENTENCES:
            yield at - SENTENCES + 1


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
"""Reserved for the reply: four words."""

SHOWN_TOKENS = 40
"""Reserved for the words that are shown, which are the answer's beginning."""

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
        """A question about the passage nearest to `depth`, about another word for each `turn`."""
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
"""A reply passes that copies the first two of four words."""


def copy_score(question: Question, reply: Reply) -> float:
    """How many of the words that follow are copied before the first slip, from 0 to 1.

    Averaged over questions it is the cell of a map.
    """
    return copied_share(question.expected, answer_of(reply) or "")


def copied_share(expected: str, text: str) -> float:
    """Leading words of `text` that are those of `expected`, over the words of `expected`.

    Both are compared without case, punctuation and look-alikes. A word that follows the first
    slip says nothing: the model goes on from its own words then, not from the text.
    """
    wanted, written = words_of(fold(expected)), words_of(fold(text))
    right = takewhile(lambda pair: pair[0] == pair[1], zip(wanted, written, strict=False))
    return sum(1 for _ in right) / len(wanted) if wanted else 0.0


@attrs.frozen(kw_only=True)
class Copy:
    """Verbatim continuation of a passage: its score falls before recall does.

    `judge` passes at `PASS_SCORE`; `score` returns the score itself.
    """

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
        """See `lmstrix.ports.GradedValidator`."""
        return copy_score(question, reply)
