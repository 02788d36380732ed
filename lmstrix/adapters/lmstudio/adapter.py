"""A running LM Studio as an adapter."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import anyio
import attrs

from lmstrix.adapters.http import HOST_VARIABLE, ServerAdapter, named_model
from lmstrix.adapters.lmstudio import instances, listing, protocol
from lmstrix.adapters.lmstudio.discovery import find_server, parse_host
from lmstrix.adapters.lmstudio.loaded import LMStudioModel
from lmstrix.adapters.lmstudio.sdk import (
    TTL_S,
    Connection,
    Deadlines,
    connected,
    is_interrupted,
    require_asyncio,
    sdk_version,
)
from lmstrix.adapters.lmstudio_home import CONTEXT_KEY, existing_home, load_settings
from lmstrix.errors import (
    ConfigurationError,
    EngineTimeout,
    EngineUnavailable,
    InfrastructureError,
    LMStrixError,
    LoadError,
    LoadHung,
    ModelError,
    SettingsError,
)
from lmstrix.json_values import Json, as_count, as_object, as_text
from lmstrix.locks import THIS_MACHINE
from lmstrix.models import LoadedInstance, LoadProgress, MemoryEstimate, ModelInfo, Status

RELEASE_S = 30.0
"""Longest time that the release of a model may take; a later load tries again."""
CANCEL_S = 0.9
"""The same after an interruption, or if LM Studio does not answer. With the cancelling of a request
and the closing of connections an interruption ends within three seconds."""
RETRY_S = 0.6
"""The same when the client is closed, if LM Studio did not answer before."""


class LMStudioAdapter(ServerAdapter):
    """A `lmstrix.ports.Adapter` over LM Studio's server. Runs on asyncio only.

    Each load holds a connection of its own, and so does each other call while it runs; none
    is kept in between, except in a `session`. After a lost connection the next load makes a new
    one and unloads what this process had to leave behind.

    Args:
        host: ``HOST:PORT`` of the server; by default what ``LMSTRIX_HOST`` says, or what
            answers LM Studio's greeting on this machine.
        api_token: for a server that wants one; by default ``LMSTUDIO_API_TOKEN``.
        connect_s, call_s, stall_s, load_s: deadlines in seconds; see
            `lmstrix.adapters.lmstudio.sdk.Deadlines`.
        ttl_s: if this process dies, LM Studio unloads what it left after so many idle seconds.
    """

    name = "lmstudio"
    engine = "LM Studio"

    def __init__(
        self,
        host: str | None = None,
        *,
        api_token: str | None = None,
        connect_s: float = 10.0,
        call_s: float = 30.0,
        stall_s: float = 120.0,
        load_s: float | None = None,
        ttl_s: int = TTL_S,
    ) -> None:
        given = host or os.environ.get(HOST_VARIABLE) or None
        self._host = None if given is None else parse_host(given)
        super().__init__(self._host or "localhost")
        self._token = api_token
        self._deadlines = Deadlines(
            connect_s=connect_s,
            call_s=call_s,
            ask_s=min(call_s, 3.0),
            stall_s=stall_s,
            load_s=load_s,
            ttl_s=ttl_s,
        )
        self._left: set[str] = set()
        """Instances that were not seen to be unloaded; a load may still be on its way."""
        self._stuck: set[str] = set()
        """Those of them that LM Studio has said nothing about."""
        self._silent: set[str] = set()
        self._session: AsyncExitStack | None = None
        self._shared: Connection | None = None
        """The connection of the session."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that the user should read, such as the names of instances left loaded."""
        return (
            *self._notes,
            *(
                f"LM Studio did not answer and may still have {identifier} loaded: "
                "the next run unloads it, or unload it in LM Studio."
                for identifier in sorted(self._stuck)
            ),
        )

    async def list_models(self) -> Sequence[ModelInfo]:
        """Every model that LM Studio lists, sorted by key; raises an `InfrastructureError`."""
        async with self._asking() as connection:
            answer = await connection.call(
                "system", "listDownloadedModels", deadline_s=self._deadlines.call_s
            )
        if not isinstance(answer, list):
            raise EngineUnavailable("LM Studio's answer is not a list of models")
        models = listing.parse_listing(answer)  # pyright: ignore[reportUnknownArgumentType] - JSON
        return await anyio.to_thread.run_sync(self._with_settings, models, abandon_on_cancel=True)

    def _with_settings(self, models: Sequence[ModelInfo]) -> Sequence[ModelInfo]:
        """`models` with their settings, which are in files of the machine that LM Studio is on."""
        if self.turn != THIS_MACHINE:
            return models
        try:
            home = existing_home()
        except SettingsError:
            return models
        given = {CONTEXT_KEY, *protocol.ONE_SESSION}
        return [attrs.evolve(m, load_config=load_settings(m, home, given)) for m in models]

    async def find_model(self, name: str) -> ModelInfo:
        """The model that `name` means. The variant that is selected is the model itself."""
        models = await self.list_models()
        base, _, quantization = name.rpartition("@")
        selected = any(
            m.key == base and m.quantization.lower() == quantization.lower() for m in models
        )
        return named_model(models, base if selected else name, self.engine)

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> MemoryEstimate | None:
        """What LM Studio expects of a load; None if it does not say."""
        require_asyncio()
        parameter: Json = {
            "modelKey": listing.wire_key(model),
            "loadConfigStack": protocol.load_stack(context_length),
        }
        if device := listing.device_of(model):
            parameter = {**parameter, "deviceIdentifier": device}
        try:
            async with self._asking() as connection:
                answer = await self._asked(connection, "llm", "estimateModelUsage", parameter)
        except LMStrixError:
            return None
        memory = as_object(as_object(answer).get("memory"))
        weights = as_count(memory.get("modelBytes"))
        context = as_count(memory.get("contextBytes"))
        if weights is None or context is None or not weights + context:
            return None
        return MemoryEstimate(
            context_length=context_length, model_bytes=weights, context_bytes=context
        )

    @asynccontextmanager
    async def load(
        self,
        model: ModelInfo,
        context_length: int,
        *,
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AsyncGenerator[LMStudioModel, None]:
        """Load a new instance under an identifier of our own; it is unloaded afterwards.

        Raises:
            ModelNotFound, LoadRefused, LoadFailed, OutOfMemory: what LM Studio said of it.
            LoadHung: the load made no progress for `load_s`.
            UnsupportedModel: LM Studio loaded it on another device.
            EngineUnavailable, EngineTimeout: nothing is known about the model.
        """
        if context_length < 1:
            raise ConfigurationError(f"context_length must be at least 1, got {context_length}")
        identifier = instances.new_identifier()
        async with self._connection() as connection:
            await self._sweep(connection)
            # Only LM Studio's own refusal shows that there is nothing to unload.
            answers, loading, refused = False, True, False
            try:
                await instances.load_instance(
                    connection,
                    model,
                    identifier,
                    context_length,
                    deadlines=self._deadlines,
                    on_progress=on_progress,
                )
                loading = False
                yield await self._opened(connection, model, identifier)
                answers = True
            except GeneratorExit:  # left early, without an interruption
                answers = True
                raise
            except Exception as error:
                answers = not isinstance(error, InfrastructureError)
                hung = isinstance(error, LoadHung)
                refused = loading and isinstance(error, LoadError | ModelError) and not hung
                raise
            finally:
                self._left.add(identifier)
                await self._release(connection, identifier, answers=answers)
                if refused:
                    self._left.discard(identifier)

    async def status(self) -> Status:
        """Whether LM Studio answers, its version, and what is loaded in it."""
        require_asyncio()
        status = await super().status()
        return attrs.evolve(status, versions={"lmstudio SDK": sdk_version(), **status.versions})

    async def _state(self) -> tuple[str, Mapping[str, str], Sequence[LoadedInstance]]:
        async with self._asking() as connection:
            entries = await instances.listed(connection, self._deadlines.call_s)
            versions = await self._version(connection)
        return connection.host, versions, [self._instance(entry) for entry in entries]

    async def aclose(self) -> None:
        """Unload the instances left behind, if LM Studio answers. An interruption leaves them to
        the next run.
        """
        if not self._left:
            return
        require_asyncio()
        if is_interrupted():
            return
        with (
            suppress(LMStrixError),
            anyio.move_on_after(RETRY_S if self._stuck else RELEASE_S),
        ):
            async with self._connection() as connection:
                await self._sweep(connection)

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None, None]:
        """Keep the connection of the first call in the block for the others; loads have their own.

        Leave it in the task that entered it.
        """
        if self._session is not None:
            yield
            return
        async with AsyncExitStack() as stack:
            self._session = stack
            try:
                yield
            finally:
                self._session = self._shared = None

    @asynccontextmanager
    async def _asking(self) -> AsyncGenerator[Connection, None]:
        """A connection for a call that loads nothing: the session's, if there is one."""
        if self._session is None:
            async with self._connection() as connection:
                yield connection
            return
        if self._shared is None:
            self._shared = await self._session.enter_async_context(self._connection())
        try:
            yield self._shared
        except InfrastructureError:
            self._shared = None  # it may be lost: the next call makes a new one
            raise

    @asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Connection, None]:
        require_asyncio()
        host = await find_server(self._host, self._deadlines.connect_s)
        async with connected(
            host, token=self._token, deadline_s=self._deadlines.connect_s
        ) as connection:
            yield connection

    async def _opened(
        self, connection: Connection, model: ModelInfo, identifier: str
    ) -> LMStudioModel:
        context = await instances.effective_context(
            connection, model, identifier, deadlines=self._deadlines, note=self._note
        )
        return LMStudioModel(
            connection, identifier, model, context, deadlines=self._deadlines, note=self._note
        )

    async def _version(self, connection: Connection) -> Mapping[str, str]:
        """LM Studio's version, where it tells one. Measurements of another version are others, so
        one answer that was lost or malformed must not decide.
        """
        for last in (False, True):
            told = await self._asked(connection, "system", "version", None, once=last)
            if found := as_text(as_object(told).get("version")):
                return {"LM Studio": found}
        return {}

    async def _asked(
        self,
        connection: Connection,
        namespace: str,
        endpoint: str,
        parameter: Json | None,
        *,
        once: bool = True,
    ) -> object:
        """A call that some servers do not know, and then never answer. With `once` it is not
        made again if it was not answered.
        """
        if endpoint in self._silent:
            return None
        try:
            return await connection.call(
                namespace, endpoint, parameter, deadline_s=self._deadlines.ask_s
            )
        except EngineTimeout:
            if once:
                self._silent.add(endpoint)
            return None

    async def _sweep(self, connection: Connection) -> None:
        """Unload what was left behind, also by a process that died."""
        with suppress(LMStrixError):
            await self._unload(connection, set(self._left))

    async def _release(self, connection: Connection, identifier: str, *, answers: bool) -> None:
        """Unload `identifier`, over a new connection if this one is lost or LM Studio does not
        answer. An interruption, also one that the caller hides or that comes meanwhile, leaves
        `CANCEL_S` for it.
        """
        self._stuck.add(identifier)
        try:
            if answers and not is_interrupted():
                with anyio.move_on_after(RELEASE_S), suppress(LMStrixError):
                    try:
                        await self._unload(connection, {identifier})
                    except EngineUnavailable:
                        await self._unload_anew(identifier)
        finally:
            if identifier in self._stuck and (not answers or is_interrupted()):
                connection.abort()  # what it still sends would keep the answers waiting
                with anyio.move_on_after(CANCEL_S, shield=True), suppress(LMStrixError):
                    await self._unload_anew(identifier)

    async def _unload_anew(self, identifier: str) -> None:
        async with self._connection() as connection:
            await self._unload(connection, {identifier})

    async def _unload(self, connection: Connection, identifiers: set[str]) -> None:
        gone = await instances.unload(connection, identifiers, self._deadlines.call_s)
        self._left -= gone
        self._stuck -= identifiers

    def _instance(self, entry: Json) -> LoadedInstance:
        identifier = as_text(entry.get("identifier"))
        return LoadedInstance(
            key=as_text(entry.get("modelKey")),
            identifier=identifier,
            context_length=as_count(entry.get("contextLength")),
            ours=instances.is_ours(identifier),
        )
