"""Answers to a load that say nothing about the model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from lmstrix.adapters.lmstudio import instances
from lmstrix.adapters.lmstudio.sdk import Deadlines
from lmstrix.errors import EngineUnavailable, LoadError, UnsupportedModel
from lmstrix.models import ModelInfo

MODEL = ModelInfo(key="m")


class Silent:
    """A connection whose channels end at once, and whose instances are on another device."""

    @asynccontextmanager
    async def channel(self, *_: object, **__: object) -> AsyncGenerator[Silent]:
        yield self

    async def next(self, deadline_s: float) -> None:
        assert deadline_s > 0

    async def call(self, *_: object, **__: object) -> object:
        return {"deviceIdentifier": "elsewhere", "contextLength": 512}


async def test_a_load_that_ends_without_a_result_is_no_limit() -> None:
    with pytest.raises(EngineUnavailable, match="without a result") as caught:
        await instances.load_instance(
            cast("Any", Silent()), MODEL, "x", 512, deadlines=Deadlines(), on_progress=None
        )
    assert not isinstance(caught.value, LoadError)


async def test_an_instance_on_another_device_is_no_limit() -> None:
    with pytest.raises(UnsupportedModel, match="another device") as caught:
        await instances.effective_context(
            cast("Any", Silent()), MODEL, "x", deadlines=Deadlines(), note=lambda _: None
        )
    assert caught.value.hint
