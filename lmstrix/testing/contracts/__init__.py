"""One pytest suite for each plug-in family: subclass it, give it your plug-in, run it.

For readable failures add ``pytest.register_assert_rewrite("lmstrix.testing.contracts")`` to
your ``conftest.py``.
"""

from lmstrix.testing.contracts.adapter import AdapterContract
from lmstrix.testing.contracts.store import (
    ArchiveContract,
    DurableStoreContract,
    StoreContract,
)
from lmstrix.testing.contracts.strategy import StrategyContract
from lmstrix.testing.contracts.validator import ValidatorContract

__all__ = [
    "AdapterContract",
    "ArchiveContract",
    "DurableStoreContract",
    "StoreContract",
    "StrategyContract",
    "ValidatorContract",
]
