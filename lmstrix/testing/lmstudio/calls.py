"""The remote procedure calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import attrs

from lmstrix.errors import LMStrixError
from lmstrix.testing.lmstudio.failures import load_error
from lmstrix.testing.lmstudio.script import Step
from lmstrix.testing.lmstudio.state import (
    ServerState,
    instance_entry,
    load_config,
    model_entry,
)
from lmstrix.testing.lmstudio.template import chat_prompt, is_rendered, parsed_prompt, rendered
from lmstrix.testing.lmstudio.wire import Json, WireError, config_fields, config_pairs, unboxed

__all__ = ["CALLS", "Call", "fits", "requested_context"]

DEFAULT_CONTEXT = 4096
"""What LM Studio loads where nothing was asked for."""


@attrs.frozen
class Call:
    """A call: what it does, and the members that its parameter must have."""

    run: Callable[[ServerState, Json], Awaitable[object]]
    needs: Mapping[str, type] = attrs.field(factory=dict[str, type])


def fits(parameter: Json, needs: Mapping[str, type]) -> str:
    """What is wrong with a parameter, or an empty string."""
    for key, kind in needs.items():
        if not isinstance(parameter.get(key), kind):
            return f"{key} must be {kind.__name__}"
    return ""


def requested_context(fields: Json) -> int:
    """The context that a load asks for, in tokens; raises `WireError`."""
    value = unboxed(fields.get("llm.load.contextLength", DEFAULT_CONTEXT))
    if not isinstance(value, int | float) or value < 1:
        raise WireError("Failed to load model", cause=f"invalid contextLength {value!r}")
    return int(value)


async def list_downloaded(state: ServerState, _: Json) -> object:
    await state.step(Step.LIST)
    known = [m for m in (await state.models()).values() if m.type in ("llm", "embedding")]
    entries = [model_entry(model, state.script) for model in known]
    return entries + [dict(entry) for entry in state.script.listing]


async def list_loaded(state: ServerState, _: Json) -> object:
    await state.step(Step.LIST)
    return [instance_entry(i, state.script) for i in state.instances.all()]


async def list_nothing(state: ServerState, _: Json) -> object:
    await state.step(Step.LIST)
    return []


async def model_info(state: ServerState, parameter: Json) -> object:
    await state.step(Step.INFO)
    try:
        found = state.instances.find(parameter["specifier"])
    except WireError:
        if parameter.get("throwIfNotFound"):
            raise
        return None
    return instance_entry(found, state.script)


async def get_load_config(state: ServerState, parameter: Json) -> object:
    await state.step(Step.INFO)
    return config_pairs(load_config(state.instances.find(parameter["specifier"])))


async def unload(state: ServerState, parameter: Json) -> object:
    await state.step(Step.UNLOAD)
    query = {"identifier": parameter["identifier"]}
    instance = state.touch(state.instances.find({"type": "query", "query": query}))
    await state.instances.unload(instance)
    state.counters.unloads += not instance.users_own
    return None


async def _count(state: ServerState, parameter: Json) -> int:
    await state.step(Step.COUNT)
    loaded = state.instances.find(parameter["specifier"]).loaded
    text = str(parameter["inputString"])
    try:
        if is_rendered(text):
            return await loaded.count_prompt_tokens(parsed_prompt(text))
        return await loaded.count_tokens(text)
    except LMStrixError as error:
        raise WireError("Tokenization failed", cause=str(error)) from error


async def count_tokens(state: ServerState, parameter: Json) -> object:
    return {"tokenCount": await _count(state, parameter)}


async def tokenize(state: ServerState, parameter: Json) -> object:
    """Ids are positions: a port counts tokens and does not name them."""
    return {"tokens": list(range(await _count(state, parameter)))}


async def apply_template(state: ServerState, parameter: Json) -> object:
    await state.step(Step.TEMPLATE)
    state.instances.find(parameter["specifier"])
    return {"formatted": rendered(chat_prompt(parameter["history"]))}


async def estimate(state: ServerState, parameter: Json) -> object:
    await state.step(Step.ESTIMATE)
    model = await state.model(str(parameter["modelKey"]))
    context = requested_context(config_fields(parameter["loadConfigStack"]))
    try:
        memory = await state.adapter.estimate_memory(model, context)
    except LMStrixError as error:
        raise load_error(error) from error
    if memory is None:
        sizes: Json = {"confidence": "low", "modelBytes": model.size_bytes, "contextBytes": 0}
        total = model.size_bytes
    else:
        sizes = {
            "confidence": "high",
            "modelBytes": memory.model_bytes,
            "contextBytes": memory.context_bytes,
        }
        total = memory.total_bytes
    sizes |= {"totalBytes": total, "modelVramBytes": 0, "contextVramBytes": 0, "totalVramBytes": 0}
    return {"memory": sizes, "passesGuardrails": memory is None or memory.fits is not False}


async def processing_state(state: ServerState, parameter: Json) -> object:
    instance = state.instances.find(parameter["specifier"])
    waiting = max(0, len(instance.running) - 1)
    return {"status": "generating" if instance.running else "idle", "queued": waiting}


async def version(_: ServerState, __: Json) -> object:
    return {"version": "0.0.0", "build": 0}


_SPECIFIER = {"specifier": dict}
_TEXT = {"specifier": dict, "inputString": str}
_MODEL_CALLS = {
    "getModelInfo": Call(model_info, _SPECIFIER),
    "getLoadConfig": Call(get_load_config, _SPECIFIER),
    "unloadModel": Call(unload, {"identifier": str}),
    "tokenize": Call(tokenize, _TEXT),
    "countTokens": Call(count_tokens, _TEXT),
    "getInstanceProcessingState": Call(processing_state, _SPECIFIER),
    "estimateModelUsage": Call(estimate, {"modelKey": str, "loadConfigStack": dict}),
}
CALLS: dict[str, dict[str, Call]] = {
    "llm": {
        **_MODEL_CALLS,
        "listLoaded": Call(list_loaded),
        "applyPromptTemplate": Call(apply_template, {"specifier": dict, "history": dict}),
    },
    "embedding": {**_MODEL_CALLS, "listLoaded": Call(list_nothing)},
    "system": {
        "listDownloadedModels": Call(list_downloaded),
        "version": Call(version),
        "getVersion": Call(version),
    },
    "files": {},
    "repository": {},
}
"""The calls by namespace and endpoint."""
