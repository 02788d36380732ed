"""The public names, pinned: adding one is a decision, losing one breaks somebody."""

from __future__ import annotations

import lmstrix
from lmstrix import errors

PUBLIC = [
    "Cause",
    "ConfigurationError",
    "ConnectionLost",
    "ContextOverflow",
    "ContextReport",
    "EngineCrashed",
    "EngineTimeout",
    "EngineUnavailable",
    "InfrastructureError",
    "InvalidModel",
    "LMStrix",
    "LMStrixError",
    "LoadError",
    "LoadFailed",
    "LoadHung",
    "LoadRefused",
    "MeasureOptions",
    "Measurement",
    "ModelError",
    "ModelInfo",
    "ModelNotFound",
    "NotMeasured",
    "OutOfMemory",
    "PluginNotFound",
    "PredictionError",
    "PredictionTooSlow",
    "PromptTruncated",
    "Reply",
    "ReplyChunk",
    "RetryPolicy",
    "SettingsError",
    "StoreError",
    "UnsupportedModel",
    "Verdict",
    "dump_report",
    "load_report",
]


def test_the_public_names() -> None:
    assert lmstrix.__all__ == PUBLIC


def test_they_are_sorted_and_exist() -> None:
    assert sorted(lmstrix.__all__) == lmstrix.__all__
    assert all(hasattr(lmstrix, name) for name in lmstrix.__all__)


def test_every_error_is_public_and_has_the_one_root() -> None:
    assert set(errors.__all__) <= set(lmstrix.__all__)
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), lmstrix.LMStrixError)


def test_the_errors_docstring_names_every_error() -> None:
    drawn = errors.__doc__ or ""
    assert all(name in drawn for name in errors.__all__)
