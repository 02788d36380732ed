"""Pytest fixtures: a stand-in LM Studio for the tests of whoever talks to one.

Async fixtures of anyio's own plugin: they run on whatever event loop the test runs on.
Override `lmstudio_adapter`, `lmstudio_script` or `lmstudio_preload` to change the server.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from lmstrix.ports import Adapter
from lmstrix.testing.lmstudio import LMStudioServer, Script
from lmstrix.testing.simulated import SimulatedAdapter


@pytest.fixture
def lmstudio_adapter() -> Adapter:
    """The models behind the server: one simulated model with the key ``simulated``."""
    return SimulatedAdapter()


@pytest.fixture
def lmstudio_script() -> Script:
    """How the server misbehaves: not at all."""
    return Script()


@pytest.fixture
def lmstudio_preload() -> Sequence[tuple[str, str, int]]:
    """The user's own instances, as (key, identifier, context length): none."""
    return ()


@pytest.fixture
async def lmstudio_server(
    anyio_backend: object,
    lmstudio_adapter: Adapter,
    lmstudio_script: Script,
    lmstudio_preload: Sequence[tuple[str, str, int]],
) -> AsyncGenerator[LMStudioServer, None]:
    """A running `LMStudioServer` on a free port of the loopback."""
    del anyio_backend  # requested, so that anyio's plugin runs this fixture
    server = LMStudioServer(lmstudio_adapter, script=lmstudio_script, preload=lmstudio_preload)
    async with server:
        yield server
