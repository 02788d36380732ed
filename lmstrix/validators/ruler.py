"""RULER's harder kinds of recall (arXiv 2404.06654): by key from a crowd, and along chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Generic, TypeVar

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Question, Region, Reply
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.validators.haystack import (
    WITH_CHAINS,
    WITH_CROWD,
    Cut,
    Haystack,
    HaystackSpec,
    Placed,
    asked_of,
)
from lmstrix.validators.judging import fold, judge_by, judge_reply
from lmstrix.validators.needles import (
    CHAIN_LINKS,
    Entry,
    Link,
    choices,
    flasks_in,
    names_stem,
    region_of_turn,
    stem_of,
)

Thing = TypeVar("Thing")

STEM_TOKENS = 28
"""Reserved for the answer's beginning: names differ in their tokens."""


@attrs.frozen(kw_only=True)
class _Kind(Generic[Thing]):
    """The questions of one of the two validators."""

    things: Callable[[Cut], Sequence[Placed[Thing]]]
    """All facts of this kind in a cut."""
    answer: Callable[[Thing, int], tuple[str, str, str]]
    """For a fact and the number of the question: kind, first words of the answer, value."""
    requests: tuple[str, ...]
    """The next one is used when a fact is asked for again."""
    reply_tokens: int
    turns: int
    """Questions in a row about one fact."""
    missing: str
    """A message's name for the facts, which a document that is too short lacks."""


class _Questions(Generic[Thing]):
    """Questions on one master document, for one loaded model."""

    def __init__(
        self, loaded: LoadedModel, seed: int, spec: HaystackSpec, kind: _Kind[Thing]
    ) -> None:
        longest = max(kind.requests, key=len)
        self._kind = kind
        self._haystack = Haystack(
            loaded,
            seed,
            spec,
            frames=[lambda document: asked_of(document, longest)],
            reply_tokens=kind.reply_tokens + STEM_TOKENS,
        )

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        """See `lmstrix.ports.QuestionSource`."""
        if region is None:
            region, index = region_of_turn(index)
        cut, asked = await self._haystack.cut(length_tokens), self._kind
        things, turn = asked.things(cut), index // asked.turns
        positions = [placed.position_tokens for placed in things]
        picks = choices(positions, length_tokens, region, turn + 1, closing=False)
        at = picks[turn]
        if at is None:
            raise ConfigurationError(f"{length_tokens} tokens hold no {asked.missing}")
        kind, stem, value = asked.answer(things[at].thing, index)
        request = asked.requests[picks[:turn].count(at) % len(asked.requests)]
        return Question(
            prompt=asked_of(cut.text, request, answer_prefix=stem),
            expected=value,
            kind=kind,
            depth=min(1.0, positions[at] / length_tokens),
            max_tokens=asked.reply_tokens,
            stop=(". ", "\n"),
            region=region,
        )


_CROWD = _Kind[Entry](
    things=lambda cut: cut.placed(Entry),
    answer=lambda entry, _: ("number", entry.stem, entry.value),
    requests=(
        "Complete the sentence with the fact from the text.",
        "Finish the sentence just as the text does.",
        "Say again what the text says.",
        "Quote a fact from the text word by word.",
        "Now repeat one of the facts from the text above.",
    ),
    reply_tokens=16,  # a number
    turns=1,
    missing="crowd",
)


@attrs.frozen(kw_only=True)
class Crowd:
    """One fact per question, from a document that holds many similar ones.

    `spec` must plant the crowd.
    """

    spec: HaystackSpec = WITH_CROWD
    name: str = attrs.field(default="crowd", init=False)
    baseline_length: int = attrs.field(default=512, init=False)
    """Holds eight facts of the crowd."""
    regions: tuple[Region, ...] = attrs.field(default=tuple(Region), init=False)

    def __attrs_post_init__(self) -> None:
        if not self.spec.crowd:
            raise ConfigurationError("the validator `crowd` needs a haystack with a crowd")

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        """See `lmstrix.ports.Validator`."""
        return _Questions(loaded, seed, self.spec, _CROWD)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`."""
        return judge_reply(question, reply)


Chain = tuple[Placed[Link], ...]

NAMES = "names"
"""The kind of question whose answer is a list of names."""


def _chains(cut: Cut) -> tuple[Placed[Chain], ...]:
    """All whole chains, each with the position of its first link."""
    grouped = (tuple(g) for _, g in groupby(cut.placed(Link), key=lambda p: p.thing.chain))
    return tuple(
        Placed(thing=links, position_tokens=links[0].position_tokens)
        for links in grouped
        if len(links) == CHAIN_LINKS
    )


def _end_of(chain: Chain, index: int) -> tuple[str, str, str]:
    """Even questions ask for the last vessel's number, odd ones for the names of all."""
    names, value = [placed.thing.name for placed in chain], chain[0].thing.value
    if index % 2:
        return NAMES, names_stem(value), ", ".join(names)
    return "number", stem_of(names[-1]), value


_TRACING = _Kind[Chain](
    things=_chains,
    answer=_end_of,
    requests=(
        "Work out from the text how to complete the sentence.",
        "Complete the sentence with what follows from the text.",
        "Finish the sentence so that it agrees with the text.",
        "Put the facts of the text together and finish the sentence.",
        "Use the text to work out the end of the sentence.",
    ),
    reply_tokens=32,  # three names
    turns=2,
    missing="whole chain",
)

MOST_STRANGERS = 1
"""Names of other chains that an answer may hold. More would be a list of all flasks."""


@attrs.frozen(kw_only=True)
class Tracing:
    """Questions alternate between a number that is two links away and the names of a whole chain.

    `spec` must plant the chains.
    """

    spec: HaystackSpec = WITH_CHAINS
    name: str = attrs.field(default="tracing", init=False)
    baseline_length: int = attrs.field(default=1024, init=False)
    """Holds five whole chains. Of the two or three at 512 a number is easily guessed: SmolLM2-135M
    answers 6 of 6 there, but no list of names."""
    regions: tuple[Region, ...] = attrs.field(default=tuple(Region), init=False)

    def __attrs_post_init__(self) -> None:
        if not self.spec.chains:
            raise ConfigurationError("the validator `tracing` needs a haystack with chains")

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        """See `lmstrix.ports.Validator`."""
        return _Questions(loaded, seed, self.spec, _TRACING)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`. A list must hold all the names, and almost no others."""
        if question.kind != NAMES:
            return judge_reply(question, reply)
        wanted = set(fold(question.expected).split(", "))

        def passes(text: str) -> bool:
            named = flasks_in(text)
            return wanted <= named and len(named - wanted) <= MOST_STRANGERS

        return judge_by(reply, passes)
