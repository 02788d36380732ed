"""Loaded models: each is held open by one task of the server until it is unloaded."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable
from functools import partial

import anyio
import anyio.abc
import attrs

from lmstrix.models import LoadProgress, ModelInfo
from lmstrix.ports import Adapter, LoadedModel
from lmstrix.testing.lmstudio.failures import no_instance
from lmstrix.testing.lmstudio.naming import listing_path, public_key
from lmstrix.testing.lmstudio.wire import Json, WireError, as_object

__all__ = ["Instance", "Instances"]

RELEASE_S = 20.0
"""Longest that a release may take before the server goes on without it."""
LOOK_S = 1.0
"""How often an instance looks whether its time to live is over."""


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
        """Whether it is gone or about to be."""
        return self._unload.is_set()

    def let_go(self) -> None:
        """Stop what it does and release it."""
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
    """What is loaded. `tasks` must outlive every instance."""

    def __init__(self, adapter: Adapter, tasks: anyio.abc.TaskGroup) -> None:
        self._adapter = adapter
        self._tasks = tasks
        self._loaded: dict[str, Instance] = {}
        self._promised: set[str] = set()
        self.unloads = 0

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
        on_release: Callable[[], None] = lambda: None,
    ) -> Instance:
        """Load a new instance; cancelling stops the load. Raises what the adapter raises.

        `on_release` is called when what was loaded is gone.
        """
        name = self._free_name(identifier, model)
        self._promised.add(name)
        try:
            hold = partial(self._hold, ttl_s=ttl_s, on_progress=on_progress, on_release=on_release)
            instance: Instance = await self._tasks.start(hold, model, context, name, fields or {})
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

    async def _hold(
        self,
        model: ModelInfo,
        context: int,
        name: str,
        fields: Json,
        *,
        ttl_s: float,
        on_progress: Callable[[LoadProgress], None] | None,
        on_release: Callable[[], None],
        task_status: anyio.abc.TaskStatus[Instance],
    ) -> None:
        instance: Instance | None = None
        try:
            async with self._adapter.load(model, context, on_progress=on_progress) as loaded:
                instance = Instance(
                    identifier=name, model=model, loaded=loaded, fields=fields, ttl_s=ttl_s
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
                self.unloads += 1
                instance.released.set()
                on_release()

    async def unload(self, instance: Instance) -> None:
        """Let go of an instance, and wait until its memory is free."""
        instance.let_go()
        with anyio.move_on_after(RELEASE_S):
            await instance.released.wait()
