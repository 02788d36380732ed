"""The copy validator: its parts under the name that plug-ins are found by."""

from __future__ import annotations

import attrs

from lmstrix.models import Judgement, Question, Reply
from lmstrix.ports import LoadedModel
from lmstrix.validators.copy.questions import CopyQuestions
from lmstrix.validators.copy.scoring import PASS_SCORE, copied_share, copy_score
from lmstrix.validators.haystack import PLAIN, HaystackSpec
from lmstrix.validators.judging import judge_by

__all__ = ["Copy"]


@attrs.frozen(kw_only=True)
class Copy:
    """Verbatim continuation of a passage: its score falls before recall does.

    `judge` passes at `PASS_SCORE`; `score` tells the score itself.
    """

    spec: HaystackSpec = PLAIN
    name: str = attrs.field(default="copy", init=False)
    baseline_length: int = attrs.field(default=512, init=False)

    def questions(self, loaded: LoadedModel, seed: int) -> CopyQuestions:
        """See `lmstrix.ports.Validator`."""
        return CopyQuestions(loaded, seed, self.spec)

    def judge(self, question: Question, reply: Reply) -> Judgement:
        """See `lmstrix.ports.Validator`."""
        return judge_by(reply, lambda text: copied_share(question.expected, text) >= PASS_SCORE)

    def score(self, question: Question, reply: Reply) -> float:
        """See `lmstrix.ports.GradedValidator`."""
        return copy_score(question, reply)
