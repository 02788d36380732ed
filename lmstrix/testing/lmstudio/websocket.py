"""One connection: the HTTP greeting, or a websocket of JSON text frames."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import suppress

import anyio
import anyio.abc
import h11
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    Request,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from lmstrix.testing.lmstudio.wire import Json, as_object

__all__ = ["HANDSHAKE_S", "HttpRequest", "Lost", "WebSocket", "answer", "read_request"]

READ_BYTES = 65536
HANDSHAKE_S = 10.0
"""A client that says nothing for this long before it is authenticated is dropped."""
SEND_S = 10.0
"""A client that does not read for this long is dropped."""
MOST_BYTES = 64 * 2**20
"""Longest frame that is accepted; a million tokens of text are a tenth of it."""


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
    """A websocket that is already accepted. Every method raises `Lost` when it is gone."""

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
        """Frames as they come, until the client closes; a frame that is no JSON object is {}."""
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
        """Tear the connection down without a word."""
        await anyio.aclose_forcefully(self._stream)

    async def close(self) -> None:
        """Say goodbye; it does not matter whether the client hears it."""
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
