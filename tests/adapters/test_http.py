"""What servers say when they refuse, as they were seen to say it."""

from __future__ import annotations

import json

import pytest

from lmstrix.adapters.http import Refusal, prediction_error
from lmstrix.errors import (
    ConnectionLost,
    ContextOverflow,
    EngineCrashed,
    EngineTimeout,
    EngineUnavailable,
    LMStrixError,
    ModelNotFound,
    PredictionError,
)

LLAMA_SERVER = {
    "error": {
        "code": 400,
        "message": "request (2622 tokens) exceeds the available context size (512 tokens), try"
        " increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 2622,
        "n_ctx": 512,
    }
}
NO_IMAGES = {
    "error": {
        "code": 400,
        "message": "Multimodal data provided, but model does not support multimodal requests.",
        "type": "invalid_request_error",
    }
}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, LLAMA_SERVER, ContextOverflow),
        (400, {"error": json.dumps(LLAMA_SERVER)}, ContextOverflow),
        (400, {"error": "the input length exceeds the context length"}, ContextOverflow),
        (
            400,
            {"error": {"message": "This model's maximum context length is 4096 tokens."}},
            ContextOverflow,
        ),
        (400, {"object": "error", "message": "The prompt is too long: 9000"}, ContextOverflow),
        (400, {"error": {"code": "context_length_exceeded", "message": "x"}}, ContextOverflow),
        (500, {"error": "Context size has been exceeded."}, ContextOverflow),
        (413, {"error": {"message": "too many tokens"}}, ContextOverflow),
        (413, None, EngineUnavailable),
        (302, None, EngineUnavailable),
        (408, {"error": {"message": "Timeout"}}, EngineTimeout),
        (504, None, EngineTimeout),
        (524, None, EngineTimeout),
        (500, {"error": "code = DeadlineExceeded desc = context deadline exceeded"}, EngineTimeout),
        (500, {"error": "llama runner process has terminated: exit status 2"}, EngineCrashed),
        (500, {"error": "an error was encountered while running the model: EOF"}, EngineCrashed),
        (400, {"error": json.dumps(NO_IMAGES)}, PredictionError),
        (400, {"error": "illegal base64 data at input byte 0"}, PredictionError),
        (422, {"detail": [{"msg": "field required"}]}, PredictionError),
        (404, {"error": "model 'x' not found"}, ModelNotFound),
        (401, {"error": {"message": "Incorrect API key"}}, EngineUnavailable),
        (429, {"error": {"message": "slow down"}}, EngineUnavailable),
        (429, {"message": "Too many tokens, please wait before trying again."}, EngineUnavailable),
        (
            413,
            {"error": {"message": "Request too large: Limit 6000 tokens per minute (TPM)"}},
            EngineUnavailable,
        ),
        (402, {"error": {"message": "Prompt tokens limit exceeded: 9 > 6"}}, EngineUnavailable),
        (500, {"error": "model runner has unexpectedly stopped"}, EngineCrashed),
        (503, {"error": {"message": "Loading model", "code": 503}}, ConnectionLost),
        (500, None, ConnectionLost),
        (400, {"error": {"error": {"error": {"error": {"error": "x"}}}}}, PredictionError),
        (418, {"error": 17}, PredictionError),
    ],
)
def test_what_a_refusal_means(
    status: int, body: dict[str, object] | None, kind: type[LMStrixError]
) -> None:
    error = prediction_error(Refusal.read("It", status, body))
    assert type(error) is kind
    if body and "exceed_context_size" in json.dumps(body):
        assert isinstance(error, ContextOverflow)
        assert (error.prompt_tokens, error.context_length) == (2622, 512)
