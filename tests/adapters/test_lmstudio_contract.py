"""The LM Studio adapter over a stand-in server: the contract of every adapter."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.adapters.lmstudio import LMStudioAdapter
from lmstrix.testing.contracts.adapter import AdapterContract
from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel


class _OverAServer(AdapterContract):
    """On asyncio only, as LM Studio's SDK is."""

    @pytest.fixture
    def anyio_backend(self) -> str:
        return "asyncio"

    @pytest.fixture
    def adapter(self, server: LMStudioServer) -> LMStudioAdapter:  # pyright: ignore[reportIncompatibleMethodOverride] - a fixture
        return LMStudioAdapter(server.host)


class TestSimulated(_OverAServer):
    @pytest.fixture
    async def server(self, anyio_backend: str) -> AsyncGenerator[LMStudioServer, None]:
        async with LMStudioServer(SimulatedAdapter(SimulatedModel(key="m"))) as server:
            yield server
        assert server.left_behind == []

    @pytest.fixture
    def model_name(self) -> str:
        return "m"


@pytest.mark.engine
class TestRealEngine(_OverAServer):
    """The demo model, in the embedded engine behind the server."""

    @pytest.fixture
    async def server(
        self, anyio_backend: str, demo_model: Path
    ) -> AsyncGenerator[LMStudioServer, None]:
        engine = LlamaCppAdapter([demo_model.parent], threads=1)
        async with LMStudioServer(engine) as server:
            yield server
        assert server.left_behind == []

    @pytest.fixture
    def model_name(self, demo_model: Path) -> str:
        return demo_model.stem
