"""What LM Studio says becomes the right error, by its words alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lmstrix.adapters.lmstudio import protocol
from lmstrix.errors import (
    ContextOverflow,
    EngineCrashed,
    EngineUnavailable,
    LMStrixError,
    LoadFailed,
    LoadRefused,
    ModelNotFound,
    OutOfMemory,
    PredictionError,
)

CRASH = "The model has crashed without additional information. (Exit code: 18446744072635812000)"
LOADS = [
    (
        "Model load error: Model loading was stopped due to insufficient system resources. …",
        LoadRefused,
    ),
    ("Load blocked by a Guardrail", LoadRefused),
    (CRASH, LoadFailed),
    ("Failed to load model", LoadFailed),
    ("Error loading model", LoadFailed),
    ("Failed to load model\nerror loading model: unable to allocate CUDA0 buffer", OutOfMemory),
    ("ggml_metal: error: Insufficient Memory (00000008)", OutOfMemory),
    ("vk::Device::allocateMemory: ErrorOutOfDeviceMemory", OutOfMemory),
    ("Cannot find a model with path or key 'x'\ngeneric.noModelMatchingQuery", ModelNotFound),
    ("{'code': 'generic.pathNotFound'}", ModelNotFound),
    ("Failed to load model\nOperation canceled.", EngineUnavailable),
    ("", LoadFailed),
]
PREDICTIONS = [
    ("Trying to keep the first 9000 tokens when context the overflows", ContextOverflow),
    ("Cannot truncate prompt with n_keep (9000) >= n_ctx (4096)", ContextOverflow),
    ("Context size has been exceeded.", ContextOverflow),
    (CRASH, EngineCrashed),
    ("Exit code: 6", EngineCrashed),
    ("Model unloaded.", EngineUnavailable),
    ("Model is unloaded.", EngineUnavailable),
    ("No model found that fits the query", EngineUnavailable),
    ("Cannot find a loaded model with identifier 'x'", EngineUnavailable),
    ("something else", PredictionError),
    ("", PredictionError),
]
CALLS = [
    (CRASH, EngineCrashed),
    ("Cannot find a model with path or key 'x'", ModelNotFound),
    ("Cannot find a loaded model with identifier 'x'", EngineUnavailable),
    ("No model found that fits the query generic.noModelMatchingQuery", EngineUnavailable),
    ("no idea", EngineUnavailable),
]


@pytest.mark.parametrize(
    ("error", "text", "kind"),
    [
        *((protocol.load_error, *case) for case in LOADS),
        *((protocol.prediction_error, *case) for case in PREDICTIONS),
        *((protocol.call_error, *case) for case in CALLS),
    ],
)
def test_words_become_errors(
    error: Callable[[str], LMStrixError], text: str, kind: type[LMStrixError]
) -> None:
    assert type(error(text)) is kind
