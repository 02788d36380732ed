"""The calls that a client makes and the loads that it starts: endpoints, parameters, answers."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import anyio
import attrs

from lmstrix.errors import LMStrixError, LoadFailed, LoadRefused, OutOfMemory
from lmstrix.json_values import Json
from lmstrix.models import LoadProgress, ModelInfo
from lmstrix.testing.lmstudio.script import LoadFate, OddPacket, Step
from lmstrix.testing.lmstudio.state import (
    Instance,
    LoadRecord,
    ServerState,
    instance_entry,
    load_config,
    model_entry,
)
from lmstrix.testing.lmstudio.wire import (
    WireError,
    chat_prompt,
    config_fields,
    config_pairs,
    is_rendered,
    load_error,
    parsed_prompt,
    rendered,
    unboxed,
)

__all__ = ["CALLS", "Channel", "Endpoint", "get_or_load", "load_model"]

DEFAULT_CONTEXT = 4096
"""The context that LM Studio loads if the client asks for none."""


Side = TypeVar("Side")


@attrs.frozen
class Endpoint(Generic[Side]):
    """A call or a channel: its function, and the members that its parameter must have."""

    run: Callable[[Side, Json], Awaitable[object]]
    needs: Mapping[str, type] = attrs.field(factory=dict[str, type])


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
    "getModelInfo": Endpoint(model_info, _SPECIFIER),
    "getLoadConfig": Endpoint(get_load_config, _SPECIFIER),
    "unloadModel": Endpoint(unload, {"identifier": str}),
    "tokenize": Endpoint(tokenize, _TEXT),
    "countTokens": Endpoint(count_tokens, _TEXT),
    "getInstanceProcessingState": Endpoint(processing_state, _SPECIFIER),
    "estimateModelUsage": Endpoint(estimate, {"modelKey": str, "loadConfigStack": dict}),
}
CALLS: Mapping[str, Mapping[str, Endpoint[ServerState]]] = {
    "llm": {
        **_MODEL_CALLS,
        "listLoaded": Endpoint(list_loaded),
        "applyPromptTemplate": Endpoint(apply_template, {"specifier": dict, "history": dict}),
    },
    "embedding": {**_MODEL_CALLS, "listLoaded": Endpoint(list_nothing)},
    "system": {
        "listDownloadedModels": Endpoint(list_downloaded),
        "version": Endpoint(version),
        "getVersion": Endpoint(version),
    },
    "files": {},
    "repository": {},
}
"""The calls by namespace and endpoint."""


# Channels ----------------------------------------------------------------------------------------


class Channel:
    """The server's side of a channel.

    `post` queues a frame, `drop` asks to close the socket after it. `scope` is what
    the client's `cancel` cancels.
    """

    def __init__(
        self,
        state: ServerState,
        number: int,
        post: Callable[[Json], None],
        drop: Callable[[], None],
    ) -> None:
        self.state = state
        self._drop = drop
        self.scope = anyio.CancelScope()
        self._number = number
        self._post = post
        self._mute = False

    def send(self, message: Json) -> None:
        """Send a message, unless the channel is over or silent."""
        if not self._mute:
            self._post({"type": "channelSend", "channelId": self._number, "message": message})

    def send_odd(self) -> None:
        """Send the script's odd packets before an answer."""
        if OddPacket.TOP_LEVEL in self.state.script.odd_packets:
            self._post({"type": "somethingNew", "content": 1})
        if OddPacket.IN_CHANNEL in self.state.script.odd_packets:
            self.send({"type": "somethingNew", "content": 1})

    async def step(self, step: Step) -> None:
        """Go on, or stay silent until the client cancels or disconnects."""
        if self.state.is_silent(step):
            self._mute = True
            await anyio.sleep_forever()

    async def drop(self) -> None:
        """Tear the whole socket down, which ends this channel too."""
        self._drop()
        await anyio.sleep_forever()

    def cancel(self) -> None:
        """The client cancels."""
        self.state.counters.cancels += 1
        if not self.state.script.ignores_cancel:
            self.scope.cancel()

    def end(self, error: WireError | None = None) -> None:
        """The channel is over, perhaps with an error."""
        frame: Json = {"type": "channelClose", "channelId": self._number}
        if error is not None:
            frame |= {"type": "channelError", "error": error.body}
        if not self._mute:
            self._post(frame)
        self._mute = True


# The channels that load a model ------------------------------------------------------------------


async def load_model(channel: Channel, parameter: Json) -> None:
    """`loadModel`: always a new instance."""
    identifier = parameter.get("identifier")
    record = LoadRecord(
        key=str(parameter["modelKey"]),
        identifier=identifier if isinstance(identifier, str) else None,
        ttl_ms=parameter.get("ttlMs"),
        fields=config_fields(parameter["loadConfigStack"]),
    )
    await _load(channel, record, first="resolved", going="progress", last="success")


async def get_or_load(channel: Channel, parameter: Json) -> None:
    """`getOrLoad`: a loaded instance, whatever its config, or a new one."""
    name = str(parameter["identifier"])
    found = channel.state.instances.named(name)
    if found:
        info = instance_entry(found[0], channel.state.script)
        channel.send({"type": "alreadyLoaded", "identifier": name, "info": info})
        return
    record = LoadRecord(
        key=name,
        identifier=None,
        ttl_ms=parameter.get("loadTtlMs"),
        fields=config_fields(parameter["loadConfigStack"]),
    )
    await _load(channel, record, first="startLoading", going="loadProgress", last="loadSuccess")


async def _load(channel: Channel, record: LoadRecord, *, first: str, going: str, last: str) -> None:
    state, script = channel.state, channel.state.script
    state.loads.append(record)
    number = len(state.loads)

    def tell(fraction: float) -> None:
        channel.send({"type": going, "progress": fraction})

    try:
        await channel.step(Step.LOAD_CREATED)
        model = await state.model(record.key)
        info = model_entry(model, script)
        channel.send({"type": first, "info": info, "identifier": record.identifier or record.key})
        channel.send_odd()
        if number == script.drop_at_load:
            await channel.drop()
        tell(0.0)
        await _meet_fate(channel, requested_context(record.fields))
        for step in range(script.load_progress):
            await anyio.sleep(script.load_s / script.load_progress)
            tell((step + 1) / (script.load_progress + 1))
        await anyio.sleep(0 if script.load_progress else script.load_s)
        instance = await _new_instance(state, record, model, tell)
    except LMStrixError as error:
        raise load_error(error) from error
    state.counters.loads += 1
    if number == script.drop_after_load:
        await channel.drop()
    try:
        tell(1.0)
        await channel.step(Step.LOAD_AFTER_PROGRESS)
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True):
            await state.instances.unload(instance)
        raise
    channel.send({"type": last, "info": instance_entry(instance, script)})


async def _new_instance(
    state: ServerState, record: LoadRecord, model: ModelInfo, tell: Callable[[float], None]
) -> Instance:
    script, ttl = state.script, record.ttl_ms
    context = requested_context(record.fields)
    if script.clamps_to is not None:
        context = min(context, script.clamps_to)
    if script.raises_to is not None:
        context = max(context, script.raises_to)

    def on_progress(progress: LoadProgress) -> None:
        if 0.0 < progress.fraction < 1.0:
            tell(progress.fraction)

    return await state.instances.load(
        model,
        context,
        identifier=record.identifier or "",
        fields=record.fields,
        ttl_s=ttl / 1000 if isinstance(ttl, int | float) and ttl > 0 else math.inf,
        on_progress=on_progress,
    )


async def _meet_fate(channel: Channel, context: int) -> None:
    """The fate of this load, according to the script. Raises the error of a scripted failure."""
    state, script = channel.state, channel.state.script
    if script.load is LoadFate.LOADS or context <= script.load_above:
        return
    state.fated_loads += 1
    if script.load_times is not None and state.fated_loads > script.load_times:
        return
    match script.load:
        case LoadFate.HANGS:
            await anyio.sleep_forever()
        case LoadFate.REFUSED:
            raise LoadRefused("a guardrail refuses (scripted)")
        case LoadFate.OUT_OF_MEMORY:
            raise OutOfMemory("not enough memory (scripted)")
        case _:
            raise LoadFailed("the engine could not load it (scripted)")
