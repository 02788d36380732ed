"""LM Studio's model listing, read leniently: what is unknown is kept, what is broken is empty.

The SDK's own reading of the listing fails whole at the first type or format that it does not
know, and drops devices, variants and quantisations.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import attrs

from lmstrix.json_values import Json, as_context, as_count, as_list, as_object, as_text
from lmstrix.models import ModelInfo

_ON = " (on "
"""Between the key and the device of a model that is not on this machine."""


def parse_listing(answer: object) -> list[ModelInfo]:
    """The models in an answer of `listDownloadedModels`, sorted by key.

    Of several entries with one key the first is kept. An entry without a key is passed over.
    Variants of a model that are not the selected one are models of their own, of unknown size.
    """
    found: dict[str, ModelInfo] = {}
    variants: list[ModelInfo] = []
    for entry in map(as_object, as_list(answer)):
        model = _model(entry)
        if model is None:
            continue
        found.setdefault(model.key, model)
        variants += _variants(entry, model)
    for model in variants:
        found.setdefault(model.key, model)
    return [found[key] for key in sorted(found)]


def wire_key(model: ModelInfo) -> str:
    """The key that LM Studio knows the model by, without our device suffix."""
    key, on, device = model.key.rpartition(_ON)
    return key if on and device.endswith(")") else model.key


def device_of(model: ModelInfo) -> str:
    """The device that the model is on; an empty string for this machine."""
    _, on, device = model.key.rpartition(_ON)
    return device[:-1] if on and device.endswith(")") else ""


def _model(entry: Json) -> ModelInfo | None:
    key = as_text(entry.get("modelKey"))
    if not key:
        return None
    device, quantization = as_text(entry.get("deviceIdentifier")), entry.get("quantization")
    model = ModelInfo(
        key=f"{key}{_ON}{device})" if device else key,
        path=as_text(entry.get("path")),
        format=as_text(entry.get("format")),
        architecture=as_text(entry.get("architecture")),
        size_bytes=as_count(entry.get("sizeBytes")) or 0,
        declared_context=as_context(entry.get("maxContextLength")),
        parameters=as_text(entry.get("paramsString")),
        # LM Studio writes {"name": "Q4_K_M", "bits": 4}.
        quantization=as_text(quantization) or as_text(as_object(quantization).get("name")),
        type=as_text(entry.get("type")) or "unknown",
    )
    return _with_digest(model, as_text(entry.get("selectedVariant")))


def _variants(entry: Json, model: ModelInfo) -> Iterable[ModelInfo]:
    selected = as_text(entry.get("selectedVariant"))
    suffix = model.key[len(wire_key(model)) :]
    for key in map(as_text, as_list(entry.get("variants"))):
        if key and key != selected:
            variant = ModelInfo(
                key=key + suffix,
                format=model.format,
                architecture=model.architecture,
                declared_context=model.declared_context,
                parameters=model.parameters,
                quantization=key.rpartition("@")[2].upper() if "@" in key else "",
                type=model.type,
            )
            yield _with_digest(variant, key)


def _with_digest(model: ModelInfo, variant: str) -> ModelInfo:
    """Identifies the content by what the listing tells of it; LM Studio tells no hash."""
    facts = [model.key, model.path, model.format, model.size_bytes, model.quantization, variant]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return attrs.evolve(model, digest=digest)
