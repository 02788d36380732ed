"""The shipped validators keep their contract, also on a haystack with everything in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.errors import ConfigurationError
from lmstrix.models import Judgement, Prompt, Question, Reply, StopReason
from lmstrix.ports import Validator
from lmstrix.testing.contracts.validator import ValidatorContract
from lmstrix.validators.coherence import Coherence
from lmstrix.validators.copy import Copy
from lmstrix.validators.haystack import HaystackSpec
from lmstrix.validators.recall import Recall
from lmstrix.validators.ruler import Crowd, Tracing


class TestRecall(ValidatorContract):
    @pytest.fixture
    def validator(self) -> Validator:
        return Recall()


class TestCoherence(ValidatorContract):
    tells_values = False

    @pytest.fixture
    def validator(self) -> Validator:
        return Coherence()


class TestCopy(ValidatorContract):
    tells_values = False

    @pytest.fixture
    def validator(self) -> Validator:
        return Copy()


class TestCrowd(ValidatorContract):
    @pytest.fixture
    def validator(self) -> Validator:
        return Crowd()


class TestTracing(ValidatorContract):
    covers_regions_from = 10**9  # a chain is spread over a tenth of the window

    @pytest.fixture
    def validator(self) -> Validator:
        return Tracing()


@pytest.mark.parametrize("kind", [Crowd, Tracing])
def test_what_is_not_planted_cannot_be_asked_for(kind: type[Crowd | Tracing]) -> None:
    with pytest.raises(ConfigurationError, match="needs a haystack"):
        kind(spec=HaystackSpec())


KINDS = {
    "number": "48213",
    "word": "kiwi",
    "code": "BK-417",
    "copy": "a piece of the text that goes on and on",
    "names": "amber star, blue moon, red fox",
    "writing": "",
}


@pytest.mark.parametrize("validator", [Recall(), Coherence(), Copy(), Crowd(), Tracing()])
@given(
    text=st.text(),
    thought=st.text(),
    stop=st.sampled_from(StopReason),
    kind=st.sampled_from(list(KINDS)),
)
def test_any_reply_is_judged(
    validator: Validator, text: str, thought: str, stop: StopReason, kind: str
) -> None:
    prompt = Prompt(user="A text.", answer_prefix="The river is")
    asked = Question(prompt=prompt, expected=KINDS[kind], kind=kind, depth=0.5, max_tokens=16)
    reply = Reply(text=text, reasoning=thought, stop_reason=stop, prompt_tokens=9)
    assert validator.judge(asked, reply) in Judgement
