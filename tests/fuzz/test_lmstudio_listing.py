"""What LM Studio lists, and what it says when something fails."""

from __future__ import annotations

import json

from fuzz_counts import put_through
from fuzz_values import NAMES, TEXTS, changed, deep, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from lmstrix.adapters.http import named_model
from lmstrix.adapters.lmstudio.listing import device_of, parse_listing, wire_key
from lmstrix.adapters.lmstudio.protocol import call_error, load_error, prediction_error
from lmstrix.errors import LMStrixError
from lmstrix.models import ModelInfo
from lmstrix.serialize import to_json

MODEL = {
    "type": "llm",
    "modelKey": "google/gemma-3-4b",
    "format": "gguf",
    "displayName": "Gemma 3 4B",
    "path": "google/gemma-3-4b/gemma.gguf",
    "sizeBytes": 3_000_000_000,
    "paramsString": "4B",
    "architecture": "gemma3",
    "maxContextLength": 131072,
    "quantization": {"name": "Q4_K_M", "bits": 4},
    "deviceIdentifier": None,
    "variants": ["google/gemma-3-4b@q4_k_m", "google/gemma-3-4b@q8_0"],
    "selectedVariant": "google/gemma-3-4b@q4_k_m",
}
LISTING = [MODEL, {**MODEL, "modelKey": "b", "deviceIdentifier": "attic"}]
WORDS = (
    "insufficient system resources",
    "cudaMalloc failed: out of memory",
    "trying to keep the first 5 tokens",
    "model unloaded",
    "exit code 9",
)


def _listed(answer: object) -> list[ModelInfo]:
    models = parse_listing(answer)
    for model in models:
        assert wire_key(model).strip() or model.key
        assert model.declared_context is None or model.declared_context > 0
        device_of(model)
    to_json(models)
    return models


@fuzz
@given(changed(LISTING), NAMES)
@example(deep(3000), "")
def test_listings(answer: object, name: str) -> None:
    models = put_through("LM Studio's listing", lambda: _listed(answer))
    assert models is not None
    put_through("name of a model", lambda: named_model(models, name, "LM Studio"))


@fuzz
@given(st.lists(st.sampled_from(WORDS) | TEXTS | st.text(), max_size=6).map(" ".join))
def test_messages(text: str) -> None:
    for make in (call_error, load_error, prediction_error):
        error = put_through("LM Studio's messages", lambda make=make: make(text))
        assert isinstance(error, LMStrixError)
        assert len(str(error)) < 1000
        json.dumps(str(error))
