"""The stand-in LM Studio, frame by frame, on both event loops."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from httpx_ws import AsyncWebSocketSession, WebSocketDisconnect, aconnect_ws

from lmstrix.ports import Adapter
from lmstrix.testing import pytest_plugin
from lmstrix.testing.lmstudio import LMStudioServer, Script
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

lmstudio_script = pytest_plugin.lmstudio_script
lmstudio_server = pytest_plugin.lmstudio_server

Frame = dict[str, Any]
AUTH: Frame = {"authVersion": 1, "clientIdentifier": "a", "clientPasskey": "b"}
SPECIFIER: Frame = {"type": "query", "query": {"identifier": "ours"}}
STACK: Frame = {"layers": [{"layerName": "apiOverride", "config": {"fields": []}}]}
HISTORY: Frame = {"messages": [{"role": "user", "content": [{"type": "text", "text": "word"}]}]}


def call(endpoint: str, number: int = 1, **parameter: object) -> Frame:
    return {"type": "rpcCall", "endpoint": endpoint, "callId": number, "parameter": parameter}


def create(endpoint: str, number: int = 1, **parameter: object) -> Frame:
    return {
        "type": "channelCreate",
        "endpoint": endpoint,
        "channelId": number,
        "creationParameter": parameter,
    }


def load(name: str = "ours", **more: object) -> Frame:
    return create("loadModel", 1, modelKey="m", identifier=name, loadConfigStack=STACK, **more)


PREDICT = create(
    "predict", 2, modelSpecifier=SPECIFIER, history=HISTORY, predictionConfigStack=STACK
)


class Wire:
    def __init__(self, socket: AsyncWebSocketSession) -> None:
        self._socket = socket

    async def send(self, frame: object) -> None:
        await self._socket.send_json(frame)

    async def receive(self) -> Frame:
        return await self._socket.receive_json(timeout=5)

    async def ask(self, frame: object) -> Frame:
        await self.send(frame)
        return await self.receive()

    async def until(self, kind: str) -> list[Frame]:
        """Frames up to the one of that type, which is a message's type in a channel."""
        frames: list[Frame] = []
        while True:
            frame = await self.receive()
            frames.append(frame)
            if kind in (frame["type"], frame.get("message", {}).get("type")):
                return frames


@asynccontextmanager
async def wire(server: LMStudioServer, namespace: str = "llm") -> AsyncGenerator[Wire, None]:
    with anyio.fail_after(20):
        async with aconnect_ws(f"ws://{server.host}/{namespace}") as socket:
            raw = Wire(socket)
            assert await raw.ask(AUTH) == {"success": True}
            yield raw


@pytest.fixture
def lmstudio_adapter() -> Adapter:
    return SimulatedAdapter(SimulatedModel(key="m"), memory_bytes=2**23)


@pytest.fixture
def lmstudio_preload() -> Sequence[tuple[str, str, int]]:
    return [("m", "mine", 4096)]


async def test_authentication_comes_first(lmstudio_server: LMStudioServer) -> None:
    async with aconnect_ws(f"ws://{lmstudio_server.host}/llm") as socket:
        refusal = await Wire(socket).ask(call("listLoaded"))
        assert refusal["success"] is False
        with pytest.raises(WebSocketDisconnect):
            await socket.receive_json(timeout=5)


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        (call("nonsense"), "rpcEndpointUnknown"),
        (call("countTokens", specifier="m", inputString="a"), "rpcParameterInvalid"),
        (create("nonsense"), "channelEndpointUnknown"),
        (create("loadModel", modelKey=1), "channelParameterInvalid"),
        ({"type": "nonsense"}, "messageUnknown"),
        ([1, 2], "messageUnknown"),
    ],
)
async def test_mistakes_are_told(lmstudio_server: LMStudioServer, frame: object, kind: str) -> None:
    async with wire(lmstudio_server) as raw:
        warned = await raw.ask(frame)
        assert (warned["type"], warned["kind"]) == ("communicationWarning", kind)
        assert (await raw.ask(call("listLoaded")))["type"] == "rpcResult"
    assert len(lmstudio_server.counters.warnings) == 1


async def test_an_adapters_defect_is_an_error_and_not_the_end(lmstudio_script: Script) -> None:
    adapter = SimulatedAdapter(SimulatedModel(key="m"), faults=[ZeroDivisionError("defect")])
    async with LMStudioServer(adapter, script=lmstudio_script) as server, wire(server) as raw:
        await raw.send(load())
        await raw.until("channelClose")
        await raw.send(PREDICT)
        (*_, failed) = await raw.until("channelError")
        assert failed["error"]["cause"] == "defect"
        await raw.send({**PREDICT, "channelId": 3})
        await raw.until("success")


async def test_a_client_that_goes_away_stops_its_work_and_keeps_its_instances() -> None:
    adapter = SimulatedAdapter(SimulatedModel(key="m"), reply_seconds=60)
    async with LMStudioServer(adapter) as server:
        async with wire(server) as raw:
            await raw.send(load())
            await raw.until("channelClose")
            await raw.send(PREDICT)
            await server.reached(lambda: adapter.counters.replies == 1)
        async with wire(server) as raw:
            await server.reached(lambda: server.left_behind == ["ours"])
            found = call("getInstanceProcessingState", specifier=SPECIFIER)
            assert (await raw.ask(found))["result"] == {"status": "idle", "queued": 0}
    assert adapter.counters.left_behind == 0


@pytest.mark.parametrize("noise", [b"\x00\x01 nonsense\r\n\r\n", b"GET /\r\n\r\n", b"\r\n\r\n"])
async def test_noise_does_not_end_the_server(lmstudio_server: LMStudioServer, noise: bytes) -> None:
    async with await anyio.connect_tcp("127.0.0.1", lmstudio_server.port) as stream:
        await stream.send(noise)
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()
    async with aconnect_ws(f"ws://{lmstudio_server.host}/llm") as socket:
        assert await Wire(socket).ask(AUTH) == {"success": True}
        await socket.send_text("{no json")
        assert (await Wire(socket).receive())["type"] == "communicationWarning"
