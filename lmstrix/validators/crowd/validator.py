"""The crowd validator: recall by key, RULER's multi-key retrieval (arXiv 2404.06654)."""

from __future__ import annotations

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Prompt, Question, Reply
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.validators.haystack import WITH_CROWD, Haystack, HaystackSpec, asked_of
from lmstrix.validators.haystack.crowd import Entry
from lmstrix.validators.haystack.depths import nearest, target_depth
from lmstrix.validators.judging import judge_reply

__all__ = ["Crowd"]

BASELINE_TOKENS = 512
"""Eight of the crowd are there already."""

ANSWER_TOKENS = 16
STEM_TOKENS = 28
"""Reserved for the answer's beginning: names differ in their tokens."""

REQUEST = "Complete the sentence with the fact from the text."
_STOPS = (". ", "\n")


@attrs.frozen(kw_only=True)
class Crowd:
    """One fact per question, from a document that holds many alike ones.

    `spec` must plant the crowd.
    """

    spec: HaystackSpec = WITH_CROWD
    name: str = attrs.field(default="crowd", init=False)
    baseline_length: int = attrs.field(default=BASELINE_TOKENS, init=False)

    def __attrs_post_init__(self) -> None:
        if not self.spec.crowd:
            raise ConfigurationError("the validator `crowd` needs a haystack with a crowd")

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
            loaded, seed, spec, frames=[_bare], reply_tokens=ANSWER_TOKENS + STEM_TOKENS
        )

    async def question(self, length_tokens: int, index: int) -> Question:
        """See `lmstrix.ports.QuestionSource`."""
        cut = await self._haystack.cut(length_tokens)
        depth, turn = target_depth(index)
        placed = nearest(cut.placed(Entry), depth * length_tokens, turn)
        if placed is None:
            raise ConfigurationError(f"{length_tokens} tokens hold no crowd")
        entry = placed.thing
        return Question(
            prompt=asked_of(cut.text, REQUEST, answer_prefix=entry.stem),
            expected=entry.value,
            kind="number",
            depth=min(1.0, placed.position_tokens / length_tokens),
            max_tokens=ANSWER_TOKENS,
            stop=_STOPS,
        )


def _bare(document: str) -> Prompt:
    return asked_of(document, REQUEST)
