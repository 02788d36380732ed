"""RULER's harder kinds of recall (arXiv 2404.06654): by key from a crowd, and along chains."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TypeVar

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Prompt, Question, Region, Reply
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.validators.folding import fold
from lmstrix.validators.haystack import (
    WITH_CHAINS,
    WITH_CROWD,
    Cut,
    Haystack,
    HaystackSpec,
    Placed,
    asked_of,
)
from lmstrix.validators.judging import judge_by, judge_reply
from lmstrix.validators.needles import choices, region_of_turn
from lmstrix.validators.planting import (
    CHAIN_LINKS,
    Entry,
    Link,
    flasks_in,
    names_stem,
    stem_of,
)

__all__ = ["Crowd", "Tracing"]

Thing = TypeVar("Thing")

STEM_TOKENS = 28
"""Reserved for the answer's beginning: names differ in their tokens."""

_STOPS = (". ", "\n")

CROWD_BASELINE_TOKENS = 512
"""Eight of the crowd are there already."""

CROWD_TOKENS = 16
"""Reserved for the reply: a number."""

CROWD_REQUESTS = (
    "Complete the sentence with the fact from the text.",
    "Finish the sentence just as the text does.",
    "Say again what the text says.",
    "Quote a fact from the text word by word.",
    "Now repeat one of the facts from the text above.",
)
"""The next one comes when an entry is asked for again."""


@attrs.frozen(kw_only=True)
class Crowd:
    """One fact per question, from a document that holds many alike ones.

    `spec` must plant the crowd.
    """

    spec: HaystackSpec = WITH_CROWD
    name: str = attrs.field(default="crowd", init=False)
    baseline_length: int = attrs.field(default=CROWD_BASELINE_TOKENS, init=False)

    def __attrs_post_init__(self) -> None:
        if not self.spec.crowd:
            raise ConfigurationError("the validator `crowd` needs a haystack with a crowd")

    @property
    def regions(self) -> tuple[Region, ...]:
        """See `lmstrix.ports.Validator`."""
        return tuple(Region)

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        """See `lmstrix.ports.Validator`."""
        return _CrowdQuestions(loaded, seed, self.spec)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`."""
        return judge_reply(question, reply)


class _CrowdQuestions:
    """Questions on one master document, for one loaded model."""

    def __init__(self, loaded: LoadedModel, seed: int, spec: HaystackSpec) -> None:
        self._haystack = Haystack(
            loaded, seed, spec, frames=[_crowd_frame], reply_tokens=CROWD_TOKENS + STEM_TOKENS
        )

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        """See `lmstrix.ports.QuestionSource`."""
        if region is None:
            region, index = region_of_turn(index)
        cut = await self._haystack.cut(length_tokens)
        placed, asked = _chosen(cut.placed(Entry), length_tokens, region, index)
        if placed is None:
            raise ConfigurationError(f"{length_tokens} tokens hold no crowd")
        entry = placed.thing
        return Question(
            prompt=asked_of(cut.text, _request(CROWD_REQUESTS, asked), answer_prefix=entry.stem),
            expected=entry.value,
            kind="number",
            depth=min(1.0, placed.position_tokens / length_tokens),
            max_tokens=CROWD_TOKENS,
            stop=_STOPS,
            region=region,
        )


def _crowd_frame(document: str) -> Prompt:
    return asked_of(document, max(CROWD_REQUESTS, key=len))


def _request(requests: tuple[str, ...], asked: int) -> str:
    return requests[asked % len(requests)]


def _chosen(
    placed: Sequence[Placed[Thing]], length_tokens: int, region: Region, index: int
) -> tuple[Placed[Thing] | None, int]:
    """What a question asks for, and how often the region's questions asked for it before."""
    positions = [one.position_tokens for one in placed]
    picks = choices(positions, length_tokens, region, index + 1, closing=False)
    at = picks[index]
    return None if at is None else placed[at], picks[:index].count(at)


TRACING_BASELINE_TOKENS = 1024
"""Five whole chains are there already. Of the two or three at 512 a number is soon guessed:
SmolLM2-135M tells 6 of 6 there, and no list of names."""

MOST_STRANGERS = 1
"""Names of other chains that an answer may hold: more is a list of all flasks."""


@attrs.frozen(kw_only=True)
class Tracing:
    """Every other question asks for a number two links away, every other one for all names.

    `spec` must plant the chains.
    """

    spec: HaystackSpec = WITH_CHAINS
    name: str = attrs.field(default="tracing", init=False)
    baseline_length: int = attrs.field(default=TRACING_BASELINE_TOKENS, init=False)

    def __attrs_post_init__(self) -> None:
        if not self.spec.chains:
            raise ConfigurationError("the validator `tracing` needs a haystack with chains")

    @property
    def regions(self) -> tuple[Region, ...]:
        """See `lmstrix.ports.Validator`."""
        return tuple(Region)

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        """See `lmstrix.ports.Validator`."""
        return _TracingQuestions(loaded, seed, self.spec)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`."""
        if question.kind != NAMES:
            return judge_reply(question, reply)
        return judge_by(reply, lambda text: _has_all(fold(question.expected), text))


def _has_all(expected: str, text: str) -> bool:
    """Whether a reply holds all the names, and almost no others."""
    wanted, named = set(expected.split(", ")), flasks_in(text)
    return wanted <= named and len(named - wanted) <= MOST_STRANGERS


NAMES = "names"
"""The kind of question whose answer is a list of names."""

TRACING_TOKENS = 32
"""Reserved for the reply: three names."""

TRACING_REQUESTS = (
    "Work out from the text how to complete the sentence.",
    "Complete the sentence with what follows from the text.",
    "Finish the sentence so that it agrees with the text.",
    "Put the facts of the text together and finish the sentence.",
    "Use the text to work out the end of the sentence.",
)

Chain = tuple[Placed[Link], ...]


class _TracingQuestions:
    """Questions on one master document, for one loaded model."""

    def __init__(self, loaded: LoadedModel, seed: int, spec: HaystackSpec) -> None:
        self._haystack = Haystack(
            loaded, seed, spec, frames=[_tracing_frame], reply_tokens=TRACING_TOKENS + STEM_TOKENS
        )

    async def question(
        self, length_tokens: int, index: int, region: Region | None = None
    ) -> Question:
        """See `lmstrix.ports.QuestionSource`."""
        if region is None:
            region, index = region_of_turn(index)
        cut = await self._haystack.cut(length_tokens)
        placed, asked = _chosen(_chains(cut), length_tokens, region, index // 2)
        if placed is None:
            raise ConfigurationError(f"{length_tokens} tokens hold no whole chain")
        links = placed.thing
        asks_names = index % 2 == 1
        value, last = links[0].thing.value, links[-1].thing.name
        return Question(
            prompt=asked_of(
                cut.text,
                _request(TRACING_REQUESTS, asked),
                answer_prefix=names_stem(value) if asks_names else stem_of(last),
            ),
            expected=", ".join(p.thing.name for p in links) if asks_names else value,
            kind=NAMES if asks_names else "number",
            depth=min(1.0, placed.position_tokens / length_tokens),
            max_tokens=TRACING_TOKENS,
            stop=_STOPS,
            region=region,
        )


def _chains(cut: Cut) -> tuple[Placed[Chain], ...]:
    """All whole chains, each where its first link stands."""
    grouped = (tuple(g) for _, g in groupby(cut.placed(Link), key=lambda p: p.thing.chain))
    return tuple(
        Placed(thing=links, position_tokens=links[0].position_tokens)
        for links in grouped
        if len(links) == CHAIN_LINKS
    )


def _tracing_frame(document: str) -> Prompt:
    return asked_of(document, max(TRACING_REQUESTS, key=len))
