"""Every strategy under the contract."""

from __future__ import annotations

import pytest

from lmstrix.ports import SearchStrategy
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
