from __future__ import annotations

import signal

import pytest

from lmstrix.adapters.llamacpp.failures import crash, exit_status, load_failure, server_error
from lmstrix.errors import (
    ContextOverflow,
    EngineUnavailable,
    InvalidModel,
    LoadFailed,
    OutOfMemory,
    PredictionError,
    UnsupportedModel,
)

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


def test_a_missing_engine_has_a_hint() -> None:
    error = load_failure({"error": "ModuleNotFoundError: xllamacpp", "kind": "engine"}, 3, [])
    assert type(error) is EngineUnavailable
    assert "lmstrix[llamacpp]" in error.hint


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="the system has no such signal")
def test_signals_are_named() -> None:
    assert type(load_failure(None, -signal.SIGKILL, [])) is OutOfMemory
    failed = load_failure(None, -signal.SIGSEGV, [])
    assert type(failed) is LoadFailed
    assert "SIGSEGV" in str(failed)
    assert "SIGABRT" in str(crash(-signal.SIGABRT, ["ggml.c:1: GGML_ASSERT(x) failed"]))
    assert exit_status(-1000) == "killed by signal 1000"


def test_a_crash_tells_the_last_trouble() -> None:
    error = crash(3, [f"{STAMP}E first", f"{STAMP}E second", f"{STAMP}I calm"])
    assert str(error) == "the engine died while it worked (exit status 3): second"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"type": "exceed_context_size_error", "message": "m"}}, ContextOverflow),
        (500, {"error": {"message": "Context size has been exceeded."}}, ContextOverflow),
        (500, {"error": {"message": "Compute error."}}, PredictionError),
        (400, {"error": {"message": "bad template"}}, PredictionError),
        (401, {"error": {"message": "Invalid API Key"}}, EngineUnavailable),
        (503, {"error": {"message": "Loading model"}}, EngineUnavailable),
        (200, None, EngineUnavailable),
        (502, ["x"], EngineUnavailable),
    ],
)
def test_server_errors(status: int, body: object, kind: type[Exception]) -> None:
    assert type(server_error(status, body)) is kind
