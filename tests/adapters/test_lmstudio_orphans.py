"""What a killed process left loaded in LM Studio is unloaded by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import cast

import anyio
import pytest

from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.adapters.lmstudio.instances import is_orphan, new_identifier, unload
from lmstrix.adapters.lmstudio.sdk import Connection
from lmstrix.errors import EngineTimeout
from lmstrix.json_values import Json
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="nobody is asked there whether a process lives"
)

KILLED_WHILE_LOADED = """
import os, signal, sys, anyio
from lmstrix.adapters.lmstudio import LMStudioAdapter
async def main():
    adapter = LMStudioAdapter(host=sys.argv[1])
    async with adapter.load(await adapter.find_model("m"), 512):
        os.kill(os.getpid(), signal.SIGKILL)
anyio.run(main)
"""


@pytest.fixture
def anyio_backend() -> str:
    """The adapter runs on asyncio alone."""
    return "asyncio"


def of_a_dead_process() -> str:
    code = "from lmstrix.adapters.lmstudio.instances import new_identifier as n; print(n())"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_only_what_a_dead_process_of_this_machine_loaded_is_an_orphan() -> None:
    mine, dead = new_identifier(), of_a_dead_process()
    assert is_orphan(dead)
    assert not is_orphan(mine)
    prefix, here, pid, rest = dead.split("-")
    elsewhere = "0" * len(here)
    parent = os.getppid()
    for other in (
        f"{prefix}-{elsewhere}-{pid}-{rest}",
        f"{prefix}-{here}-{parent}-{rest}",
        f"{prefix}-{here}-0-{rest}",
        f"{prefix}-{here}-{'9' * 30}-{rest}",
        f"my-{dead}",
        f"{dead}-2",
        "lmstrix-of-the-user",
        "",
    ):
        assert not is_orphan(other)


ON_ANOTHER_MACHINE = """
import sys, uuid
from pathlib import Path
read, node = Path.read_text, uuid.getnode()
Path.read_text = lambda path, *a, **k: (
    "another" if path.name == "boot_id" else read(path, *a, **k))
uuid.getnode = lambda: node + 1
from lmstrix.adapters.lmstudio.instances import is_orphan
print(is_orphan(sys.argv[1]))
"""


def test_a_machine_of_the_same_name_is_another_one() -> None:
    """Its processes are not looked for here: their numbers mean nothing."""
    dead = of_a_dead_process()
    there = subprocess.run(
        [sys.executable, "-c", ON_ANOTHER_MACHINE, dead], capture_output=True, text=True, check=True
    )
    assert is_orphan(dead)
    assert there.stdout.strip() == "False"


async def test_one_that_will_not_go_does_not_hold_up_ours() -> None:
    unloaded: list[str] = []
    dead, mine = of_a_dead_process(), "lmstrix-mine"

    class Stuck:
        """A connection to a server that keeps what the dead process left."""

        async def call(
            self, namespace: str, name: str, parameter: Json | None = None, *, deadline_s: float
        ) -> object:
            del namespace, deadline_s
            if name == "listLoaded":
                return [{"identifier": one} for one in (dead, mine, "users-own")]
            assert parameter is not None
            unloaded.append(str(parameter["identifier"]))
            if parameter["identifier"] == dead:
                raise EngineTimeout("it is busy")
            return None

    assert await unload(cast("Connection", Stuck()), {mine}, 1.0) == {mine}
    assert unloaded == [mine, dead]


async def test_the_next_load_lets_go_of_it() -> None:
    simulated = SimulatedAdapter(SimulatedModel(key="m"))
    async with LMStudioServer(simulated, preload=[("m", "users-own", 4096)]) as server:
        command = [sys.executable, "-c", KILLED_WHILE_LOADED, server.host]
        with anyio.fail_after(60):
            done = await anyio.run_process(command, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        (orphan,) = server.left_behind
        adapter = LMStudioAdapter(host=server.host)
        async with adapter.load(await adapter.find_model("m"), 512):
            assert len(server.left_behind) == 1
            assert orphan not in server.left_behind
        assert server.left_behind == []
        assert server.user_instances_untouched
