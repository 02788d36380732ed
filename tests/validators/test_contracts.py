"""The shipped validators keep their contract, also on a haystack with everything in it."""

from __future__ import annotations

import pytest

from lmstrix.errors import ConfigurationError
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
