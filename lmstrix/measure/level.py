"""A level: one kind of use, with a limit of its own."""

from __future__ import annotations

import attrs

from lmstrix.measure.ledger import MAIN
from lmstrix.ports import Validator
from lmstrix.problem import PassRule

__all__ = ["LEVEL_RULE", "Level"]

LEVEL_RULE = PassRule(first=2, full=4, most=8)
"""Fewer trials than for the main number: with a perfect baseline a length passes at 2 of 2, 4 of
4 and 7 of 8, and fails at 0 of 2, 1 of 4 and 6 of 8."""


@attrs.frozen(kw_only=True)
class Level:
    """A validator beside the measurement's own.

    A `required` level is part of the true context: where it fails, the model does not work.
    """

    validator: Validator
    required: bool = False
    is_main: bool = False

    @property
    def key(self) -> str:
        """How its trials are marked."""
        return MAIN if self.is_main else self.validator.name
