"""``python -m lmstrix.testing.lmstudio`` as a process of its own."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import httpx
import pytest
from anyio.streams.text import TextReceiveStream

COMMAND = [sys.executable, "-m", "lmstrix.testing.lmstudio"]
pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])  # the process has its own
signals = pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is for all processes there")


@asynccontextmanager
async def running(*arguments: str) -> AsyncGenerator[tuple[anyio.abc.Process, list[str]], None]:
    """The process and the first two lines it prints."""
    with anyio.fail_after(50):
        async with await anyio.open_process([*COMMAND, *arguments], stderr=None) as process:
            try:
                assert process.stdout is not None
                text = ""
                async for piece in TextReceiveStream(process.stdout):
                    text += piece
                    if text.count("\n") == 2:
                        break
                yield process, text.splitlines()
            finally:
                if process.returncode is None:
                    process.kill()


@signals
async def test_it_serves_until_it_is_interrupted() -> None:
    async with running("--port", "0") as (process, lines):
        host = lines[0].rpartition(" ")[2]
        assert lines[1] == "model simulated"
        async with httpx.AsyncClient() as http:
            greeting = await http.get(f"http://{host}/lmstudio-greeting")
        assert greeting.json() == {"lmstudio": True}
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def trouble(*arguments: str) -> str:
    with anyio.fail_after(50):
        ended = await anyio.run_process([*COMMAND, *arguments], check=False)
    assert ended.returncode == 1
    return ended.stderr.decode()


async def test_what_cannot_be_served_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"Port {port} is taken" in await trouble("--port", port)
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")
    said = await trouble("--gguf", str(broken))
    assert said.startswith("Error: ")
    assert "Traceback" not in said


@pytest.mark.engine
@signals
async def test_it_serves_a_file_under_a_name_that_is_no_path(demo_model: Path) -> None:
    async with running("--port", "0", "--gguf", str(demo_model)) as (process, lines):
        assert lines[1] == f"model {demo_model.stem.lower()}"
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
