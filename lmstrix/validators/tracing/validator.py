"""The tracing validator: variable tracking and aggregation in RULER's sense (arXiv 2404.06654)."""

from __future__ import annotations

import attrs

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Question, Reply
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.validators.folding import fold
from lmstrix.validators.haystack import WITH_CHAINS, HaystackSpec
from lmstrix.validators.haystack.chains import flasks_in
from lmstrix.validators.judging import judge_by, judge_reply
from lmstrix.validators.tracing.questions import NAMES, TracingQuestions

__all__ = ["Tracing"]

BASELINE_TOKENS = 1024
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
    baseline_length: int = attrs.field(default=BASELINE_TOKENS, init=False)

    def __attrs_post_init__(self) -> None:
        if not self.spec.chains:
            raise ConfigurationError("the validator `tracing` needs a haystack with chains")

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        """See `lmstrix.ports.Validator`."""
        return TracingQuestions(loaded, seed, self.spec)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`."""
        if question.kind != NAMES:
            return judge_reply(question, reply)
        return judge_by(reply, lambda text: _has_all(fold(question.expected), text))


def _has_all(expected: str, text: str) -> bool:
    """Whether a reply holds all the names, and almost no others."""
    wanted, named = set(expected.split(", ")), flasks_in(text)
    return wanted <= named and len(named - wanted) <= MOST_STRANGERS
