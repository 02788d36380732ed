"""Loads that cannot succeed, settings that cannot work, and the adapter's status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.errors import (
    ConfigurationError,
    EngineUnavailable,
    InvalidModel,
    LMStrixError,
    ModelNotFound,
    OutOfMemory,
    UnsupportedModel,
)
from lmstrix.models import ModelInfo

pytestmark = pytest.mark.engine


async def load_error(adapter: LlamaCppAdapter, model: ModelInfo, context: int) -> LMStrixError:
    with pytest.raises(LMStrixError) as caught:
        async with adapter.load(model, context):
            pass
    return caught.value


async def test_too_little_memory_is_told(long_model: Path) -> None:
    adapter = LlamaCppAdapter([], threads=1, memory_limit_bytes=1_500_000_000)
    model = await adapter.find_model(str(long_model))
    assert model.declared_context == 131072
    error = await load_error(adapter, model, 131072)
    assert type(error) is OutOfMemory
    assert "allocate" in str(error)


async def test_an_impossible_context_is_a_clean_error(long_model: Path) -> None:
    adapter = LlamaCppAdapter([], threads=1, memory_limit_bytes=1_500_000_000)
    model = await adapter.find_model(str(long_model))
    assert isinstance(await load_error(adapter, model, 2**40), LMStrixError)
    assert type(await load_error(adapter, model, 0)) is ConfigurationError


async def test_a_file_that_changed_is_noticed(
    tmp_path: Path, llamacpp: LlamaCppAdapter, make_gguf: Callable[..., bytes]
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(make_gguf({"general.architecture": "llama"}))
    model = await llamacpp.find_model(str(path))
    path.write_bytes(path.read_bytes()[:-9])
    assert type(await load_error(llamacpp, model, 512)) is InvalidModel
    path.write_bytes(make_gguf({"general.architecture": "bert"}))
    assert type(await load_error(llamacpp, model, 512)) is UnsupportedModel
    path.unlink()
    assert type(await load_error(llamacpp, model, 512)) is ModelNotFound


@pytest.mark.parametrize("architecture", ["llama", "never-heard-of"])
async def test_what_the_engine_cannot_load_is_told(
    tmp_path: Path, llamacpp: LlamaCppAdapter, make_gguf: Callable[..., bytes], architecture: str
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(make_gguf({"general.architecture": architecture}))
    error = await load_error(llamacpp, await llamacpp.find_model(str(path)), 512)
    assert isinstance(error, UnsupportedModel if architecture == "never-heard-of" else LMStrixError)
    assert not isinstance(error, EngineUnavailable)
    assert (await llamacpp.status()).loaded == ()


@pytest.mark.parametrize(
    "settings",
    [{"threads": 0}, {"stall_timeout_s": 0.0}, {"stall_timeout_s": float("nan")}],
    ids=str,
)
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        LlamaCppAdapter([], **settings)  # pyright: ignore[reportArgumentType] - on purpose


async def test_the_status_tells_the_version_and_the_folders(tmp_path: Path) -> None:
    status = await LlamaCppAdapter([tmp_path]).status()
    assert status.available
    assert status.versions.keys() == {"xllamacpp"}
    assert status.model_folders == (str(tmp_path),)
