"""One connection: the HTTP greeting, or an authenticated websocket with its calls and channels."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress

import anyio
import anyio.abc
import attrs
import h11
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, Request, TextMessage
from wsproto.utilities import ProtocolError

from lmstrix.testing.lmstudio.calls import CALLS, Call, Channel, fits, get_or_load, load_model
from lmstrix.testing.lmstudio.predictions import predict
from lmstrix.testing.lmstudio.script import Step
from lmstrix.testing.lmstudio.state import ServerState
from lmstrix.testing.lmstudio.wire import (
    Json,
    WireError,
    as_object,
    replaced,
    rpc_error,
    rpc_result,
    warning,
    wire_error,
)

__all__ = [
    "CHANNELS",
    "HANDSHAKE_S",
    "ChannelKind",
    "HttpRequest",
    "Lost",
    "Session",
    "WebSocket",
    "answer",
    "read_request",
]

READ_BYTES = 65536
HANDSHAKE_S = 10.0
"""A client that sends nothing for this long before authentication is dropped."""
SEND_S = 10.0
"""A client that does not read for this long is dropped."""
MOST_BYTES = 64 * 2**20
"""Longest frame accepted; a million tokens of text are a tenth of it."""


_GONE = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, TimeoutError)


class Lost(Exception):
    """The other side is gone, or broke HTTP or the websocket protocol."""


class HttpRequest:
    """The head of the one request that a connection makes."""

    def __init__(self, request: h11.Request, trailing: bytes) -> None:
        self.headers = list(request.headers)
        self.target = request.target.decode("ascii", "replace")
        self.path = self.target.partition("?")[0]
        self.trailing = trailing

    @property
    def is_upgrade(self) -> bool:
        """Whether the client wants a websocket."""
        return any(k == b"upgrade" and v.lower() == b"websocket" for k, v in self.headers)


async def read_request(stream: anyio.abc.ByteStream) -> HttpRequest:
    """Read the head of a request; raises `Lost`."""
    http = h11.Connection(h11.SERVER)
    try:
        with anyio.fail_after(HANDSHAKE_S):
            while True:
                event = http.next_event()
                if isinstance(event, h11.Request):
                    return HttpRequest(event, http.trailing_data[0])
                if event is not h11.NEED_DATA:
                    raise Lost("no request")
                http.receive_data(await stream.receive(READ_BYTES))
    except (h11.RemoteProtocolError, *_GONE) as error:
        raise Lost(str(error)) from error


async def answer(stream: anyio.abc.ByteStream, status: int, body: object) -> None:
    """Send a JSON response and end the exchange; raises `Lost`."""
    data = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'Not Found'}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        "Connection: close\r\n\r\n"
    )
    await _send(stream, head.encode() + data)


class WebSocket:
    """An accepted websocket. Every method raises `Lost` if the client is gone."""

    def __init__(self, stream: anyio.abc.ByteStream, protocol: WSConnection) -> None:
        self._stream = stream
        self._protocol = protocol
        self._sending = anyio.Lock()

    @classmethod
    async def accept(cls, stream: anyio.abc.ByteStream, request: HttpRequest) -> WebSocket:
        """Finish the handshake that `request` began."""
        protocol = WSConnection(ConnectionType.SERVER)
        try:
            protocol.initiate_upgrade_connection(request.headers, request.target)
            if not any(isinstance(event, Request) for event in protocol.events()):
                raise Lost("no websocket request")
            reply = protocol.send(AcceptConnection())
            if request.trailing:
                protocol.receive_data(request.trailing)
        except ProtocolError as error:
            raise Lost(str(error)) from error
        await _send(stream, reply)
        return cls(stream, protocol)

    async def send(self, text: str) -> None:
        """Send one frame, whole or not at all."""
        await self._write(TextMessage(data=text))

    async def frames(self) -> AsyncGenerator[Json, None]:
        """Frames as they come, until the client closes; a frame that is not a JSON object is {}."""
        text: list[str] = []
        while True:
            for event in self._protocol.events():
                if isinstance(event, TextMessage):
                    text.append(event.data)
                    if sum(map(len, text)) > MOST_BYTES:
                        raise Lost("the frame is too long")
                    if event.message_finished:
                        yield _json_object("".join(text))
                        text.clear()
                elif isinstance(event, Ping):
                    await self._write(event.response())
                elif isinstance(event, CloseConnection):
                    await self._write(event.response())
                    return
            await self._read()

    async def drop(self) -> None:
        """Close the connection without a close frame."""
        await anyio.aclose_forcefully(self._stream)

    async def close(self) -> None:
        """Send a close frame, whether the client receives it or not."""
        with suppress(Lost):
            await self._write(CloseConnection(code=1000))

    async def _read(self) -> None:
        try:
            data = await self._stream.receive(READ_BYTES)
            self._protocol.receive_data(data)
        except (ProtocolError, *_GONE) as error:
            raise Lost(str(error)) from error

    async def _write(self, event: Event) -> None:
        # shielded: a cancelled task must not leave half a frame behind; `_send` has a deadline
        with anyio.CancelScope(shield=True):
            async with self._sending:
                try:
                    data = self._protocol.send(event)
                except ProtocolError as error:
                    raise Lost(str(error)) from error
                await _send(self._stream, data)


async def _send(stream: anyio.abc.ByteStream, data: bytes) -> None:
    try:
        with anyio.fail_after(SEND_S):
            await stream.send(data)
    except _GONE as error:
        raise Lost(str(error)) from error


def _json_object(text: str) -> Json:
    try:
        return as_object(json.loads(text))
    except ValueError:
        return {}


# Kinds of channels ------------------------------------------------------------------------------


@attrs.frozen
class ChannelKind:
    """A kind of channel: its function, and the members that its parameter must have."""

    run: Callable[[Channel, Json], Awaitable[None]]
    needs: Mapping[str, type]


_LOADS = {
    "loadModel": ChannelKind(load_model, {"modelKey": str, "loadConfigStack": dict}),
    "getOrLoad": ChannelKind(get_or_load, {"identifier": str, "loadConfigStack": dict}),
}
CHANNELS: dict[str, dict[str, ChannelKind]] = {
    "llm": {
        **_LOADS,
        "predict": ChannelKind(
            predict, {"modelSpecifier": dict, "history": dict, "predictionConfigStack": dict}
        ),
    },
    "embedding": _LOADS,
    "system": {},
    "files": {},
    "repository": {},
}
"""The channels by namespace and endpoint."""


# Sessions ----------------------------------------------------------------------------------------


class Session:
    """Serves one websocket until the client closes it or the script drops it."""

    def __init__(self, state: ServerState, socket: WebSocket, namespace: str) -> None:
        self._state = state
        self._socket = socket
        self._namespace = namespace
        self._channels: dict[int, Channel] = {}
        self._queue, self._queued = anyio.create_memory_object_stream[Json | None](2**20)

    async def run(self) -> None:
        """Authenticate, then serve; raises `Lost`."""
        frames = self._socket.frames()
        try:
            if not await self._authenticate(await _first(frames)):
                await self._socket.close()
                return
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._write, tasks.cancel_scope)
                with suppress(Lost):  # the end of a websocket is not an error of the server
                    async for frame in frames:
                        self._handle(frame, tasks)
                tasks.cancel_scope.cancel()
        finally:
            await frames.aclose()
            self._queue.close()
            self._queued.close()

    async def _authenticate(self, frame: Json) -> bool:
        await self._state.step(Step.AUTH)
        known = frame.get("authVersion") == 1 and all(
            isinstance(frame.get(key), str) for key in ("clientIdentifier", "clientPasskey")
        )
        if known and not self._state.script.auth_refused:
            await self._socket.send(self._state.written({"success": True}))
            return True
        error = WireError("Invalid authentication packet").body()
        await self._socket.send(self._state.written({"success": False, "error": error}))
        return False

    async def _write(self, scope: anyio.CancelScope) -> None:
        """Send the queued frames in order; cancelling cannot cut a frame in two."""
        async for frame in self._queued:
            with anyio.CancelScope(shield=True):
                try:
                    if frame is None:
                        await self._socket.drop()
                        break
                    await self._socket.send(self._state.written(frame))
                except Lost:
                    break
        scope.cancel()

    def _post(self, frame: Json) -> None:
        changed = replaced(frame, self._state.script.replaced)
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            self._queue.send_nowait(as_object(changed))  # if the client is gone, nobody waits

    def _drop(self) -> None:
        self._queue.send_nowait(None)

    def _warn(self, kind: str, text: str) -> None:
        self._state.counters.warnings.append(text)
        self._post(warning(kind, text))

    def _handle(self, frame: Json, tasks: anyio.abc.TaskGroup) -> None:
        match frame:
            case {"type": "rpcCall", "endpoint": str(endpoint), "callId": int(number)}:
                self._start_call(endpoint, number, as_object(frame.get("parameter")), tasks)
            case {"type": "channelCreate", "endpoint": str(endpoint), "channelId": int(number)}:
                parameter = as_object(frame.get("creationParameter"))
                self._start_channel(endpoint, number, parameter, tasks)
            case {"type": "channelSend", "channelId": int(number), "message": {"type": "cancel"}}:
                if number in self._channels:
                    self._channels[number].cancel()
            case {"type": "channelSend"}:
                self._warn("channelMessageUnknown", "Unknown message in a channel")
            case {"type": "keepAlive"}:
                self._post({"type": "keepAliveAck"})
            case _:
                self._warn("messageUnknown", f"Unknown message type {frame.get('type')!r}")

    def _start_call(
        self, endpoint: str, number: int, parameter: Json, tasks: anyio.abc.TaskGroup
    ) -> None:
        call = CALLS[self._namespace].get(endpoint)
        if call is None:
            self._warn("rpcEndpointUnknown", f"Unknown RPC endpoint {endpoint!r}")
        elif trouble := fits(parameter, call.needs):
            self._warn("rpcParameterInvalid", f"Invalid parameter of {endpoint!r}: {trouble}")
        else:
            tasks.start_soon(self._call, call, number, parameter)

    async def _call(self, call: Call, number: int, parameter: Json) -> None:
        try:
            await anyio.sleep(self._state.script.call_s)
            self._post(rpc_result(number, await call.run(self._state, parameter)))
        except Exception as error:  # noqa: BLE001 - an adapter's defect is one call's error
            self._post(rpc_error(number, wire_error(error)))

    def _start_channel(
        self, endpoint: str, number: int, parameter: Json, tasks: anyio.abc.TaskGroup
    ) -> None:
        kind = CHANNELS[self._namespace].get(endpoint)
        if kind is None:
            self._warn("channelEndpointUnknown", f"Unknown channel endpoint {endpoint!r}")
        elif trouble := fits(parameter, kind.needs):
            self._warn("channelParameterInvalid", f"Invalid parameter of {endpoint!r}: {trouble}")
        else:
            channel = Channel(self._state, number, self._post, self._drop)
            self._channels[number] = channel
            tasks.start_soon(self._channel, channel, kind, number, parameter)

    async def _channel(
        self, channel: Channel, kind: ChannelKind, number: int, parameter: Json
    ) -> None:
        try:
            with channel.scope:
                await kind.run(channel, parameter)
            channel.close()
        except Exception as error:  # noqa: BLE001 - an adapter's defect is one channel's error
            channel.fail(wire_error(error))
        finally:
            del self._channels[number]


async def _first(frames: AsyncIterator[Json]) -> Json:
    """The first frame, or an empty one; raises `Lost` if the client stays silent."""
    try:
        with anyio.fail_after(HANDSHAKE_S):
            return await anext(frames, Json())
    except TimeoutError as error:
        raise Lost("the client did not authenticate") from error
