"""Failed loads and their causes, settings that cannot work, and the adapter's status."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from lmstrix.adapters.llamacpp import LlamaCppAdapter
from lmstrix.adapters.llamacpp.engine import crash, exit_status, load_failure
from lmstrix.errors import (
    ConfigurationError,
    EngineUnavailable,
    InvalidModel,
    LMStrixError,
    LoadFailed,
    ModelNotFound,
    OutOfMemory,
    UnsupportedModel,
)
from lmstrix.models import ModelInfo


async def load_error(adapter: LlamaCppAdapter, model: ModelInfo, context: int) -> LMStrixError:
    with pytest.raises(LMStrixError) as caught:
        async with adapter.load(model, context):
            pass
    return caught.value


@pytest.mark.engine
async def test_too_little_memory_is_told(long_model: Path) -> None:
    adapter = LlamaCppAdapter([], threads=1, memory_limit_bytes=1_500_000_000)
    model = await adapter.find_model(str(long_model))
    assert model.declared_context == 131072
    error = await load_error(adapter, model, 131072)
    assert type(error) is OutOfMemory
    assert "allocate" in str(error)


@pytest.mark.engine
async def test_an_impossible_context_is_a_clean_error(long_model: Path) -> None:
    adapter = LlamaCppAdapter([], threads=1, memory_limit_bytes=1_500_000_000)
    model = await adapter.find_model(str(long_model))
    assert isinstance(await load_error(adapter, model, 2**40), LMStrixError)
    assert type(await load_error(adapter, model, 0)) is ConfigurationError


@pytest.mark.engine
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
@pytest.mark.engine
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


STAMP = "0.00.243.008 "
SAID = {"error": "RuntimeError: Failed to init server", "kind": "load"}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("E ggml_aligned_malloc: insufficient memory (attempted to allocate 9 MB)", OutOfMemory),
        (
            "E llama_model_load: error loading model: mmap failed: Cannot allocate memory",
            OutOfMemory,
        ),
        ("E load: tensor 'x' data is not within the file bounds, model is corrupted", InvalidModel),
        ("E gguf_init_from_reader: failed to read key-value pairs", InvalidModel),
        ("E error loading model: unknown model architecture: 'new'", UnsupportedModel),
        ("E common_init_: something else", LoadFailed),
        ("I only information", LoadFailed),
    ],
)
def test_the_log_tells_why_a_load_failed(line: str, kind: type[Exception]) -> None:
    error = load_failure(SAID, 3, [f"{STAMP}I loading", STAMP + line])
    assert type(error) is kind
    said = line[2:] if line.startswith("E") else "Failed to init server"
    assert said in str(error)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no such signal")
def test_signals_are_named() -> None:
    assert type(load_failure(None, -signal.SIGKILL, [])) is OutOfMemory
    failed = load_failure(None, -signal.SIGSEGV, [])
    assert type(failed) is LoadFailed
    assert "SIGSEGV" in str(failed)
    assert "SIGABRT" in str(crash(-signal.SIGABRT, ["ggml.c:1: GGML_ASSERT(x) failed"]))
    assert exit_status(-1000) == "killed by signal 1000"
