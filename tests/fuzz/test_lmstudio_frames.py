"""Whole frames, through a real connection and LM Studio's SDK: the call ends, with our error."""

from __future__ import annotations

import anyio
import pytest

from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.errors import EngineUnavailable
from lmstrix.json_values import Json
from lmstrix.testing.lmstudio import LMStudioServer, Script
from lmstrix.testing.lmstudio.wire import Mangler
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

ENDLESS_S = 60
DEEP = "[" * 100_000 + "]" * 100_000
FRAMES = {
    "deep": '{"type": "rpcResult", "callId": CALL, "result": ' + DEEP + "}",
    "number": '{"type": "rpcResult", "callId": ' + "9" * 5000 + ', "result": 1}',
    "error": '{"type": "rpcError", "callId": CALL, "error": {"title": [[]], "stack": 7}}',
    "surrogate": '{"type": "rpcError", "callId": CALL, "error": "\\ud800"}',
}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as the SDK
@pytest.mark.parametrize("name", FRAMES)
async def test_frames(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def mangled(_: Mangler, frame: Json, __: float) -> str | None:
        told = str(frame.get("callId", 0))
        return None if "success" in frame else FRAMES[name].replace("CALL", told)

    monkeypatch.setattr(Mangler, "mangled", mangled)
    simulated = SimulatedAdapter(SimulatedModel(key="m"))
    async with LMStudioServer(simulated, script=Script(malformed=1.0)) as server:
        with anyio.fail_after(ENDLESS_S), pytest.raises(EngineUnavailable):
            await LMStudioAdapter(server.host).list_models()
