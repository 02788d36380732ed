"""A loaded model that forgets nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from lmstrix.ports import LoadedModel
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel

HUGE = 10**6


@pytest.fixture
def anyio_backend() -> str:
    """Validators and their documents do not know of the event loop."""
    return "asyncio"


@pytest.fixture
async def loaded() -> AsyncGenerator[LoadedModel, None]:
    adapter = SimulatedAdapter(SimulatedModel(declared=HUGE, true_context=HUGE))
    async with adapter.load(await adapter.find_model("simulated"), HUGE) as loaded:
        yield loaded
