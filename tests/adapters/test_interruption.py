"""An interruption waits for no deadline of the server's, and what stays loaded is named."""

from __future__ import annotations

import asyncio  # noqa: TID251 - a cancellation from outside of anyio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import pytest

from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.adapters.lmstudio.loaded import LMStudioModel
from lmstrix.models import Prompt

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a process cannot be frozen"),
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # as the SDK
]

HANGS_S = 60.0
"""Only an interruption that hangs takes longer, on a slow machine too."""
FOR_EVER_S = 3600.0
"""What waits for the server's answer hangs."""
QUESTION = Prompt(user="What runs past the mill?")
SERVER = """
import sys, anyio
from lmstrix.testing.lmstudio import LMStudioServer, Script
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

async def main():
    script = eval(sys.argv[1])
    async with LMStudioServer(SimulatedAdapter(SimulatedModel(key="m")), script=script) as server:
        print(server.host, flush=True)
        while True:
            await anyio.sleep(0.1)
            print(*server.left_behind, flush=True)

anyio.run(main)
"""


class Server:
    """A stand-in LM Studio in a process of its own, so that it can be frozen."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.host = self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def freeze(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    async def has_nothing_loaded(self) -> bool:
        with anyio.move_on_after(HANGS_S):
            while await anyio.to_thread.run_sync(self._line):
                pass
            return True
        return False


@asynccontextmanager
async def serving(script: str) -> AsyncGenerator[Server, None]:
    command = [sys.executable, "-c", SERVER, script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
        try:
            yield Server(process)
        finally:
            process.kill()


class Interruption:
    """Cancels the work once it is under way."""

    def __init__(self) -> None:
        self._under_way = anyio.Event()

    def begin(self) -> None:
        self._under_way.set()

    async def by_scope(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As the command line does it: everything runs in a scope that is cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work)
            await self._under_way.wait()
            tasks.cancel_scope.cancel()

    async def by_task(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As Ctrl-C does it in `asyncio.run`: the task is cancelled once."""
        task = asyncio.ensure_future(work())
        await self._under_way.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


FAULTS = {
    "frozen while it reads": "Script(prefill_s=2)",
    "frozen before it is sent everything": "Script()",
    "flooding": "Script(endless_from=2, ignores_cancel=True)",
}


@pytest.mark.parametrize("way", ["by_scope", "by_task"])
@pytest.mark.parametrize("hidden", [False, True], ids=["seen", "hidden"])
@pytest.mark.parametrize("fault", FAULTS)
async def test_an_interruption_does_not_wait_for_the_server(
    fault: str, hidden: bool, way: str
) -> None:
    """With `hidden` the caller releases the model in a `finally`, as a measurement does."""
    interruption = Interruption()
    async with serving(FAULTS[fault]) as server:
        adapter = LMStudioAdapter(
            server.host, call_s=FOR_EVER_S, stall_s=FOR_EVER_S, load_s=FOR_EVER_S
        )
        model = await adapter.find_model("m")

        def freeze() -> None:
            server.freeze()
            interruption.begin()

        async def ask(loaded: LMStudioModel) -> None:
            await loaded.count_prompt_tokens(QUESTION)
            if fault == "flooding":
                async for _ in loaded.stream(QUESTION, max_tokens=3000):
                    interruption.begin()
            elif fault == "frozen while it reads":
                await loaded.complete(QUESTION, max_tokens=9, on_progress=lambda _: freeze())
            else:
                freeze()
                await loaded.count_tokens("river " * 4_000_000)  # more than the socket takes

        async def work() -> None:
            try:
                if not hidden:
                    async with adapter.load(model, 4096) as loaded:
                        await ask(loaded)
                else:
                    stack = AsyncExitStack()
                    try:
                        await ask(await stack.enter_async_context(adapter.load(model, 4096)))
                    finally:
                        await stack.aclose()
            finally:
                await adapter.aclose()

        with anyio.fail_after(HANGS_S):
            await getattr(interruption, way)(work)
        if fault != "flooding":
            (warning,) = adapter.warnings
            assert "lmstrix-" in warning
            server.thaw()
            async with adapter.load(model, 512):
                pass
        assert adapter.warnings == ()
        assert await server.has_nothing_loaded()
