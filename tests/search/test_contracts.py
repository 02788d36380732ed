from __future__ import annotations

import pytest

from lmstrix.models import Baseline
from lmstrix.ports import SearchStrategy
from lmstrix.problem import Done, PassRule, SearchProblem
from lmstrix.search.bayes import Bayes
from lmstrix.search.gallop import Gallop
from lmstrix.testing.contracts.strategy import StrategyContract


class TestBayes(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return Bayes()


class TestImpatientBayes(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return Bayes(worth=2.0)


class TestGallop(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return Gallop()


class TestGallopInBigSteps(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return Gallop(factor=4)


@pytest.mark.parametrize("strategy", [Bayes(), Gallop()])
def test_nothing_to_search_is_done_at_once(strategy: SearchStrategy) -> None:
    baseline = Baseline(passes=10, trials=10, length_tokens=512)
    step = strategy.next_step(
        SearchProblem(floor=512, ceiling=512, baseline=baseline, rule=PassRule()), []
    )
    assert isinstance(step, Done)
    assert (step.low, step.high) == (512, None)
