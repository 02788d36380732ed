"""Measurements know nothing of the event loop: one is enough, except for what says `BOTH_LOOPS`."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
