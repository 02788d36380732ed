"""From what LM Studio says to the error tree. Pure: text in, an error out.

LM Studio gives loads no error codes, so the words of its messages decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lmstrix.errors import (
    ContextOverflow,
    EngineCrashed,
    EngineUnavailable,
    LMStrixError,
    LoadFailed,
    LoadRefused,
    ModelNotFound,
    OutOfMemory,
    PredictionError,
)

__all__ = ["START_HINT", "call_error", "load_error", "prediction_error"]

START_HINT = (
    "Start LM Studio and its server (lms server start), or name another one with --host HOST:PORT."
    " GGUF files need no LM Studio: --adapter llamacpp."
)

_WORDS = 500
_GUARDRAIL = re.compile(r"insufficient system resources|guardrail", re.IGNORECASE)
_MEMORY = re.compile(
    r"out of (?:device |host |video )?memory|insufficient memory|bad_alloc|unable to allocate"
    r"|cannot allocate|failed to allocate|OutOf(?:Device|Host)Memory|cudaMalloc failed",
    re.IGNORECASE,
)
_CRASHED = re.compile(r"has crashed|exit code", re.IGNORECASE)
_OVERFLOW = re.compile(
    r"trying to keep the first|context size has been exceeded|n_keep"
    r"|exceeds? the (?:available )?context",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"generic\.(?:noModelMatchingQuery|pathNotFound)|cannot find a model|model not found",
    re.IGNORECASE,
)
_GONE = re.compile(
    r"model unloaded|generic\.identifierNotFound|cannot find a loaded model|unexpectedly "
    r"disconnected|authentication|operation cancell?ed",
    re.IGNORECASE,
)

_Rule = tuple[re.Pattern[str], Callable[[str], LMStrixError]]


def _gone(words: str) -> LMStrixError:
    return EngineUnavailable(f"LM Studio: {words}", hint=START_HINT)


def _overflow(words: str) -> LMStrixError:
    return ContextOverflow(f"the prompt does not fit: {words}")


def _crash(words: str) -> LMStrixError:
    return EngineCrashed(
        f"the engine died while it worked: {words}",
        hint="Most often memory ran out as the context filled: try a smaller one.",
    )


_LOAD: tuple[_Rule, ...] = (
    (
        _GUARDRAIL,
        lambda words: LoadRefused(
            f"LM Studio's guardrail refused the load: {words}",
            hint="The guardrail can be changed in LM Studio's settings.",
        ),
    ),
    (_MEMORY, lambda words: OutOfMemory(f"the engine ran out of memory while loading: {words}")),
    (_NO_MODEL, lambda words: ModelNotFound(f"LM Studio: {words}")),
    (_GONE, _gone),
)
_PREDICTION: tuple[_Rule, ...] = (
    (_OVERFLOW, _overflow),
    (_GONE, _gone),
    (_CRASHED, _crash),
    (_MEMORY, _crash),
)


def _first(rules: tuple[_Rule, ...], text: str) -> LMStrixError | None:
    words = " ".join(text.split())[:_WORDS]
    return next((make(words) for pattern, make in rules if pattern.search(text)), None)


def load_error(text: str) -> LMStrixError:
    """Why a load gave no model. `text` is all that the server said of it."""
    words = " ".join(text.split())[:_WORDS] or "no reason given"
    return _first(_LOAD, text) or LoadFailed(f"LM Studio could not load the model: {words}")


def prediction_error(text: str) -> LMStrixError:
    """Why a prediction gave no reply."""
    words = " ".join(text.split())[:_WORDS] or "no reason given"
    return _first(_PREDICTION, text) or PredictionError(f"LM Studio gave no reply: {words}")


def call_error(text: str) -> LMStrixError:
    """Why a remote call failed."""
    words = " ".join(text.split())[:_WORDS] or "no reason given"
    if _CRASHED.search(text):
        return _crash(words)
    if _NO_MODEL.search(text) and not _GONE.search(text):
        return ModelNotFound(f"LM Studio: {words}")
    return EngineUnavailable(f"LM Studio refused a call: {words}")
