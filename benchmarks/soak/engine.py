"""The stand-in LM Studio in a process of its own, so that it can be killed.

Run as a process: ``python engine.py SEED PORT NUMBER...`` serves the models of these
measurements. It says ``{"port": N}``, and then answers each line of JSON with one: ``state``,
``malform`` (with ``share`` and ``seed``), ``drop``, ``restart`` (with ``away_s``). It ends with
its input.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from functools import partial

import anyio
import attrs
from anyio import to_thread
from drawing import USERS_CONTEXT, Draw, draw

from lmstrix.testing.lmstudio import LMStudioServer, Script
from lmstrix.testing.simulated import SimulatedAdapter

SCRIPT = Script(load_s=0.05, prefill_s=0.004)
"""Slow enough for faults to hit loads and prompts, too."""

FLOOD_S = 0.0005
"""Between two pieces of an endless reply."""
PREDICTS_S = 1.0

Json = dict[str, object]


@attrs.define
class Engine:
    """A server with what must survive its restarts."""

    server: LMStudioServer
    malformed: int = 0
    untouched: bool = True

    def state(self) -> Json:
        """What there is to know of it."""
        server = self.server
        return {
            "left": server.left_behind,
            "untouched": self.untouched and server.user_instances_untouched,
            "malformed": self.malformed + server.counters.malformed,
        }

    def remember(self) -> None:
        """Before the server's own counters end."""
        state = self.state()
        self.malformed, self.untouched = int(str(state["malformed"])), bool(state["untouched"])

    def malform(self, share: float, seed: int) -> Json:
        """Send malformed frames from now on."""
        self.server.script = attrs.evolve(self.server.script, malformed=share, malformed_seed=seed)
        return {}

    def flood(self, *, on: bool) -> Json:
        """Let replies that begin from now on never end, or end again."""
        self.server.script = attrs.evolve(
            self.server.script,
            endless_from=1 if on else None,
            ignores_cancel=on,
            fragment_s=FLOOD_S if on else 0.0,
        )
        return {}

    async def predicts(self) -> Json:
        """Wait for the next prediction to begin, for a second at the most."""
        begun = len(self.server.predictions)
        with anyio.move_on_after(PREDICTS_S):
            while len(self.server.predictions) == begun:  # noqa: ASYNC110 - the server has no event
                await anyio.sleep(0.001)
        return {"predicts": len(self.server.predictions) > begun}


def server(draws: list[Draw], port: int) -> LMStudioServer:
    """A server where the user has loaded every model."""
    return LMStudioServer(
        SimulatedAdapter(*(d.model for d in draws)),
        script=SCRIPT,
        port=port,
        preload=[(d.model.key, d.users_own, USERS_CONTEXT) for d in draws],
    )


async def serve(draws: list[Draw], port: int) -> None:
    """Serve, and do what is asked, until the input ends."""
    engine = Engine(server(draws, port))
    say = partial(print, flush=True)
    again: float | None = 0.0
    while again is not None:
        await anyio.sleep(again)
        async with engine.server as running:
            say(json.dumps({"port": running.port}))
            again = await _obey(engine)
            engine.remember()


async def _obey(engine: Engine) -> float | None:
    """Do what is asked. Returns how long to be away, None for ever."""
    while line := await to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
        asked: Json = json.loads(line)
        match asked["do"]:
            case "restart":
                return float(str(asked["away_s"]))
            case "malform":
                answer = engine.malform(float(str(asked["share"])), int(str(asked["seed"])))
            case "drop":
                answer = Json(dropped=await engine.server.drop_connections())
            case "flood":
                answer = engine.flood(on=bool(asked["on"]))
            case "freeze":
                print(json.dumps(await engine.predicts()), flush=True)
                os.kill(os.getpid(), signal.SIGSTOP)
                continue
            case _:
                answer = engine.state()
        print(json.dumps(answer), flush=True)
    return None


if __name__ == "__main__":
    seed, port, *numbers = map(int, sys.argv[1:])
    anyio.run(serve, [draw(seed, number) for number in numbers], port)
