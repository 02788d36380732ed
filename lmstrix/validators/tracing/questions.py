"""Asks about chains: what the last vessel holds, and which vessels hold the same."""

from __future__ import annotations

from itertools import groupby

from lmstrix.errors import ConfigurationError
from lmstrix.models import Prompt, Question
from lmstrix.ports import LoadedModel
from lmstrix.validators.haystack import Cut, Haystack, HaystackSpec, Placed, asked_of
from lmstrix.validators.haystack.chains import CHAIN_LINKS, Link, names_stem, stem_of
from lmstrix.validators.haystack.depths import nearest, target_depth

__all__ = ["NAMES", "TracingQuestions"]

NAMES = "names"
"""The kind of question whose answer is a list of names."""

ANSWER_TOKENS = 32
"""Reserved for the reply: three names."""

STEM_TOKENS = 28
"""Reserved for the answer's beginning: names differ in their tokens."""

REQUEST = "Work out from the text how to complete the sentence."
_STOPS = (". ", "\n")

Chain = tuple[Placed[Link], ...]


class TracingQuestions:
    """Questions on one master document, for one loaded model."""

    def __init__(self, loaded: LoadedModel, seed: int, spec: HaystackSpec) -> None:
        self._haystack = Haystack(
            loaded, seed, spec, frames=[_bare], reply_tokens=ANSWER_TOKENS + STEM_TOKENS
        )

    async def question(self, length_tokens: int, index: int) -> Question:
        """See `lmstrix.ports.QuestionSource`."""
        cut = await self._haystack.cut(length_tokens)
        depth, turn = target_depth(index // 2)
        placed = nearest(_chains(cut), depth * length_tokens, turn)
        if placed is None:
            raise ConfigurationError(f"{length_tokens} tokens hold no whole chain")
        links = placed.thing
        asks_names = index % 2 == 1
        value, last = links[0].thing.value, links[-1].thing.name
        return Question(
            prompt=asked_of(
                cut.text, REQUEST, answer_prefix=names_stem(value) if asks_names else stem_of(last)
            ),
            expected=", ".join(p.thing.name for p in links) if asks_names else value,
            kind=NAMES if asks_names else "number",
            depth=min(1.0, placed.position_tokens / length_tokens),
            max_tokens=ANSWER_TOKENS,
            stop=_STOPS,
        )


def _chains(cut: Cut) -> tuple[Placed[Chain], ...]:
    """All whole chains, each where its first link stands."""
    grouped = (tuple(g) for _, g in groupby(cut.placed(Link), key=lambda p: p.thing.chain))
    return tuple(
        Placed(thing=links, position_tokens=links[0].position_tokens)
        for links in grouped
        if len(links) == CHAIN_LINKS
    )


def _bare(document: str) -> Prompt:
    return asked_of(document, REQUEST)
