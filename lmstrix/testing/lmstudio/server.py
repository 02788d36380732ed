"""The stand-in server: a listener in front of an adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

from lmstrix.ports import Adapter
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

__all__ = ["LMStudioServer"]

SHUTDOWN_S = 30.0
"""Longest that the release of everything may take on the way out."""


class LMStudioServer:
    """A server that speaks LM Studio's protocol on the loopback, for the models of `adapter`.

    Args:
        adapter: has the models; loads and predictions are its own.
        script: how the server misbehaves.
        port: the port to listen on; 0 for a free one.
        preload: the user's own instances, as (key, identifier, context length).
        models: names of the only models to serve, as `Adapter.find_model` knows them; all
            that the adapter lists if none are named.

    An async context manager, on asyncio and on trio; entering it again is LM Studio started
    again, on the same port. Entering raises `OSError` if the port is taken, and what the
    adapter raises if a preload fails.
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
        self._adapter = adapter
        self._script = script or Script()
        self._port = port
        self._preload = preload
        self._models = models
        self._exit = AsyncExitStack()
        self._left_behind: list[str] | None = None
        self._untouched = True
        self._streams: set[anyio.abc.SocketStream] = set()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as entered:
            listener = await anyio.create_tcp_listener(
                local_host="127.0.0.1", local_port=self._port
            )
            entered.push_async_callback(anyio.aclose_forcefully, listener)
            port = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]
            self._port = int(port())
            tasks = await entered.enter_async_context(anyio.create_task_group())
            self._instances = Instances(self._adapter, tasks)
            self._state = ServerState(
                self._adapter,
                self._script,
                self._instances,
                self._models,
                self.drop_connections,
            )
            entered.push_async_callback(self._release, tasks)
            self._left_behind = None
            self._exit = entered.pop_all()
        try:
            await self._load_users_own()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        tasks.start_soon(listener.serve, self._serve, tasks)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if isinstance(error, anyio.get_cancelled_exc_class()):
            return await self._exit.__aexit__(kind, error, trace)
        # the block's own error is passed on as it is, not inside an exception group
        await self._exit.__aexit__(None, None, None)
        return None

    async def _load_users_own(self) -> None:
        for key, identifier, context in self._preload:
            model = await self._state.model(key)
            own = await self._instances.load(model, context, identifier=identifier)
            own.users_own = True

    async def _release(self, tasks: anyio.abc.TaskGroup) -> None:
        """Release all instances while the event loop still runs, then end everything."""
        self._untouched, self._left_behind = self.user_instances_untouched, self.left_behind
        with anyio.move_on_after(SHUTDOWN_S, shield=True):
            await self.unload_all()
        tasks.cancel_scope.cancel()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    @property
    def host(self) -> str:
        """The API host of an SDK: ``127.0.0.1:port``."""
        return f"127.0.0.1:{self._port}"

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

    async def reached(self, condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
        """Wait until `condition` holds; raises `TimeoutError` if it does not within the time.

        For what the server does behind a client's back: it hears of a cancellation some time
        after the client has gone on.
        """
        with anyio.fail_after(within_s):
            while not condition():  # noqa: ASYNC110 - any condition, so it is polled
                await anyio.sleep(0.01)

    async def _serve(self, stream: anyio.abc.SocketStream) -> None:
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
            self._state.counters.sockets_opened += 1
            await Session(self._state, connection, namespace).run()
