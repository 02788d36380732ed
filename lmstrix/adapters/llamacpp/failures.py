"""From the engine's last words to the error tree. Pure: text and numbers in, an error out."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence

from lmstrix.errors import (
    ContextOverflow,
    EngineCrashed,
    EngineUnavailable,
    InvalidModel,
    LMStrixError,
    LoadFailed,
    OutOfMemory,
    PredictionError,
    UnsupportedModel,
)
from lmstrix.json_values import as_count, as_object, as_text

__all__ = ["INSTALL_HINT", "crash", "exit_status", "load_failure", "server_error"]

INSTALL_HINT = 'Install the embedded engine: pip install "lmstrix[llamacpp]".'

_STAMP = re.compile(r"^[\d.]+ (?P<level>[DIWE]) ")
_TROUBLE = re.compile(r"GGML_ASSERT|GGML_ABORT|terminate called|fatal|out of memory", re.IGNORECASE)
_MEMORY = re.compile(
    r"out of memory|insufficient memory|bad_alloc|cannot allocate memory|unable to allocate"
    r"|failed to allocate|MemoryError|ErrorOutOf(Device|Host)Memory|cudaMalloc failed",
    re.IGNORECASE,
)
_BROKEN = re.compile(
    r"not within the file bounds|is corrupted or incomplete|failed to read (magic|key-value|tensor)"
    r"|invalid magic|missing tensor|wrong shape",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(r"unknown (model )?architecture|unsupported model|unknown pre-tokenizer type")


def exit_status(returncode: int | None) -> str:
    """How a process ended, in words: ``killed by SIGKILL`` or ``exit status 3``."""
    if returncode is None:
        return "no exit status"
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def load_failure(
    answer: Mapping[str, object] | None, returncode: int | None, log: Sequence[str]
) -> LMStrixError:
    """Why a load gave no model. `answer` is what the child process said of it, or None."""
    said = str((answer or {}).get("error", ""))
    kind = (answer or {}).get("kind", "")
    if kind == "engine":
        return EngineUnavailable(f"llama.cpp cannot be used: {said}", hint=INSTALL_HINT)
    trouble = _troubles(log)
    words = trouble[0] if trouble else said or exit_status(returncode)
    everything = "\n".join([*trouble, said])
    if kind == "memory" or _MEMORY.search(everything):
        return OutOfMemory(f"the engine ran out of memory while loading: {words}")
    if _UNKNOWN.search(everything):
        return UnsupportedModel(
            f"this version of the engine does not know the model: {words}",
            hint="Try a newer engine: pip install --upgrade xllamacpp.",
        )
    if _BROKEN.search(everything):
        return InvalidModel(f"the engine cannot read the model: {words}")
    if returncode == -getattr(signal, "SIGKILL", 9):
        return OutOfMemory(
            "the engine was killed by SIGKILL while loading, as the system does when memory ends"
        )
    return LoadFailed(f"the engine could not load the model ({exit_status(returncode)}): {words}")


def crash(returncode: int, log: Sequence[str]) -> EngineCrashed:
    """The engine died after it had loaded."""
    trouble = _troubles(log)
    words = f": {trouble[-1]}" if trouble else ""
    return EngineCrashed(
        f"the engine died while it worked ({exit_status(returncode)}){words}",
        hint="Most often memory ran out as the context filled: try a smaller one.",
    )


def server_error(status: int, body: object) -> LMStrixError:
    """What an error answer of the engine's server means. `body` is its JSON, or None."""
    told = as_object(as_object(body).get("error"))
    message = as_text(told.get("message"))[:500] or "no message"
    if told.get("type") == "exceed_context_size_error":
        return ContextOverflow(
            f"the prompt does not fit: {message}",
            prompt_tokens=as_count(told.get("n_prompt_tokens")),
            context_length=as_count(told.get("n_ctx")),
        )
    if "context size has been exceeded" in message.lower():
        return ContextOverflow(f"the prompt does not fit: {message}")
    if status in (401, 403, 404, 503) or not told:
        return EngineUnavailable(f"the engine's server answered {status}: {message}")
    return PredictionError(f"the engine's server answered {status}: {message}")


def _troubles(log: Sequence[str]) -> list[str]:
    """The log lines that tell of trouble, without their time stamps."""
    found: list[str] = []
    for line in log:
        stamp = _STAMP.match(line)
        if (stamp is not None and stamp["level"] == "E") or _TROUBLE.search(line):
            found.append(" ".join(_STAMP.sub("", line).split()))
    return found
