"""One connection: the HTTP greeting, or an authenticated websocket with its calls and channels."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, Ping, TextMessage
from wsproto.utilities import ProtocolError

from lmstrix.json_values import Json, as_object, parse_object
from lmstrix.testing.lmstudio.calls import CALLS, Channel, Endpoint, get_or_load, load_model
from lmstrix.testing.lmstudio.predictions import predict
from lmstrix.testing.lmstudio.script import Step
from lmstrix.testing.lmstudio.state import ServerState
from lmstrix.testing.lmstudio.wire import WireError, replaced, wire_error

MOST_HEAD_BYTES = 65536
HANDSHAKE_S = 10.0
"""A client that sends nothing for this long before authentication is dropped."""
SEND_S = 10.0
"""A client that does not read for this long is dropped."""
MOST_BYTES = 64 * 2**20
"""Longest frame accepted; a million tokens of text are a tenth of it."""

_UPGRADE = re.compile(rb"\r\nupgrade:\s*websocket\s*\r\n", re.IGNORECASE)
_GONE = (
    anyio.EndOfStream,
    anyio.IncompleteRead,
    anyio.DelimiterNotFound,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    ProtocolError,
    TimeoutError,
)


class Lost(Exception):
    """The other side is gone, or broke HTTP or the websocket protocol."""


@contextmanager
def _losing() -> Generator[None, None, None]:
    try:
        yield
    except _GONE as error:
        raise Lost(str(error)) from error


class Connection:
    """A connection that asks for one path. Every method raises `Lost` if the client is gone."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self._stream = stream
        self._received = BufferedByteReceiveStream(stream)
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._sending = anyio.Lock()

    async def request(self) -> tuple[str, bool]:
        """The path that the client asks for, and whether it wants a websocket."""
        with _losing(), anyio.fail_after(HANDSHAKE_S):
            head = await self._received.receive_until(b"\r\n\r\n", MOST_HEAD_BYTES)
        self._head = head + b"\r\n\r\n"
        match head.partition(b"\r\n")[0].split(b" "):
            case [_, target, version] if version.startswith(b"HTTP/"):
                path = target.partition(b"?")[0].decode("ascii", "replace")
                return path, bool(_UPGRADE.search(self._head))
            case _:
                raise Lost("no request")

    async def answer(self, status: int, body: object) -> None:
        """Send a JSON response and end the exchange."""
        data = json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} {'OK' if status == 200 else 'Not Found'}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
            "Connection: close\r\n\r\n"
        )
        await self._send_bytes(head.encode() + data)

    async def accept(self) -> None:
        """Become a websocket."""
        with _losing():
            self._protocol.receive_data(self._head)
        await self._send(AcceptConnection())

    async def send(self, text: str) -> None:
        """Send one frame, whole or not at all."""
        await self._send(TextMessage(data=text))

    async def frames(self) -> AsyncGenerator[Json, None]:
        """Frames as they come, until the client closes; a frame that is not a JSON object is {}."""
        text: list[str] = []
        while True:
            with _losing():
                self._protocol.receive_data(await self._received.receive())
            for event in self._protocol.events():
                if isinstance(event, TextMessage):
                    text.append(event.data)
                    if sum(map(len, text)) > MOST_BYTES:
                        raise Lost("the frame is too long")
                    if event.message_finished:
                        yield parse_object("".join(text)) or {}
                        text.clear()
                elif isinstance(event, Ping | CloseConnection):
                    await self._send(event.response())
                    if isinstance(event, CloseConnection):
                        return

    async def drop(self) -> None:
        """Close the connection without a close frame."""
        await anyio.aclose_forcefully(self._stream)

    async def close(self) -> None:
        """Send a close frame, whether the client receives it or not."""
        with suppress(Lost):
            await self._send(CloseConnection(code=1000))

    async def _send(self, event: Event) -> None:
        # shielded: a cancelled task must not leave half a frame behind; sending has a deadline
        with anyio.CancelScope(shield=True):
            async with self._sending:
                with _losing():
                    data = self._protocol.send(event)
                await self._send_bytes(data)

    async def _send_bytes(self, data: bytes) -> None:
        with _losing(), anyio.fail_after(SEND_S):
            await self._stream.send(data)


_LOADS = {
    "loadModel": Endpoint[Channel](load_model, {"modelKey": str, "loadConfigStack": dict}),
    "getOrLoad": Endpoint[Channel](get_or_load, {"identifier": str, "loadConfigStack": dict}),
}
_PREDICTS = {"modelSpecifier": dict, "history": dict, "predictionConfigStack": dict}
CHANNELS: Mapping[str, Mapping[str, Endpoint[Channel]]] = {
    "llm": {**_LOADS, "predict": Endpoint(predict, _PREDICTS)},
    "embedding": _LOADS,
    "system": {},
    "files": {},
    "repository": {},
}
"""The channels by namespace and endpoint."""

Side = TypeVar("Side")


class Session:
    """Serves one websocket until the client closes it or the script drops it."""

    def __init__(self, state: ServerState, socket: Connection, namespace: str) -> None:
        self._state = state
        self._socket = socket
        self._namespace = namespace
        self._channels: dict[int, Channel] = {}
        self._queue, self._queued = anyio.create_memory_object_stream[Json | None](2**20)

    async def run(self) -> None:
        """Authenticate, then serve; raises `Lost`."""
        frames = self._socket.frames()
        try:
            with _losing(), anyio.fail_after(HANDSHAKE_S):
                first = await anext(frames, None)
            if not await self._authenticate(first or {}):
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
        success = known and not self._state.script.auth_refused
        error = {} if success else {"error": WireError("Invalid authentication packet").body}
        await self._socket.send(self._state.written({"success": success, **error}))
        return success

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
        """LM Studio's answer to a client that breaks the protocol."""
        self._state.counters.warnings.append(text)
        self._post({"type": "communicationWarning", "kind": kind, "warning": text})

    def _handle(self, frame: Json, tasks: anyio.abc.TaskGroup) -> None:
        match frame:
            case {"type": "rpcCall", "endpoint": str(name), "callId": int(number)}:
                parameter = as_object(frame.get("parameter"))
                call = self._known("rpc", CALLS[self._namespace], name, parameter)
                if call is not None:
                    tasks.start_soon(self._call, call, number, parameter)
            case {"type": "channelCreate", "endpoint": str(name), "channelId": int(number)}:
                parameter = as_object(frame.get("creationParameter"))
                opened = self._known("channel", CHANNELS[self._namespace], name, parameter)
                if opened is not None:
                    channel = Channel(self._state, number, self._post, self._drop)
                    self._channels[number] = channel
                    tasks.start_soon(self._channel, channel, opened, number, parameter)
            case {"type": "channelSend", "channelId": int(number), "message": {"type": "cancel"}}:
                if number in self._channels:
                    self._channels[number].cancel()
            case {"type": "channelSend"}:
                self._warn("channelMessageUnknown", "Unknown message in a channel")
            case {"type": "keepAlive"}:
                self._post({"type": "keepAliveAck"})
            case _:
                self._warn("messageUnknown", f"Unknown message type {frame.get('type')!r}")

    def _known(
        self, kind: str, endpoints: Mapping[str, Endpoint[Side]], name: str, parameter: Json
    ) -> Callable[[Side, Json], Awaitable[object]] | None:
        """The function of an endpoint; None, with a warning, if the client may not call it so."""
        endpoint = endpoints.get(name)
        if endpoint is None:
            self._warn(f"{kind}EndpointUnknown", f"Unknown {kind} endpoint {name!r}")
            return None
        for key, needed in endpoint.needs.items():
            if not isinstance(parameter.get(key), needed):
                trouble = f"{key} must be {needed.__name__}"
                self._warn(f"{kind}ParameterInvalid", f"Invalid parameter of {name!r}: {trouble}")
                return None
        return endpoint.run

    async def _call(
        self, run: Callable[[ServerState, Json], Awaitable[object]], number: int, parameter: Json
    ) -> None:
        try:
            await anyio.sleep(self._state.script.call_s)
            result = await run(self._state, parameter)
            told = {} if result is None else {"result": result}
            answer: Json = {"type": "rpcResult", "callId": number, **told}
        except Exception as error:  # noqa: BLE001 - an adapter's defect is one call's error
            answer = {"type": "rpcError", "callId": number, "error": wire_error(error).body}
        self._post(answer)

    async def _channel(
        self,
        channel: Channel,
        run: Callable[[Channel, Json], Awaitable[object]],
        number: int,
        parameter: Json,
    ) -> None:
        try:
            with channel.scope:
                await run(channel, parameter)
            channel.end()
        except Exception as error:  # noqa: BLE001 - an adapter's defect is one channel's error
            channel.end(wire_error(error))
        finally:
            del self._channels[number]
