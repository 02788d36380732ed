"""A small HTTP server on the loopback, for stand-ins of servers that speak JSON."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

import anyio
import anyio.abc
import attrs
import h11

from lmstrix.errors import LMStrixError
from lmstrix.json_values import Json, parse_object

MAX_BODY_BYTES = 2**26
READ_BYTES = 2**16
SHUTDOWN_S = 30.0
"""Longest that the release of everything may take on the way out."""

_LOST = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


@attrs.frozen(kw_only=True)
class Request:
    """What a client asked."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json


class StandInError(Exception):
    """An answer that is not a success."""

    def __init__(
        self, status: int, error: object, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(str(error))
        self.status = status
        self.body = {"error": error}
        self.headers = dict(headers or {})


class Answer:
    """The answer to one request: `whole`, or `begin` and then `piece` by piece."""

    def __init__(self, stream: anyio.abc.SocketStream, connection: h11.Connection) -> None:
        self._stream = stream
        self._connection = connection
        self.begun = False

    async def whole(
        self, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """One JSON value."""
        data = json.dumps(value).encode()
        more = {"content-length": str(len(data)), **(headers or {})}
        await self.begin("application/json", status, more)
        await self.piece(data)
        await self.end()

    async def begin(
        self, kind: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Status and headers."""
        self.begun = True
        fields = {"content-type": kind, "connection": "close", **(headers or {})}
        await self._send(h11.Response(status_code=status, headers=list(fields.items())))

    async def piece(self, data: bytes) -> None:
        """Some of the body."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """Nothing follows."""
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        if data := self._connection.send(event):
            await self._stream.send(data)


class LoopbackServer(ABC):
    """Serves on the loopback while it is entered, on asyncio and on trio.

    `begin` is called before the first connection, `serve` for each one, and `close` on the way out,
    before the task group `tasks` is cancelled. Entering it again serves on the same port. Raises
    `OSError` if the port is taken, and what `begin` raises.

    Args:
        port: the port to listen on; 0 for a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._exit = AsyncExitStack()
        self.tasks: anyio.abc.TaskGroup

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    async def begin(self) -> None:  # noqa: B027 - not every server needs it
        """Load what clients shall find loaded."""

    async def model_keys(self) -> list[str]:
        """The keys under which clients find its models."""
        return []

    @abstractmethod
    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """Serve one connection."""

    async def close(self) -> None:  # noqa: B027 - likewise
        """Release what is loaded."""

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as entered:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.port)
            entered.push_async_callback(anyio.aclose_forcefully, listener)
            port = listener.extra_attributes[anyio.abc.SocketAttribute.local_port]
            self.port = int(port())
            self.tasks = await entered.enter_async_context(anyio.create_task_group())
            entered.push_async_callback(self._shut)
            self._exit = entered.pop_all()
        try:
            await self.begin()
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        self.tasks.start_soon(listener.serve, self.serve)
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

    async def reached(self, condition: Callable[[], bool], *, within_s: float = 5.0) -> None:
        """Wait until `condition` holds; raises `TimeoutError` if it does not within the time.

        For what the server does behind a client's back: it hears of a cancellation some time
        after the client has gone on.
        """
        with anyio.fail_after(within_s):
            while not condition():  # noqa: ASYNC110 - any condition, so it is polled
                await anyio.sleep(0.01)

    async def _shut(self) -> None:
        with anyio.move_on_after(SHUTDOWN_S, shield=True):
            await self.close()
        self.tasks.cancel_scope.cancel()


class HttpServer(LoopbackServer):
    """Answers HTTP requests, one for each connection.

    Subclasses implement `handle`, which is cancelled when its client disconnects.
    """

    def __init__(self, port: int = 0) -> None:
        super().__init__(port)
        self.requests: list[Request] = []
        """All requests, in order."""

    @abstractmethod
    async def handle(self, request: Request, answer: Answer) -> None:
        """Answer one request; a `StandInError` is sent."""

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        """Read the request and answer it."""
        async with stream:
            # A client that disconnects is not an error of the server.
            with suppress(*_LOST, h11.RemoteProtocolError):
                connection = h11.Connection(h11.SERVER)
                request = await _read(stream, connection)
                self.requests.append(request)
                await _while_connected(
                    stream, lambda: self._answer(request, Answer(stream, connection))
                )

    async def _answer(self, request: Request, answer: Answer) -> None:
        try:
            await self.handle(request, answer)
        except StandInError as error:
            if not answer.begun:
                await answer.whole(error.body, error.status, error.headers)
        except LMStrixError as error:
            if not answer.begun:
                await answer.whole({"error": str(error)}, 500)
        except _LOST:
            pass


async def _read(stream: anyio.abc.SocketStream, connection: h11.Connection) -> Request:
    head, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive(READ_BYTES))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
            if len(body) > MAX_BODY_BYTES:
                raise anyio.EndOfStream
        elif head is not None:
            return Request(
                method=head.method.decode(),
                path=head.target.decode(),
                headers={name.decode(): value.decode() for name, value in head.headers},
                body=parse_object(body) or {},
            )
        else:
            raise anyio.EndOfStream


async def _while_connected(
    stream: anyio.abc.SocketStream, work: Callable[[], Awaitable[None]]
) -> None:
    """Do `work`, and cancel it when the client goes away."""

    async def watch() -> None:
        with suppress(*_LOST):
            while True:
                await stream.receive(READ_BYTES)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await work()
        tasks.cancel_scope.cancel()
