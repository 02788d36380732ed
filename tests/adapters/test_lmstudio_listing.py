"""LM Studio's listing is read leniently, and names mean one model."""

from __future__ import annotations

import math

import pytest

from lmstrix.adapters.http import named_model
from lmstrix.adapters.lmstudio.listing import device_of, parse_listing, wire_key
from lmstrix.errors import ModelNotFound, UnsupportedModel
from lmstrix.json_values import as_count, as_seconds
from lmstrix.testing.lmstudio import ODD_LISTING

GEMMA = {
    "type": "llm",
    "modelKey": "google/gemma-3-4b",
    "format": "gguf",
    "path": "google/gemma-3-4b/gemma.gguf",
    "sizeBytes": 3_000_000_000,
    "paramsString": "4B",
    "architecture": "gemma3",
    "maxContextLength": 131072,
    "quantization": {"name": "Q4_K_M", "bits": 4},
}
EMBEDDING = {"type": "embedding", "modelKey": "nomic/embed", "maxContextLength": 2048}


def test_a_model_is_read_whole() -> None:
    (model,) = parse_listing([GEMMA])
    assert (model.key, model.type, model.format) == ("google/gemma-3-4b", "llm", "gguf")
    assert (model.size_bytes, model.declared_context) == (3_000_000_000, 131072)
    assert (model.parameters, model.architecture) == ("4B", "gemma3")
    assert model.quantization == "Q4_K_M"
    assert model.digest


def test_what_the_sdk_does_not_know_is_kept() -> None:
    models = {model.key: model for model in parse_listing([*ODD_LISTING, GEMMA])}
    assert models["odd/drafter"].type == "drafter"
    there = models["odd/pte (on another-machine)"]
    assert (there.format, there.quantization) == ("pte", "Q4_K_M")
    assert (wire_key(there), device_of(there)) == ("odd/pte", "another-machine")
    variant = models["odd/pte@q8_0 (on another-machine)"]
    assert (wire_key(variant), variant.quantization) == ("odd/pte@q8_0", "Q8_0")
    assert "odd/pte@q4_k_m (on another-machine)" not in models
    assert models["odd/bare"].declared_context is None
    assert list(models) == sorted(models)


def test_names() -> None:
    models = parse_listing([GEMMA, EMBEDDING])
    assert named_model(models, "google/gemma-3-4b", "LM Studio") == named_model(
        models, "gemma-3-4b", "LM Studio"
    )
    with pytest.raises(UnsupportedModel):
        named_model(models, "nomic/embed", "LM Studio")
    with pytest.raises(ModelNotFound) as caught:
        named_model(models, "gemma-3-4", "LM Studio")
    assert "google/gemma-3-4b" in caught.value.hint
    with pytest.raises(ModelNotFound, match="could be any of 2"):
        named_model(
            parse_listing([GEMMA, {**GEMMA, "modelKey": "other/gemma-3-4b"}]),
            "gemma-3-4b",
            "LM Studio",
        )
    with pytest.raises(ModelNotFound):
        named_model([], "", "LM Studio")


def test_a_model_elsewhere_and_a_changed_file_are_other_models() -> None:
    here, there = parse_listing([GEMMA, {**GEMMA, "deviceIdentifier": "attic"}])
    (changed,) = parse_listing([{**GEMMA, "sizeBytes": 5}])
    assert here.key != there.key
    assert len({here.digest, there.digest, changed.digest}) == 3
    assert wire_key(here) == wire_key(there)


NO_COUNTS: tuple[object, ...] = (math.nan, math.inf, -1, 1.5, True, "7", None, 10**400, [], {})


def test_counts_and_seconds() -> None:
    assert [as_count(value) for value in (7, 7.0, 0)] == [7, 7, 0]
    assert {as_count(value) for value in NO_COUNTS} == {None}
    assert [as_seconds(value) for value in (0.5, math.nan, "1")] == [0.5, None, None]
