"""Asks to go on with a passage, at depths spread over the window.

One question shows the beginning of a passage and compares the few words that follow: so each is
asked for behind the right words, as when a model is taught, and the share of words that are
right falls slowly with the length. Left to write 48 tokens greedily, SmolLM2-135M soon
strays into another sentence of the same make, at 512 tokens already, and after that nothing
it writes says what it remembers.
"""

from __future__ import annotations

from lmstrix.errors import ConfigurationError
from lmstrix.models import Question
from lmstrix.ports import LoadedModel
from lmstrix.validators.copy.passages import passage_near
from lmstrix.validators.haystack import Haystack, HaystackSpec, asked_of
from lmstrix.validators.haystack.depths import EVEN_DEPTHS, target_depth

__all__ = ["COPY_TOKENS", "CopyQuestions"]

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
        self._made: dict[tuple[int, float, int], Question] = {}

    async def question(self, length_tokens: int, index: int) -> Question:
        """See `lmstrix.ports.QuestionSource`."""
        depth, turn = target_depth(index)
        # Another word at each depth, so that a round is not all beginnings of sentences.
        return await self.at_depth(length_tokens, depth, turn + EVEN_DEPTHS.index(depth))

    async def at_depth(self, length_tokens: int, depth: float, turn: int = 0) -> Question:
        """A question about the passage nearest to `depth`, about another word for each `turn`."""
        known = self._made.get((length_tokens, depth, turn))
        if known is None:
            known = await self._make(length_tokens, depth, turn)
            self._made[length_tokens, depth, turn] = known
        return known

    async def _make(self, length_tokens: int, depth: float, turn: int) -> Question:
        cut = await self._haystack.cut(length_tokens)
        passage = passage_near(cut, depth * length_tokens, turn)
        if passage is None:
            raise ConfigurationError(f"{length_tokens} tokens hold no passage to copy")
        return Question(
            prompt=asked_of(cut.text, REQUEST, answer_prefix=passage.shown),
            expected=passage.following,
            kind="copy",
            depth=min(1.0, passage.position_tokens / length_tokens),
            max_tokens=COPY_TOKENS,
            stop=("\n",),
        )
