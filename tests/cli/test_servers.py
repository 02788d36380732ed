"""The options for one adapter only, and measurements through the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
import attrs
import pytest

from lmstrix.testing.http_server import HttpServer
from lmstrix.testing.ollama import OllamaServer
from lmstrix.testing.openai import OpenAIScript, OpenAIServer
from lmstrix.testing.simulated import Beyond, SimulatedAdapter, SimulatedModel

MODEL = SimulatedModel(key="m:latest", declared=2048, true_context=1400, beyond=Beyond.FORGETS_ALL)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@attrs.frozen
class Result:
    """What a command printed, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str


async def run(server: HttpServer | None, adapter: str, *arguments: str) -> Result:
    """In a process of its own, which a server in this one can answer."""
    host = ("--host", server.host) if server else ()
    command = [sys.executable, "-m", "lmstrix_cli", "--adapter", adapter, *host]
    done = await anyio.run_process([*command, "--store", "memory", *arguments], check=False)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


async def test_a_model_in_ollama() -> None:
    async with OllamaServer(SimulatedAdapter(MODEL)) as server:
        result = await run(server, "ollama", "test", "m", "--json")
        report = json.loads(result.stdout)
        assert (result.exit_code, report["cause"]) == (0, "forgets")
        assert report["bracket"] == [1280, 1536]
        assert server.left_behind == []
        assert "m:latest" in (await run(server, "ollama", "scan")).stdout
        assert (await run(server, "ollama", "infer", "m", "Hello")).exit_code == 0


async def test_the_users_model_in_ollama() -> None:
    async with OllamaServer(SimulatedAdapter(MODEL), preload=[("m:latest", 1024)]) as server:
        result = await run(server, "ollama", "test", "m")
        assert result.exit_code == 4
        assert "ollama stop" in result.stderr
        assert (server.loaded, server.loads) == ({"m:latest": 1024}, 0)
        assert (await run(server, "ollama", "test", "m", "--force")).exit_code == 0
        assert server.loaded == {"m:latest": 1024}


async def test_a_declared_context_for_a_server_that_tells_none() -> None:
    script = OpenAIScript(declares=False)
    async with OpenAIServer(SimulatedAdapter(MODEL), script=script) as server:
        result = await run(server, "openai", "--declared", "2048", "test", "m:latest", "--json")
        report = json.loads(result.stdout)
        assert (report["declared_context"], report["bracket"]) == (2048, [1280, 1536])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("ollama", "--declared", "5"), "--declared is for --adapter openai"),
        (("lmstudio", "--yes"), "--yes is for --adapter openai"),
        (("openai", "--binary", "x"), "--binary is for --adapter llama-server"),
        (("llama-server", "--server-args", "-ngl 9"), "--binary"),
        (("llama-server", "--binary", "/no/such"), "not a program"),
    ],
)
async def test_options_for_another_adapter(options: tuple[str, ...], words: str) -> None:
    result = await run(None, *options, "scan")
    assert result.exit_code == 2
    assert words in result.stderr


async def test_the_key_is_in_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTRIX_API_KEY", "sk-secret")
    log = tmp_path / "log"
    async with OpenAIServer(
        SimulatedAdapter(MODEL), script=OpenAIScript(repeats_key=True)
    ) as server:
        result = await run(
            server, "openai", "--verbose", "--log-file", str(log), "test", "m:latest", "--json"
        )
    assert result.exit_code == 3
    assert "secret" not in result.stdout + result.stderr + log.read_text(encoding="utf-8")


async def test_servers_of_this_machine_are_found(free_tcp_port: int) -> None:
    """On their own ports; a server on another port is looked at if it is named."""
    async with OllamaServer(SimulatedAdapter(MODEL)) as server:
        checks = json.loads((await run(server, "ollama", "doctor", "--json")).stdout)["checks"]
        found = {check["check"]: check for check in checks}
        assert found["other servers"]["verdict"] == "ok"
        assert server.host in found["other servers"]["found"]
        assert found["LM Studio's server"]["verdict"] == "ok"
    away = await run(None, "ollama", "--host", f"127.0.0.1:{free_tcp_port}", "doctor")
    assert "ollama serve" in away.stdout
