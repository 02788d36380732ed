"""Fits the document to a length: whatever a validator puts around it, the prompt fills it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lmstrix.errors import ConfigurationError
from lmstrix.models import Prompt
from lmstrix.ports import LoadedModel
from lmstrix.validators.haystack.document import Cut, MasterDocument
from lmstrix.validators.haystack.planting import HaystackSpec

__all__ = ["INTRODUCTION", "Frame", "Haystack", "asked_of"]

INTRODUCTION = "Read the text and remember the facts in it.\n\n"
"""The same for every validator, so that prompts begin alike."""

Frame = Callable[[str], Prompt]
"""Makes a prompt from a document: what a question puts around it."""

SHORTEST_TOKENS = 128

MARGIN_TOKENS = 4
"""Values differ by a few tokens from the ones that the overhead was counted with."""

MAX_RAISES = 2
"""How often a cut is lengthened when the block counts added up to too much."""


def asked_of(document: str, asked: str, *, closing: str = "", answer_prefix: str = "") -> Prompt:
    """The prompt that every validator makes: introduction, document, request.

    `closing` is a last sentence of the text, told for this question alone.
    """
    body = f"{document} {closing}" if closing else document
    return Prompt(user=f"{INTRODUCTION}{body}\n\n{asked}", answer_prefix=answer_prefix)


class Haystack:
    """The document of one seed, for one loaded model, cut to fit one validator's questions.

    `frames` are the prompts that its questions may make; the longest one decides.
    `reply_tokens` is reserved for the reply, and for what frames do not show.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        seed: int,
        spec: HaystackSpec,
        *,
        frames: Sequence[Frame],
        reply_tokens: int,
    ) -> None:
        self._loaded = loaded
        self._document = MasterDocument(seed, spec, loaded.count_tokens)
        self._frames = tuple(frames)
        self._reply_tokens = reply_tokens
        self._overhead: tuple[int, Frame] | None = None
        self._cuts: dict[int, Cut] = {}

    async def cut(self, length_tokens: int) -> Cut:
        """The beginning with which the longest question fills `length_tokens`.

        Raises `ConfigurationError` for a length that is too short for any document.
        """
        known = self._cuts.get(length_tokens)
        if known is None:
            known = self._cuts[length_tokens] = await self._fit(length_tokens)
        return known

    async def _fit(self, length_tokens: int) -> Cut:
        """The sum of block counts may drift from the count of the whole, so the whole is
        counted once per length, and the cut corrected by what it was off.
        """
        if length_tokens < SHORTEST_TOKENS + self._reply_tokens:
            shortest = SHORTEST_TOKENS + self._reply_tokens
            raise ConfigurationError(f"a question needs {shortest} tokens or more")
        room = length_tokens - self._reply_tokens - MARGIN_TOKENS
        overhead, frame = await self._longest()
        budget = room - overhead
        raises_left = MAX_RAISES
        while True:
            cut = await self._document.cut(budget)
            tokens = await self._loaded.count_prompt_tokens(frame(cut.text))
            excess = tokens - room
            drift = -excess - (budget - cut.tokens)  # room that block counts hid from us
            if excess > 0 and not cut.sentences:
                raise ConfigurationError(f"a question does not fit in {length_tokens} tokens")
            if excess > 0:
                budget, raises_left = cut.tokens - excess, 0
            elif drift > MARGIN_TOKENS and raises_left:
                budget, raises_left = budget + drift, raises_left - 1
            else:
                return cut

    async def _longest(self) -> tuple[int, Frame]:
        """Tokens of everything but the document in the longest question, and its frame."""
        if self._overhead is None:
            counted = [await self._loaded.count_prompt_tokens(f("")) for f in self._frames]
            longest = max(range(len(counted)), key=counted.__getitem__)
            self._overhead = counted[longest], self._frames[longest]
        return self._overhead
