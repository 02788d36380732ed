"""LMStrix finds out how much context a local model really handles.

>>> from lmstrix import LMStrix
>>> async def main():
...     async with LMStrix() as lmstrix:
...         report = await lmstrix.find_true_context("path/to/model.gguf")
...     print(report.declared_context, report.loadable_context, report.true_context)
"""

from lmstrix.client import LMStrix
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    ContextOverflow,
    EngineCrashed,
    EngineTimeout,
    EngineUnavailable,
    InfrastructureError,
    InvalidModel,
    LMStrixError,
    LoadError,
    LoadFailed,
    LoadHung,
    LoadRefused,
    ModelError,
    ModelNotFound,
    NotMeasured,
    OutOfMemory,
    PluginNotFound,
    PredictionError,
    PredictionTooSlow,
    PromptTruncated,
    SettingsError,
    StoreError,
    UnsupportedModel,
)
from lmstrix.measure import Measurement, MeasureOptions, RetryPolicy
from lmstrix.models import Cause, ContextReport, ModelInfo, Reply, ReplyChunk, Verdict
from lmstrix.serialize import dump_report, load_report

__all__ = [
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
