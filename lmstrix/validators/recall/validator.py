"""The recall validator: its parts under the name that plug-ins are found by."""

from __future__ import annotations

from lmstrix.models import Judgement, Question, Reply
from lmstrix.ports import LoadedModel, QuestionSource
from lmstrix.validators.recall.judging import judge_reply
from lmstrix.validators.recall.questions import RecallQuestions

__all__ = ["Recall"]

BASELINE_TOKENS = 512
"""Short enough for any model, long enough to hold a head, a middle and a tail needle."""


class Recall:
    """One fact per question, from a document that fills the window.

    An answer prefix lets chat, base and reasoning models all answer within a few tokens
    (RULER, arXiv 2404.06654, does the same).
    """

    name = "recall"
    baseline_length = BASELINE_TOKENS

    def questions(self, loaded: LoadedModel, seed: int) -> QuestionSource:
        """See `lmstrix.ports.Validator`."""
        return RecallQuestions(loaded, seed)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`."""
        return judge_reply(question.kind, question.expected, reply)
