"""The server's state, and the loaded instances in it."""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import PurePosixPath

import anyio
import anyio.abc
import attrs

from lmstrix.errors import EngineUnavailable, InvalidModel, UnsupportedModel
from lmstrix.json_values import Json, as_object
from lmstrix.models import LoadProgress, ModelInfo
from lmstrix.ports import Adapter, LoadedModel
from lmstrix.testing.lmstudio.script import Script, Step
from lmstrix.testing.lmstudio.wire import (
    Mangler,
    WireError,
    listing_path,
    no_instance,
    no_model,
    public_key,
)

RELEASE_S = 20.0
"""Longest that a release may take before the server goes on without it."""
LOOK_S = 1.0
"""Interval at which an instance checks its time to live, in seconds."""


@attrs.define(eq=False, kw_only=True)
class Instance:
    """One loaded model. `context` is the effective one, in tokens."""

    identifier: str
    model: ModelInfo
    loaded: LoadedModel
    fields: Json
    ttl_s: float = math.inf
    users_own: bool = False
    reference: str = attrs.field(factory=lambda: uuid.uuid4().hex)
    turn: anyio.Lock = attrs.field(factory=anyio.Lock)
    """Held by the prediction that runs."""
    running: set[anyio.CancelScope] = attrs.field(factory=set[anyio.CancelScope])
    last_used: float = attrs.field(factory=anyio.current_time)
    released: anyio.Event = attrs.field(factory=anyio.Event)
    _unload: anyio.Event = attrs.field(factory=anyio.Event)

    @property
    def key(self) -> str:
        """The key under which clients know the model."""
        return public_key(self.model)

    @property
    def context(self) -> int:
        """The context length that the engine reports."""
        return self.loaded.effective_context

    @property
    def unloading(self) -> bool:
        """Whether it is released or being released."""
        return self._unload.is_set()

    def let_go(self) -> None:
        """Stop its work and release it."""
        self._unload.set()
        for scope in self.running:
            scope.cancel()

    async def until_let_go(self) -> None:
        """Wait for `let_go`, or until nobody has used it for its time to live."""
        while not self.unloading:
            with anyio.move_on_after(min(self.ttl_s / 4, LOOK_S)):
                await self._unload.wait()
            if not self.running and anyio.current_time() >= self.last_used + self.ttl_s:
                self.let_go()
        async with self.turn:
            pass  # what ran is over: nothing uses `loaded` any more


class Instances:
    """The loaded instances. `tasks` must outlive every one of them."""

    def __init__(self, adapter: Adapter, tasks: anyio.abc.TaskGroup) -> None:
        self._adapter = adapter
        self._tasks = tasks
        self._loaded: dict[str, Instance] = {}
        self._promised: set[str] = set()

    def all(self) -> list[Instance]:
        """Every instance, oldest first."""
        return [instance for instance in self._loaded.values() if not instance.unloading]

    def find(self, specifier: object) -> Instance:
        """The instance that a specifier means; raises `WireError`."""
        wanted = as_object(specifier)
        if wanted.get("type") == "instanceReference":
            name = str(wanted.get("instanceReference", ""))
            found = [i for i in self.all() if i.reference == name]
        else:
            query = as_object(wanted.get("query"))
            name = str(query.get("identifier", query.get("path", "")))
            found = self.named(name) if name else self.all()
        if not found:
            raise no_instance(name, [i.identifier for i in self.all()])
        return found[0]

    def named(self, name: str) -> list[Instance]:
        """Instances of that identifier, or else of the model of that key."""
        exact = [i for i in self.all() if i.identifier == name]
        return exact or [i for i in self.all() if name in (i.key, listing_path(i.key))]

    async def load(
        self,
        model: ModelInfo,
        context: int,
        *,
        identifier: str = "",
        fields: Json | None = None,
        ttl_s: float = math.inf,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> Instance:
        """Load a new instance; cancelling stops the load. Raises what the adapter raises."""
        name = self._free_name(identifier, model)
        self._promised.add(name)

        async def hold(*, task_status: anyio.abc.TaskStatus[Instance]) -> None:
            instance: Instance | None = None
            try:
                async with self._adapter.load(model, context, on_progress=on_progress) as loaded:
                    instance = Instance(
                        identifier=name,
                        model=model,
                        loaded=loaded,
                        fields=fields or {},
                        ttl_s=ttl_s,
                    )
                    self._loaded[name] = instance
                    task_status.started(instance)
                    await instance.until_let_go()
            except Exception:
                # Before the start the loader hears of it; afterwards only the release went wrong,
                # which must not end the server.
                if instance is None:
                    raise
            finally:
                if instance is not None:
                    del self._loaded[name]
                    instance.released.set()

        try:
            instance: Instance = await self._tasks.start(hold)
        finally:
            self._promised.discard(name)
        return instance

    def _free_name(self, identifier: str, model: ModelInfo) -> str:
        taken = self._loaded.keys() | self._promised
        if identifier in taken:
            raise WireError(f"A model with identifier {identifier!r} is already loaded.")
        wanted = identifier or public_key(model)
        names = (wanted if n == 1 else f"{wanted}:{n}" for n in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)

    async def unload(self, instance: Instance) -> None:
        """Release an instance, and wait until its memory is free."""
        instance.let_go()
        with anyio.move_on_after(RELEASE_S):
            await instance.released.wait()


# State shared by all connections -----------------------------------------------------------------

SDK_FORMATS = ("gguf", "safetensors", "onnx", "ggml", "mlx_placeholder", "torch_safetensors")
"""Formats that SDK 1.5.0 can decode; everything else is listed as ``gguf``."""
UNKNOWN_CONTEXT = 4096
"""`maxContextLength` of a model that declares none: the wire requires a number."""


@attrs.define(kw_only=True)
class ServerCounters:
    """Counts of the clients' actions. The user's own preloaded instances are not counted."""

    loads: int = 0
    unloads: int = 0
    cancels: int = 0
    crashes: int = 0
    malformed: int = 0
    """Frames that the script made malformed."""
    warnings: list[str] = attrs.field(factory=list[str])
    """Protocol mistakes of clients, in the words of `communicationWarning`."""


@attrs.define(kw_only=True)
class LoadRecord:
    """A load that a client requested, with its config as received."""

    key: str
    identifier: str | None
    ttl_ms: object
    fields: Json


@attrs.define(kw_only=True)
class PredictionRecord:
    """A prediction that a client requested."""

    fields: Json
    raw: bool
    """Whether it came with a pass-through template, as a raw completion."""
    stop_reason: str = ""
    """As sent to the client; empty while there is none, and after an error."""


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
        with anyio.CancelScope(shield=True):  # it may end the task that called this
            await self._drop_connections()
            for instance in self.instances.all():
                if not instance.users_own:
                    instance.let_go()
        await anyio.sleep_forever()  # the end of its connection ends the caller

    async def step(self, step: Step) -> None:
        """Go on, or wait forever if the script is silent at `step`."""
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
        """The text sent for a frame; the script may make it malformed."""
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
    """A model's entry in `listDownloadedModels`."""
    key, declared = public_key(model), model.declared_context
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
    known = {
        "paramsString": model.parameters,
        "architecture": model.architecture,
        "quantization": {"name": model.quantization} if model.quantization else None,
    }
    entry |= {key: value for key, value in known.items() if value}
    return entry | dict(script.listing_extras)


def instance_entry(instance: Instance, script: Script) -> Json:
    """A loaded model's entry in `listLoaded` and `getModelInfo`."""
    return {
        **model_entry(instance.model, script),
        "identifier": instance.identifier,
        "instanceReference": instance.reference,
        "contextLength": instance.context,
    }


def load_config(instance: Instance) -> Json:
    """The fields of the load, with the effective context."""
    return {**instance.fields, "llm.load.contextLength": instance.context}
