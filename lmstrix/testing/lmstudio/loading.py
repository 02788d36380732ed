"""The channels that load a model."""

from __future__ import annotations

import math
from collections.abc import Callable

import anyio

from lmstrix.errors import LMStrixError, LoadFailed, LoadRefused, OutOfMemory
from lmstrix.models import LoadProgress, ModelInfo
from lmstrix.testing.lmstudio.calls import requested_context
from lmstrix.testing.lmstudio.channel import Channel
from lmstrix.testing.lmstudio.failures import load_error
from lmstrix.testing.lmstudio.instances import Instance
from lmstrix.testing.lmstudio.script import LoadFate, Step
from lmstrix.testing.lmstudio.state import LoadRecord, instance_entry, model_entry
from lmstrix.testing.lmstudio.wire import Json, config_fields

__all__ = ["get_or_load", "load_model"]


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
    """`getOrLoad`: what is loaded already, whatever its config, or a new instance."""
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
    channel.state.loads.append(record)
    try:
        await _load_recorded(channel, record, first, going, last)
    finally:
        if record.context is None:
            record.end()  # else it has ended when it is released


async def _load_recorded(
    channel: Channel, record: LoadRecord, first: str, going: str, last: str
) -> None:
    state, script = channel.state, channel.state.script
    number = len(state.loads)
    await channel.step(Step.LOAD_CREATED)
    model = await state.model(record.key)
    info = model_entry(model, script)
    channel.send({"type": first, "info": info, "identifier": record.identifier or record.key})
    channel.send_odd()
    if number == script.drop_at_load:
        await channel.drop()

    def tell(fraction: float) -> None:
        channel.send({"type": going, "progress": fraction})

    tell(0.0)
    context = requested_context(record.fields)
    await _meet_fate(channel, context)
    for step in range(script.load_progress):
        await anyio.sleep(script.load_s / script.load_progress)
        tell((step + 1) / (script.load_progress + 1))
    await anyio.sleep(0 if script.load_progress else script.load_s)
    try:
        instance = await _new_instance(channel, record, model, context, tell)
    except LMStrixError as error:
        raise load_error(error) from error
    state.counters.loads += 1
    record.context = instance.context
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
    channel: Channel,
    record: LoadRecord,
    model: ModelInfo,
    context: int,
    tell: Callable[[float], None],
) -> Instance:
    script = channel.state.script
    if script.clamps_to is not None:
        context = min(context, script.clamps_to)
    if script.raises_to is not None:
        context = max(context, script.raises_to)

    def on_progress(progress: LoadProgress) -> None:
        if 0.0 < progress.fraction < 1.0:
            tell(progress.fraction)

    ttl = record.ttl_ms
    return await channel.state.instances.load(
        model,
        context,
        identifier=record.identifier or "",
        fields=record.fields,
        ttl_s=ttl / 1000 if isinstance(ttl, int | float) and ttl > 0 else math.inf,
        on_progress=on_progress,
        on_release=record.end,
    )


async def _meet_fate(channel: Channel, context: int) -> None:
    """What the script wants to become of this load."""
    state, script = channel.state, channel.state.script
    if script.load is LoadFate.LOADS or context <= script.load_above:
        return
    state.fated_loads += 1
    if script.load_times is not None and state.fated_loads > script.load_times:
        return
    if script.load is LoadFate.HANGS:
        await anyio.sleep_forever()
    errors = {
        LoadFate.REFUSED: LoadRefused("a guardrail refuses (scripted)"),
        LoadFate.FAILED: LoadFailed("the engine could not load it (scripted)"),
        LoadFate.OUT_OF_MEMORY: OutOfMemory("not enough memory (scripted)"),
    }
    raise load_error(errors[script.load])
