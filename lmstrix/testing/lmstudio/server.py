"""The stand-in server: a listener in front of an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import anyio
import anyio.abc

from lmstrix.ports import Adapter
from lmstrix.testing.http_server import LoopbackServer
from lmstrix.testing.lmstudio.calls import CALLS
from lmstrix.testing.lmstudio.connection import Connection, Lost, Session
from lmstrix.testing.lmstudio.script import Script, Step
from lmstrix.testing.lmstudio.state import (
    Instances,
    LoadRecord,
    PredictionRecord,
    ServerCounters,
    ServerState,
)


class LMStudioServer(LoopbackServer):
    """A server that speaks LM Studio's protocol on the loopback, for the models of `adapter`.

    Args:
        adapter: has the models; loads and predictions are its own.
        script: how the server misbehaves.
        port: the port to listen on; 0 for a free one.
        preload: the user's own instances, as (key, identifier, context length).
        models: names of the only models to serve, as `Adapter.find_model` knows them; all
            that the adapter lists if none are named.

    Entering it again is LM Studio started again.
    """

    def __init__(
        self,
        adapter: Adapter,
        *,
        script: Script | None = None,
        port: int = 0,
        preload: Sequence[tuple[str, str, int]] = (),
        models: Sequence[str] = (),
    ) -> None:
        super().__init__(port)
        self._adapter = adapter
        self._script = script or Script()
        self._preload = preload
        self._models = models
        self._left_behind: list[str] | None = None
        self._untouched = True
        self._streams: set[anyio.abc.SocketStream] = set()

    async def begin(self) -> None:
        """Load the user's own instances."""
        self._instances = Instances(self._adapter, self.tasks)
        self._state = ServerState(
            self._adapter, self._script, self._instances, self._models, self.drop_connections
        )
        self._left_behind = None
        for key, identifier, context in self._preload:
            model = await self._state.model(key)
            own = await self._instances.load(model, context, identifier=identifier)
            own.users_own = True

    async def close(self) -> None:
        """Release all instances."""
        self._untouched, self._left_behind = self.user_instances_untouched, self.left_behind
        await self.unload_all()

    @property
    def script(self) -> Script:
        """How the server misbehaves; a new script applies from then on."""
        return self._script

    @script.setter
    def script(self, script: Script) -> None:
        self._script = self._state.script = script

    @property
    def counters(self) -> ServerCounters:
        """Counts of the clients' actions."""
        return self._state.counters

    @property
    def loads(self) -> Sequence[LoadRecord]:
        """Every requested load, in order, also those that failed."""
        return self._state.loads

    @property
    def predictions(self) -> Sequence[PredictionRecord]:
        """Every requested prediction, in order, also those that failed."""
        return self._state.predictions

    @property
    def loaded(self) -> list[str]:
        """Identifiers of the loaded instances, oldest first."""
        return [instance.identifier for instance in self._instances.all()]

    @property
    def left_behind(self) -> list[str]:
        """Clients' instances that are still loaded; after the exit, those loaded at that moment."""
        if self._left_behind is not None:
            return self._left_behind
        return [i.identifier for i in self._instances.all() if not i.users_own]

    @property
    def user_instances_untouched(self) -> bool:
        """Whether every preloaded instance is still loaded and was never used."""
        if self._left_behind is not None:
            return self._untouched
        own = {identifier for _, identifier, _ in self._preload}
        return own <= set(self.loaded) and not self._state.touched

    async def model_keys(self) -> list[str]:
        """The keys under which clients find its models."""
        return list(await self._state.models())

    async def drop_connections(self) -> int:
        """Close every connection without a close frame, and return their number."""
        streams = list(self._streams)
        for stream in streams:
            await anyio.aclose_forcefully(stream)
        return len(streams)

    async def unload_all(self) -> None:
        """Unload everything, as a user can in the application."""
        for instance in self._instances.all():
            await self._instances.unload(instance)

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """Answer the greeting, or serve a websocket."""
        self._streams.add(stream)
        try:
            async with stream:
                with suppress(Lost):  # a client that disconnects is not an error of the server
                    await self._answer(stream)
        finally:
            self._streams.discard(stream)

    async def _answer(self, stream: anyio.abc.SocketStream) -> None:
        if anyio.current_time() < self._state.away_until:
            return  # it crashed and is not back yet
        connection = Connection(stream)
        path, wants_websocket = await connection.request()
        namespace = path.strip("/")
        if path == "/lmstudio-greeting":
            await self._state.step(Step.GREETING)
            await connection.answer(200, {"lmstudio": True})
        elif not wants_websocket or namespace not in CALLS:
            await connection.answer(404, {"error": f"Unexpected endpoint {path!r}"})
        else:
            await self._state.step(Step.UPGRADE)
            await connection.accept()
            await Session(self._state, connection, namespace).run()
