"""The one module that imports the `lmstudio` SDK.

Of the SDK's private parts it uses a session's `_create_channel` and its websocket handler, and of
the channel that this gives `rx_stream` and `cancel`: the public calls send nothing when they are
cancelled, drop facts of the packets, and cannot set a load's number of sessions. `protocol` makes
what is sent. `check_sdk` reports whether those parts are still there. What the SDK opens on this
machine goes past a proxy that the environment names: no proxy leads here.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - the SDK runs on asyncio alone
import inspect
import logging
import math
import os
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from typing import Any, cast

import anyio
import attrs
import httpx
import lmstudio
from lmstudio import async_api, json_api

from lmstrix.adapters.http import is_loopback
from lmstrix.adapters.lmstudio import protocol
from lmstrix.adapters.streaming import spoken_s
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    EngineTimeout,
    EngineUnavailable,
    LMStrixError,
)
from lmstrix.json_values import Json, as_object

CLOSE_S = 0.5
"""Longest time that a connection may take to close, or a request to be sent after all."""
STOP_S = 0.8
"""Longest time that the server may take to say that it stopped, once a channel is cancelled."""
MOST_UNREAD = 2**14
"""Messages that wait to be read. A server that sends faster than we read is given up."""
TOKEN_VARIABLE = "LMSTUDIO_API_TOKEN"
"""The environment variable of LM Studio's own tools."""
_PRIVATE = (
    (async_api, "_AsyncSession._create_channel"),
    (async_api, "AsyncChannel.rx_stream"),
    (async_api, "AsyncChannel.cancel"),
    (json_api, "ChannelEndpoint.api_endpoint"),
    (json_api, "ChannelEndpoint.creation_params"),
    (json_api, "ChannelEndpoint.notice_prefix"),
)
_NAMESPACES = ("llm", "system")
"""Those that are called here."""
_CLOSED = (anyio.ClosedResourceError, anyio.BrokenResourceError)
Classify = Callable[[str], LMStrixError]

CHARACTERS_PER_S = 50_000
"""A small machine formats and counts a hundred times as many."""
TTL_S = 1800
"""Longer than any pause of a measurement between two requests."""
LOAD_S = 600.0
LOAD_BYTES_PER_S = 16 * 2**20
"""Slower than any disk that one would keep models on."""


@attrs.frozen(kw_only=True)
class Deadlines:
    """How long LM Studio may be silent, in seconds."""

    connect_s: float = 10.0
    """Greeting and connecting, each."""
    call_s: float = 30.0
    """A remote call; `for_text` adds time for long texts."""
    ask_s: float = 3.0
    """A call that older servers do not know, and therefore do not answer."""
    stall_s: float = 120.0
    """Between two signs of progress in a prediction, or ten times the slowest step so far."""
    load_s: float | None = None
    """Between two signs of progress in a load; None for ten minutes and a second for each 16 MiB
    of weights. A measurement has a shorter one, `MeasureOptions.load_timeout_s`."""
    ttl_s: int = TTL_S
    """If this process dies, LM Studio unloads its instances after so many idle seconds."""

    def __attrs_post_init__(self) -> None:
        for name, value in attrs.asdict(self).items():
            if value is not None and not value > 0:
                raise ConfigurationError(f"the deadline {name} must be positive, got {value}")

    def for_text(self, text: str) -> float:
        """For a call that sends `text`."""
        return self.call_s + len(text) / CHARACTERS_PER_S

    def for_load(self, size_bytes: int) -> float:
        """Between two signs of progress in a load of so many bytes of weights."""
        return LOAD_S + size_bytes / LOAD_BYTES_PER_S if self.load_s is None else self.load_s


def _client_for(url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=not is_loopback(url))


async def _probe(url: str) -> httpx.Response:
    async with _client_for(url) as client:
        return await client.get(url, timeout=1)


# A version without this module connects as it likes: see `check_sdk`.
_ws_impl: Any = sys.modules.get("lmstudio._ws_impl")
_connect: Any = getattr(_ws_impl, "aconnect_ws", None)


@asynccontextmanager
async def _connect_past_proxies(url: str, **more: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401
    async with _client_for(url) as client, _connect(url, client, **more) as socket:
        yield socket


if _connect is not None:
    setattr(_ws_impl, "aconnect_ws", _connect_past_proxies)  # noqa: B010 - private


def require_asyncio() -> None:
    """Raise `ConfigurationError` if the running event loop is not asyncio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise ConfigurationError(
            "the LM Studio adapter needs asyncio, as LM Studio's own SDK does",
            hint='Use anyio.run(..., backend="asyncio"), or adapter="llamacpp".',
        ) from error


def is_interrupted() -> bool:
    """Whether the running task was cancelled, also if its caller hides the error from us."""
    task = asyncio.current_task()
    return anyio.current_effective_deadline() == -math.inf or bool(task and task.cancelling())


def sdk_version() -> str:
    """The version of the installed SDK."""
    return version("lmstudio")


def check_sdk() -> None:
    """Raise `ConfigurationError` if the SDK lost a private part that is used here."""
    for module, path in _PRIVATE:
        found: object = module
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is None:
            raise ConfigurationError(
                f"lmstudio {sdk_version()} has no {path} any more, which LMStrix needs",
                hint='Install a version that has it: pip install "lmstudio==1.5.0".',
            )


class _Struct:
    """JSON in the shape in which the SDK takes a parameter."""

    def __init__(self, value: Json) -> None:
        self._value = value

    def to_dict(self) -> Json:
        return self._value


class _Endpoint:
    """A channel's endpoint in the shape in which the SDK takes it."""

    notice_prefix = "LM Studio"

    def __init__(self, name: str, parameter: Json) -> None:
        self.api_endpoint = name
        self.creation_params = parameter


class Channel:
    """A load or a prediction on its way."""

    def __init__(self, raw: Any, classify: Classify) -> None:  # noqa: ANN401 - private type
        self._raw = raw
        self._classify = classify
        self._packets = raw.rx_stream()
        self.settled = False
        """Whether nothing of importance can come any more."""

    async def next(self, deadline_s: float) -> Json | None:
        """The next packet, or None at the end.

        Raises the server's error as `classify` reads it, `EngineTimeout` or `EngineUnavailable`.
        """
        with _translated(self._classify, deadline_s):
            try:
                with anyio.fail_after(deadline_s):
                    packet: object = await anext(self._packets)
            except StopAsyncIteration:
                self.settled = True
                return None
            except lmstudio.LMStudioError:
                self.settled = True
                raise
        found = as_object(packet)
        self.settled = found.get("type") == "success"
        return found

    async def aclose(self) -> None:
        """Cancel what is not settled, and wait for the server to say that it stopped."""
        with (
            anyio.move_on_after(STOP_S, shield=True),
            _translated(self._classify, STOP_S),
        ):
            await self._packets.aclose()
            if not self.settled:
                await self._raw.cancel()
                async for packet in self._raw.rx_stream():
                    if as_object(packet).get("type") == "success":
                        break


class Connection:
    """A connected client: safe for several calls and channels at once, in one event loop."""

    def __init__(self, client: Any, host: str) -> None:  # noqa: ANN401 - its sessions are private
        self._client = client
        self._sockets: list[Any] = []
        self.host = host
        self.closed = False

    async def call(
        self,
        namespace: str,
        endpoint: str,
        parameter: Json | None = None,
        *,
        deadline_s: float,
        classify: Classify = protocol.call_error,
    ) -> object:
        """The result of a remote call.

        Raises the server's error as `classify` reads it, `EngineTimeout` if nothing is answered,
        which is also what a server does that does not know the endpoint, or `EngineUnavailable`.
        """
        self._require_open()
        with _translated(classify, deadline_s), anyio.fail_after(deadline_s):
            session = getattr(self._client, namespace)
            return cast(
                "object",
                await session.remote_call(
                    endpoint, None if parameter is None else _Struct(parameter)
                ),
            )

    @asynccontextmanager
    async def channel(
        self, endpoint: str, parameter: Json, *, deadline_s: float, classify: Classify
    ) -> AsyncGenerator[Channel, None]:
        """A new channel of the models' namespace; leaving early cancels it at the server."""
        self._require_open()
        opening = self._client.llm._create_channel(_Endpoint(endpoint, parameter))  # noqa: SLF001 - see the module's docstring
        sending = asyncio.ensure_future(opening.__aenter__())
        try:
            with _translated(classify, deadline_s), anyio.fail_after(deadline_s):
                channel = Channel(await asyncio.shield(sending), classify)
        except BaseException:
            await self._take_back(opening, sending, classify)
            raise
        try:
            yield channel
        finally:
            with suppress(LMStrixError):
                await channel.aclose()
            await opening.__aexit__(None, None, None)  # waits for nothing: it frees the number

    async def _take_back(
        self,
        opening: Any,  # noqa: ANN401 - private type
        sending: asyncio.Future[Any],
        classify: Classify,
    ) -> None:
        """Cancel a request that is still being sent: the server may have all of it already."""
        sending.add_done_callback(lambda done: done.cancelled() or done.exception())
        with anyio.move_on_after(CLOSE_S, shield=True), suppress(Exception):
            await Channel(await asyncio.shield(sending), classify).aclose()
            await opening.__aexit__(None, None, None)
        if not sending.done():
            sending.cancel()
            self.abort()

    async def open(self, deadline_s: float) -> None:
        """Connect; raises `EngineUnavailable` or `EngineTimeout`."""
        with _translated(protocol.call_error, deadline_s), anyio.fail_after(deadline_s):
            while True:
                try:
                    await self._client.__aenter__()
                    break
                except httpx.TimeoutException:  # the SDK's greeting gives up after a second
                    await anyio.sleep(0.1)
        self._guard()

    async def aclose(self) -> None:
        """Close it, whatever the server does."""
        self.closed = True
        # The SDK shields its own closing, which can wait for a server that reads nothing.
        hurry = asyncio.get_running_loop().call_later(CLOSE_S, self.abort)
        try:
            with (
                anyio.move_on_after(2 * CLOSE_S, shield=True),
                suppress(LMStrixError),
                _translated(protocol.call_error, CLOSE_S),
            ):
                await self._client.aclose()
        finally:
            hurry.cancel()

    def abort(self) -> None:
        """End the connection at once; nothing more is sent or read. Idempotent."""
        self.closed = True
        for handler in self._handlers():
            self._keep_socket(handler)
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _guard(self) -> None:
        """Keep from the SDK what it cannot stand.

        A frame that is the JSON value ``null`` makes SDK 1.5.0 ask for the next one again and
        again without ever waiting: the event loop stands still, deadlines and Ctrl-C included. Its
        queues have no bounds. An SDK without these private parts is left as it is.
        """
        for handler in self._handlers():
            self._keep_socket(handler)
            if hasattr(handler, "_enqueue_message"):
                handler._enqueue_message = _guarded(handler)  # noqa: SLF001 - of this object alone

    def _handlers(self) -> list[Any]:
        sessions = cast("dict[str, object]", getattr(self._client, "_sessions", {}))
        found = [
            getattr(getattr(s, "_lmsws", None), "_ws_handler", None) for s in sessions.values()
        ]
        return [handler for handler in found if handler is not None]

    def _keep_socket(self, handler: Any) -> None:  # noqa: ANN401 - private type
        stream = getattr(getattr(handler, "_ws", None), "stream", None)
        found = None if stream is None else stream.get_extra_info("socket")
        if found is not None and found not in self._sockets:
            self._sockets.append(found)

    def _require_open(self) -> None:
        if self.closed:
            raise EngineUnavailable("the model was released")


@asynccontextmanager
async def connected(
    host: str, *, token: str | None, deadline_s: float
) -> AsyncGenerator[Connection, None]:
    """A connection to the server at `host`.

    Raises `EngineUnavailable`, `EngineTimeout`, or `ConfigurationError` for an SDK that lacks
    what is used here.
    """
    check_sdk()
    _silence()
    connection = Connection(_client(host, token), host)
    try:
        await connection.open(deadline_s)
        yield connection
    finally:
        await connection.aclose()


def _silence() -> None:
    """Keep what the SDK logs from stderr, where Python prints warnings that nobody handles: they
    quote prompts and replies. Whoever does handle them still gets them.
    """
    for module in [found for name, found in sys.modules.items() if name.startswith("lmstudio.")]:
        for name, found in vars(module).items():
            if inspect.isclass(found) and found.__module__ == module.__name__:
                log = logging.getLogger(name)  # the SDK names them by class
                if not log.handlers:
                    log.addHandler(logging.NullHandler())


def _client(host: str, token: str | None) -> lmstudio.AsyncClient:
    settings: dict[str, Any] = {}
    accepted = inspect.signature(lmstudio.AsyncClient).parameters
    if "api_token" in accepted and (token or os.environ.get(TOKEN_VARIABLE)):
        settings["api_token"] = token or os.environ.get(TOKEN_VARIABLE)
    elif token:
        raise ConfigurationError(
            f"lmstudio {sdk_version()} takes no API token",
            hint="Install a newer one: pip install --upgrade --pre lmstudio.",
        )
    made = type("Client", (lmstudio.AsyncClient,), {"_query_probe_url": staticmethod(_probe)})
    try:
        client = made(host, **settings)
    except lmstudio.LMStudioError as error:
        raise ConfigurationError(
            f"the SDK of LM Studio refuses a setting: {_reason(error)}",
            hint=f"Check the API token in {TOKEN_VARIABLE}.",
        ) from error
    # It would open a socket for each of its namespaces, and for each read all of the system's
    # certificates, which takes longer than our calls.
    sessions: tuple[Any, ...] = getattr(client, "_ALL_SESSIONS", ())
    if sessions:
        needed = tuple(one for one in sessions if one.API_NAMESPACE in _NAMESPACES)
        setattr(client, "_ALL_SESSIONS", needed)  # noqa: B010 - private, and of this object alone
    return client


def _guarded(handler: Any) -> Callable[[object], Awaitable[bool]]:  # noqa: ANN401 - private type
    enqueue = handler._enqueue_message  # noqa: SLF001
    queues: Any = getattr(getattr(handler, "_mux", None), "all_queues", tuple)

    async def guarded(message: object) -> bool:
        # An error raised here ends the SDK's receiving task, which tells all that wait.
        if message is None:
            raise EngineUnavailable("LM Studio sent a frame that says nothing")
        if any(queue.qsize() > MOST_UNREAD for queue in queues()):
            raise EngineUnavailable("LM Studio sent more than was read")
        return await enqueue(message)

    return guarded


@contextmanager
def _translated(classify: Classify, deadline_s: float) -> Generator[None]:
    """The SDK's errors as ours."""
    try:
        yield
    except LMStrixError:  # some are OSErrors too
        raise
    except lmstudio.LMStudioServerError as error:
        raise classify(_words(error)) from error
    except TimeoutError as error:
        raise EngineTimeout(
            f"LM Studio did not answer within {spoken_s(deadline_s)}", hint=protocol.START_HINT
        ) from error
    except (
        lmstudio.LMStudioError,
        httpx.HTTPError,
        httpx.InvalidURL,
        OSError,
        ImportError,
        *_CLOSED,
    ) as error:
        lost = isinstance(error, (lmstudio.LMStudioWebsocketError, OSError, *_CLOSED))
        raise (ConnectionLost if lost else EngineUnavailable)(
            f"the connection to LM Studio was lost ({type(error).__name__}: {_reason(error)})",
            hint=protocol.START_HINT,
        ) from error


def _reason(error: Exception) -> str:
    """What went wrong, without the frame that the SDK quotes: it may hold a prompt or a reply."""
    return " ".join(str(error).partition(": {")[0].split())[:200]


def _words(error: lmstudio.LMStudioServerError) -> str:
    """Title, cause and data of the server's error."""
    told = error.server_error
    if told is None:
        return str(error)
    parts = (told.title, told.root_title, told.cause, told.error_data, told.display_data)
    return "\n".join(dict.fromkeys(str(part) for part in parts if part)) or str(error)
