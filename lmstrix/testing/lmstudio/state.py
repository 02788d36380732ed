"""What the server knows and has seen, shared by all its connections."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import PurePosixPath

import anyio
import attrs

from lmstrix.errors import EngineUnavailable, InvalidModel, UnsupportedModel
from lmstrix.models import ModelInfo
from lmstrix.ports import Adapter
from lmstrix.testing.lmstudio.failures import no_model
from lmstrix.testing.lmstudio.instances import Instance, Instances
from lmstrix.testing.lmstudio.mangling import Mangler
from lmstrix.testing.lmstudio.naming import listing_path, public_key
from lmstrix.testing.lmstudio.script import Script, Step
from lmstrix.testing.lmstudio.wire import Json, WireError

__all__ = [
    "LoadRecord",
    "PredictionRecord",
    "ServerCounters",
    "ServerState",
    "instance_entry",
    "load_config",
    "model_entry",
]

SDK_FORMATS = ("gguf", "safetensors", "onnx", "ggml", "mlx_placeholder", "torch_safetensors")
"""Formats that SDK 1.5.0 can decode; everything else is listed as ``gguf``."""
UNKNOWN_CONTEXT = 4096
"""`maxContextLength` of a model that declares none: the wire requires a number."""


@attrs.define(kw_only=True)
class ServerCounters:
    """What clients made the server do. User's own preloaded instances are not counted."""

    loads: int = 0
    unloads: int = 0
    predictions: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cancels: int = 0
    crashes: int = 0
    sockets_opened: int = 0
    malformed: int = 0
    """Frames that were sent malformed, as the script wants it."""
    warnings: list[str] = attrs.field(factory=list[str])
    """Protocol mistakes of clients, in the words of `communicationWarning`."""


@attrs.define(kw_only=True)
class LoadRecord:
    """A load that a client asked for, with its config as it came over the wire."""

    key: str
    identifier: str | None
    ttl_ms: object
    fields: Json
    context: int | None = None
    """The effective context, once it is loaded."""
    began: float = attrs.field(factory=anyio.current_time)
    """When it was asked for, in seconds of the event loop's clock, like `ended`."""
    ended: float | None = None
    """When it had failed, or was released again; None while it loads or is loaded."""

    def end(self) -> None:
        """Nothing of it is loaded any more."""
        self.ended = anyio.current_time()

    def overlaps(self, other: LoadRecord) -> bool:
        """Whether both were loading or loaded at one moment."""
        return self._before_end_of(other) and other._before_end_of(self)

    def _before_end_of(self, other: LoadRecord) -> bool:
        return other.ended is None or self.began < other.ended


@attrs.define(kw_only=True)
class PredictionRecord:
    """A prediction that a client asked for."""

    identifier: str
    fields: Json
    raw: bool
    """Whether it came with a pass-through template, as a raw completion."""
    stop_reason: str = ""
    """As it was told to the client; empty as long as there is none, and after an error."""
    prompt_tokens: int = 0
    cached_tokens: int = 0


class ServerState:
    """The server behind its sockets."""

    def __init__(
        self,
        adapter: Adapter,
        script: Script,
        instances: Instances,
        models: Sequence[str],
        drop_connections: Callable[[], Awaitable[object]],
    ) -> None:
        self.adapter = adapter
        self.script = script
        self.instances = instances
        self.counters = ServerCounters()
        self.loads: list[LoadRecord] = []
        self.predictions: list[PredictionRecord] = []
        self.touched: list[str] = []
        self.fated_loads = 0
        self.away_until = 0.0
        """When the server answers again after a crash, in seconds of the event loop's clock."""
        self._names = models
        self._drop_connections = drop_connections
        self._steps: Counter[Step] = Counter()
        self._mangler = Mangler(script.malformed_seed)

    async def crash(self) -> None:
        """Go down and come back: connections and clients' instances are gone. Never returns."""
        self.counters.crashes += 1
        self.away_until = anyio.current_time() + self.script.crash_away_s
        with anyio.CancelScope(shield=True):  # it ends the very task that called this
            await self._drop_connections()
            for instance in self.instances.all():
                if not instance.users_own:
                    instance.let_go()
        await anyio.sleep_forever()  # the end of its connection ends who called this

    async def step(self, step: Step) -> None:
        """Go on, or stay here for ever if the script is silent at `step`."""
        if self.is_silent(step):
            await anyio.sleep_forever()

    def is_silent(self, step: Step) -> bool:
        """Whether this visit of `step` meets silence; every call is a visit."""
        script = self.script
        if step not in script.silent_at:
            return False
        self._steps[step] += 1
        visit = self._steps[step] - script.silent_after
        return visit >= 1 and (script.silent_times is None or visit <= script.silent_times)

    def written(self, frame: Json) -> str:
        """A frame as it is sent, which the script may want to be malformed."""
        text = self._mangler.mangled(frame, self.script.malformed)
        if text is None:
            return json.dumps(frame)
        self.counters.malformed += 1
        return text

    async def models(self) -> dict[str, ModelInfo]:
        """The models that are served, by the key that clients see. Raises `WireError`."""
        try:
            if self._names:
                found = [await self.adapter.find_model(name) for name in self._names]
            else:
                found = list(await self.adapter.list_models())
        except (EngineUnavailable, InvalidModel, UnsupportedModel) as error:
            raise WireError("Cannot list models", cause=str(error)) from error
        return {public_key(model): model for model in found}

    async def model(self, key: str) -> ModelInfo:
        """The model of that key or path; raises `WireError`."""
        models = await self.models()
        by_path = {listing_path(name): model for name, model in models.items()}
        model = models.get(key) or by_path.get(key)
        if model is None:
            raise no_model(key)
        if model.type not in ("llm", "embedding"):
            raise WireError("Error loading model.", cause=f"{model.type} model")
        return model

    def touch(self, instance: Instance) -> Instance:
        """Note that a client works on an instance; the user's own are to be left alone."""
        if instance.users_own:
            self.touched.append(instance.identifier)
        return instance


def model_entry(model: ModelInfo, script: Script) -> Json:
    """A model as `listDownloadedModels` tells it."""
    key = public_key(model)
    declared = model.declared_context
    entry: Json = {
        "type": model.type,
        "modelKey": key,
        "format": model.format if model.format in SDK_FORMATS else "gguf",
        "displayName": PurePosixPath(key).name,
        "path": listing_path(key),
        "sizeBytes": model.size_bytes,
        "maxContextLength": UNKNOWN_CONTEXT if declared is None else declared,
    }
    if model.type == "llm":
        entry |= {"vision": False, "trainedForToolUse": False}
    if model.parameters:
        entry["paramsString"] = model.parameters
    if model.architecture:
        entry["architecture"] = model.architecture
    if model.quantization:
        entry["quantization"] = {"name": model.quantization}
    return entry | dict(script.listing_extras)


def instance_entry(instance: Instance, script: Script) -> Json:
    """A loaded model as `listLoaded` and `getModelInfo` tell it."""
    return model_entry(instance.model, script) | {
        "identifier": instance.identifier,
        "instanceReference": instance.reference,
        "contextLength": instance.context,
    }


def load_config(instance: Instance) -> Json:
    """The fields of the load, with the context that it really got."""
    return instance.fields | {"llm.load.contextLength": instance.context}
