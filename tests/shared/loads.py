"""Loads of a model, for the tests of adapters."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

import pytest

from lmstrix.errors import LMStrixError
from lmstrix.models import LoadProgress, ModelInfo

E = TypeVar("E", bound=LMStrixError)
L_co = TypeVar("L_co", covariant=True)
OnProgress = Callable[[LoadProgress], None] | None


class Loads(Protocol[L_co]):
    """The part of an adapter that finds and loads; its loaded models are `L_co`."""

    async def find_model(self, name: str) -> ModelInfo: ...
    def load(
        self, model: ModelInfo, context_length: int, *, on_progress: OnProgress = None
    ) -> AbstractAsyncContextManager[L_co]: ...


@asynccontextmanager
async def loading(
    adapter: Loads[L_co], name: str = "m", context: int = 8192, *, on_progress: OnProgress = None
) -> AsyncGenerator[L_co]:
    """The model of that name, loaded with so many tokens of context."""
    model = await adapter.find_model(name)
    async with adapter.load(model, context, on_progress=on_progress) as loaded:
        yield loaded


async def load_error(
    adapter: Loads[object],
    kind: type[E] = LMStrixError,
    name: str | ModelInfo = "m",
    context: int = 8192,
    match: str | None = None,
) -> E:
    """What a load raises, which has to be of that kind."""
    model = await adapter.find_model(name) if isinstance(name, str) else name
    with pytest.raises(kind, match=match) as caught:
        async with adapter.load(model, context):
            raise AssertionError
    return caught.value
