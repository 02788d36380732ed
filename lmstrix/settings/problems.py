"""What can keep a result from being applied."""

from __future__ import annotations

from lmstrix.errors import LMStrixError, ModelError

__all__ = ["NotMeasured", "SettingsError"]


class SettingsError(LMStrixError):
    """A settings file cannot be found, understood or written safely; it was left as it is."""


class NotMeasured(ModelError):
    """There is no finished true context of the model."""
