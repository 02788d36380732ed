"""The recall validator: its parts under the name that plug-ins are found by."""

from __future__ import annotations

import attrs

from lmstrix.models import Judgement, Question, Reply
from lmstrix.ports import LoadedModel
from lmstrix.validators.haystack import PLAIN, HaystackSpec
from lmstrix.validators.judging import judge_reply
from lmstrix.validators.recall.questions import RecallQuestions

__all__ = ["Recall"]

BASELINE_TOKENS = 512
"""Short enough for any model, long enough to hold a head, a middle and a tail needle."""


@attrs.frozen(kw_only=True)
class Recall:
    """One fact per question, from a document that fills the window.

    An answer prefix lets chat, base and reasoning models all answer within a few tokens
    (RULER, arXiv 2404.06654, does the same). `spec` says what else is planted in the document:
    give all validators of one measurement the same.
    """

    spec: HaystackSpec = PLAIN
    name: str = attrs.field(default="recall", init=False)
    baseline_length: int = attrs.field(default=BASELINE_TOKENS, init=False)

    def questions(self, loaded: LoadedModel, seed: int) -> RecallQuestions:
        """See `lmstrix.ports.Validator`."""
        return RecallQuestions(loaded, seed, self.spec)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`."""
        return judge_reply(question, reply)
