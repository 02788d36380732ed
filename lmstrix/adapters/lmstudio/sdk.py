"""The one place that knows the `lmstudio` SDK.

Of the SDK's private parts it uses a session's `_create_channel`, and of the channel that this
gives `rx_stream` and `cancel`: the public calls send nothing when they are cancelled, drop
what packets tell, and cannot set a load's number of sessions. What is sent is made by
`requests`, not by the SDK. `check_sdk` says whether those parts are still there.
"""

from __future__ import annotations

import asyncio  # noqa: TID251 - the SDK runs on asyncio alone: this tells whether it can
import inspect
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.metadata import version
from typing import Any, cast

import anyio
import httpx
import lmstudio
from lmstudio import async_api, json_api

from lmstrix.adapters.lmstudio import failures
from lmstrix.adapters.lmstudio.guarding import guard
from lmstrix.errors import (
    ConfigurationError,
    ConnectionLost,
    EngineTimeout,
    EngineUnavailable,
    LMStrixError,
)
from lmstrix.json_values import Json, as_object

__all__ = [
    "TOKEN_VARIABLE",
    "Channel",
    "Connection",
    "check_sdk",
    "connected",
    "require_asyncio",
    "sdk_version",
]

CLOSE_S = 1.0
"""Longest time that closing a connection, or cancelling a channel, may take."""
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
_CLOSED = (anyio.ClosedResourceError, anyio.BrokenResourceError)
Classify = Callable[[str], LMStrixError]


def require_asyncio() -> None:
    """Raise `ConfigurationError` if the running event loop is not asyncio's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError as error:
        raise ConfigurationError(
            "the LM Studio adapter needs asyncio, as LM Studio's own SDK does",
            hint='Use anyio.run(..., backend="asyncio"), or adapter="llamacpp".',
        ) from error


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

        Raises what `classify` makes of the server's error, `EngineTimeout` or
        `EngineUnavailable`.
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
            anyio.move_on_after(CLOSE_S, shield=True),
            _translated(self._classify, CLOSE_S),
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
        self.host = host
        self.closed = False

    async def call(
        self,
        namespace: str,
        endpoint: str,
        parameter: Json | None = None,
        *,
        deadline_s: float,
        classify: Classify = failures.call_error,
    ) -> object:
        """The result of a remote call.

        Raises what `classify` makes of an error, `EngineTimeout` if nothing is answered,
        which is also what a server does that does not know the endpoint, or
        `EngineUnavailable`.
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
        raw: Any = None
        with (
            _translated(classify, deadline_s),
            # Sent whole or not at all: what was sent by halves could not be cancelled.
            anyio.CancelScope(shield=True),
            anyio.fail_after(deadline_s),
        ):
            raw = await opening.__aenter__()
        channel = Channel(raw, classify)
        try:
            yield channel
        finally:
            with suppress(LMStrixError):
                await channel.aclose()
            await opening.__aexit__(None, None, None)  # waits for nothing: it frees the number

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
    require_asyncio()
    check_sdk()
    _silence()
    client = _client(host, token)
    connection = Connection(client, host)
    try:
        with _translated(failures.call_error, deadline_s), anyio.fail_after(deadline_s):
            await _enter(client)
            guard(client)
        yield connection
    finally:
        connection.closed = True
        with (
            anyio.move_on_after(CLOSE_S, shield=True),
            suppress(LMStrixError),
            _translated(failures.call_error, CLOSE_S),
        ):
            await client.aclose()


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
    return lmstudio.AsyncClient(host, **settings)


async def _enter(client: lmstudio.AsyncClient) -> None:
    """The SDK's greeting gives up after a second: ask again, within the caller's deadline."""
    while True:
        try:
            await client.__aenter__()
        except httpx.TimeoutException:
            await anyio.sleep(0.1)
        else:
            return


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
            f"LM Studio did not answer within {round(deadline_s, 1) or 0.1:g} s",
            hint=failures.START_HINT,
        ) from error
    except (lmstudio.LMStudioError, httpx.HTTPError, OSError, *_CLOSED) as error:
        lost = isinstance(error, (lmstudio.LMStudioWebsocketError, OSError, *_CLOSED))
        raise (ConnectionLost if lost else EngineUnavailable)(
            f"the connection to LM Studio was lost ({type(error).__name__}: {_reason(error)})",
            hint=failures.START_HINT,
        ) from error


def _reason(error: Exception) -> str:
    """What went wrong, without the frame that the SDK quotes: it may hold a prompt or a reply."""
    return str(error).partition(": {")[0][:200]


def _words(error: lmstudio.LMStudioServerError) -> str:
    """Title, cause and data of the server's error."""
    told = error.server_error
    if told is None:
        return str(error)
    parts = (told.title, told.root_title, told.cause, told.error_data, told.display_data)
    return "\n".join(dict.fromkeys(str(part) for part in parts if part)) or str(error)
