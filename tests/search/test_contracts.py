"""Every strategy under the contract."""

from __future__ import annotations

import pytest

from lmstrix.ports import SearchStrategy
from lmstrix.search.auto import Auto
from lmstrix.search.bayes import Bayes
from lmstrix.search.binary import Binary
from lmstrix.search.cost_aware import CostAware
from lmstrix.search.gallop import Gallop
from lmstrix.testing.contracts.strategy import StrategyContract


class TestAuto(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return Auto()


class TestBayes(StrategyContract):
    """With less patience than `Auto` has."""

    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return Bayes(worth=2.0)


class TestBinary(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return Binary()


class TestCostAware(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return CostAware()


class TestGallop(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return Gallop()


class TestGallopInBigSteps(StrategyContract):
    @pytest.fixture
    def strategy(self) -> SearchStrategy:
        return Gallop(factor=4)
