"""One authenticated websocket: calls and channels by their numbers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import anyio.abc

from lmstrix.testing.lmstudio.calls import CALLS, Call, fits
from lmstrix.testing.lmstudio.channel import Channel
from lmstrix.testing.lmstudio.channels import CHANNELS, ChannelKind
from lmstrix.testing.lmstudio.failures import wire_error
from lmstrix.testing.lmstudio.script import Step
from lmstrix.testing.lmstudio.state import ServerState
from lmstrix.testing.lmstudio.websocket import HANDSHAKE_S, Lost, WebSocket
from lmstrix.testing.lmstudio.wire import (
    Json,
    WireError,
    as_object,
    replaced,
    rpc_error,
    rpc_result,
    warning,
)

__all__ = ["Session"]


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
                with suppress(Lost):  # the end of a websocket is no error of the server
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
        """Send what is queued, in order; nothing that is cancelled can cut a frame in two."""
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
    """The first frame, or an empty one; raises `Lost` where a client keeps silent."""
    try:
        with anyio.fail_after(HANDSHAKE_S):
            return await anext(frames, Json())
    except TimeoutError as error:
        raise Lost("the client did not authenticate") from error
