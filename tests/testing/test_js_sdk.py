"""The stand-in server, driven by LM Studio's own JavaScript SDK: a second, independent reader.

Runs where Node.js and npm are; elsewhere it is skipped, and says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from lmstrix.testing.lmstudio import LMStudioServer, Script
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

HERE = Path(__file__).parent / "js"
NPM = shutil.which("npm")
NODE = shutil.which("node")

pytestmark = [
    pytest.mark.skipif(NPM is None or NODE is None, reason="needs Node.js and npm for the SDK"),
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # of the server; the SDK's is Node.js
]


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script beside the SDK, which npm's registry gives."""
    folder = tmp_path_factory.mktemp("js")
    for name in ("drive.mjs", "package.json"):
        shutil.copy(HERE / name, folder)
    command = [str(NPM), "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run(command, cwd=folder, check=True, timeout=120, capture_output=True)
    return folder / "drive.mjs"


async def test_the_javascript_sdk_is_satisfied(driver: Path) -> None:
    model = SimulatedModel(key="m", true_context=4096)
    script = Script(fragment_s=0.2, prefill_s=0.1)
    async with LMStudioServer(SimulatedAdapter(model), script=script) as server:
        seen = await drive(driver, server.host)
        assert server.counters.warnings == []
        assert server.counters.cancels == 1
        assert server.left_behind == []
        (load,) = (record for record in server.loads if record.key == "m")
        assert load.fields["llm.load.contextLength"] == 1024
    assert seen["listed"] == ["m"]
    assert seen["progress"][-1] == 1
    assert seen["loaded"] == ["from-javascript"]
    assert seen["contextLength"] == 1024
    assert seen["tokens"] == seen["counted"] == 3
    assert len(seen["fragments"]) >= 2
    assert "".join(seen["fragments"]) == seen["content"]
    assert seen["stats"]["promptTokensCount"] > 3
    assert seen["stats"]["stopReason"] == "eosFound"
    assert seen["prefill"] == sorted(seen["prefill"])
    assert seen["prefill"][-1] == 1
    assert seen["chat"]["content"]
    assert seen["cancelled"] == "userStopped"
    assert seen["left"] == []
    assert "no-such-model" in seen["unknown"]


async def drive(driver: Path, host: str) -> dict[str, Any]:
    command = [str(NODE), driver.name, f"ws://{host}", "m"]
    with anyio.fail_after(60):
        done = await anyio.run_process(command, cwd=driver.parent, check=False)
    assert done.stderr == b""
    assert done.returncode == 0
    return json.loads(done.stdout)
