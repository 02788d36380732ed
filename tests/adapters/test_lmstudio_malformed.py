"""Single malformed frames: each is trouble with the connection, never a fact about the model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import pytest

from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.errors import EngineUnavailable
from lmstrix.models import Prompt
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.lmstudio.state import ServerState
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

Frame = dict[str, Any]
Change = Callable[[Frame], object]
PROMPT = Prompt(user="The code is 7.\n\nWhat is the code?", answer_prefix="The code is")


pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # as the SDK


@attrs.define
class Spoiler:
    """Changes the first frame that holds `part`, and no other one."""

    part: str
    change: Change
    done: bool = False

    def written(self, frame: Frame) -> str:
        text = json.dumps(frame)
        if self.done or self.part not in text:
            return text
        self.done = True
        return json.dumps(self.change(frame))


def spoil(monkeypatch: pytest.MonkeyPatch, spoiler: Spoiler) -> None:
    def written(_: ServerState, frame: Frame) -> str:
        return spoiler.written(frame)

    monkeypatch.setattr(ServerState, "written", written)


def setting(*path: str, to: object) -> Change:
    """A change of one member."""

    def change(frame: Frame) -> Frame:
        at = frame
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to
        return frame

    return change


def closed(frame: Frame) -> Frame:
    """The end of the channel, where its result was to come."""
    return {"type": "channelClose", "channelId": frame["channelId"]}


SPOILT: dict[str, tuple[str, Change]] = {
    "a load without a result": ('"type": "success"', closed),
    # SDK 1.5.0 would go round in circles here, and stop the event loop.
    "a frame that is null": ("fragment", lambda _: None),
    "a piece without text": ("fragment", setting("message", "fragment", "content", to=5)),
    "a piece of no kind": ("fragment", setting("message", "fragment", "reasoningType", to=[1])),
    "a message without a type": ("fragment", setting("message", "type", to=0.5)),
    "more tokens than bytes": ("tokenCount", setting("result", "tokenCount", to=10**12)),
    "an impossible context": (
        '"result": {"type": "llm"',
        setting("result", "contextLength", to=10**12),
    ),
    "a prompt beyond the context": (
        "promptTokensCount",
        setting("message", "stats", "promptTokensCount", to=10**12),
    ),
}


@pytest.mark.parametrize(("part", "change"), SPOILT.values(), ids=SPOILT.keys())
async def test_one_malformed_frame(
    part: str, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiler = Spoiler(part, change)
    async with LMStudioServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        adapter = LMStudioAdapter(server.host)
        model = await adapter.find_model("m")
        spoil(monkeypatch, spoiler)
        with anyio.fail_after(10):
            with pytest.raises(EngineUnavailable):
                async with adapter.load(model, 1024) as loaded:
                    await loaded.complete(PROMPT, max_tokens=8)
            async with adapter.load(model, 1024) as loaded:
                await loaded.complete(PROMPT, max_tokens=8)
        assert spoiler.done
        assert server.left_behind == []


async def test_a_version_that_is_lost_once_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another version a measurement is another one, and would begin anew."""
    spoiler = Spoiler('"build"', setting("result", "version", to=17))
    async with LMStudioServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
        adapter = LMStudioAdapter(server.host)
        whole = await adapter.status()
        spoil(monkeypatch, spoiler)
        assert (await adapter.status()).versions == whole.versions
    assert spoiler.done
    assert "LM Studio" in whole.versions
