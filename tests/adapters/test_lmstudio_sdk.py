"""What is used of LM Studio's SDK, where the server is looked for, and that asyncio is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from lmstudio import AsyncClient, async_api

from lmstrix.adapters.lmstudio import LMStudioAdapter, discovery, sdk
from lmstrix.errors import ConfigurationError, EngineUnavailable
from lmstrix.models import ModelInfo
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.simulated import SimulatedAdapter

MODEL = ModelInfo(key="m")


def test_a_changed_sdk_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(async_api.AsyncChannel, "rx_stream")
    with pytest.raises(ConfigurationError, match=r"has no AsyncChannel\.rx_stream") as caught:
        sdk.check_sdk()
    assert "pip install" in caught.value.hint


SILENCE = """
import anyio, sys
from lmstudio import json_api
from lmstudio._logging import new_logger
from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.simulated import SimulatedAdapter

async def main():
    async with LMStudioServer(SimulatedAdapter()) as server:
        await LMStudioAdapter(server.host).list_models()
    for name in ("PredictionEndpoint", "AsyncRemoteCall", "_AsyncLMStudioWebsocket"):
        new_logger(name).warn("a frame with a secret")

anyio.run(main)
"""


def test_what_the_sdk_logs_does_not_reach_the_terminal() -> None:
    """Python prints warnings that nobody handles; those of the SDK quote prompts and replies."""
    done = subprocess.run(
        [sys.executable, "-c", SILENCE], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""


def test_under_trio_every_call_says_what_to_do() -> None:
    adapter = LMStudioAdapter("127.0.0.1:9")

    async def load() -> None:
        async with adapter.load(MODEL, 512):
            pass

    async def refused() -> None:
        for call in (
            adapter.list_models,
            adapter.status,
            load,
            lambda: adapter.find_model("m"),
            lambda: adapter.estimate_memory(MODEL, 512),
        ):
            with pytest.raises(ConfigurationError, match="asyncio") as caught:
                await call()
            assert 'adapter="llamacpp"' in caught.value.hint

    anyio.run(refused, backend="trio")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1:1234", "127.0.0.1:1234"),
        (" localhost:80/ ", "localhost:80"),
        ("http://studio.local:1234", "studio.local:1234"),
        ("[::1]:1234", "[::1]:1234"),
    ],
)
def test_hosts(text: str, host: str) -> None:
    assert discovery.parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["", "localhost", ":1", "a:0", "a:99999", "https://a:1", "a:1/b", "u@a:1", "a\n:1"]
)
def test_no_hosts(text: str) -> None:
    with pytest.raises(ConfigurationError):
        discovery.parse_host(text)


def test_the_environment_names_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMSTRIX_HOST", "nonsense")
    with pytest.raises(ConfigurationError, match="nonsense"):
        LMStudioAdapter()


@pytest.mark.parametrize(
    "settings", [{"stall_s": 0}, {"call_s": -1}, {"load_s": float("nan")}], ids=str
)
def test_deadlines_are_positive(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        LMStudioAdapter(**settings)  # pyright: ignore[reportArgumentType] - on purpose


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_token_that_the_sdk_does_not_take_is_told() -> None:
    async with LMStudioServer(SimulatedAdapter()) as server:
        with pytest.raises(ConfigurationError, match="token"):
            await LMStudioAdapter(server.host, api_token="secret").list_models()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_token_goes_where_the_sdk_takes_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class TakesToken(AsyncClient):
        def __init__(self, api_host: str, *, api_token: str = "") -> None:
            told.append(api_token)
            super().__init__(api_host)

    monkeypatch.setattr("lmstudio.AsyncClient", TakesToken)
    monkeypatch.setenv(sdk.TOKEN_VARIABLE, "from outside")
    async with LMStudioServer(SimulatedAdapter()) as server:
        await LMStudioAdapter(server.host, api_token="secret").list_models()
        await LMStudioAdapter(server.host).list_models()
    assert told == ["secret", "from outside"]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home of LM Studio, found by its pointer; no default ports."""
    studio = tmp_path / "studio"
    (studio / ".internal").mkdir(parents=True)
    (tmp_path / ".lmstudio-home-pointer").write_text(str(studio))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(discovery, "DEFAULT_PORTS", ())
    return studio


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_port_in_lm_studios_home_is_found(home: Path, anyio_backend: str) -> None:
    async with LMStudioServer(SimulatedAdapter()) as server:
        port = int(server.host.rpartition(":")[2])
        (home / ".internal" / "http-server.json").write_text(json.dumps({"port": port}))
        assert await discovery.find_server(None, 2.0) == server.host
        assert (await LMStudioAdapter().status()).available


@pytest.mark.parametrize("text", ["", "[]", '{"port": "x"}', '{"port": 70000}', "[" * 9000])
async def test_a_broken_port_file_is_no_trouble(home: Path, text: str) -> None:
    (home / ".internal" / "http-server.json").write_text(text)
    with pytest.raises(EngineUnavailable) as caught:
        await discovery.find_server(None, 1.0)
    assert "--host" in caught.value.hint
