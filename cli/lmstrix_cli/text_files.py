"""Text that a user names: a file, or what comes through a pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

from lmstrix.errors import ConfigurationError

__all__ = ["MAX_TEXT_BYTES", "read_stdin", "read_text"]

MAX_TEXT_BYTES = 64 * 1024 * 1024
"""Largest text of a prompt, in bytes: more than ten million tokens, which no model takes."""


def read_text(path: Path, most_bytes: int = MAX_TEXT_BYTES) -> str:
    """The text of a file or a named pipe.

    Raises `ConfigurationError` where it cannot be read, is larger, or is no text in UTF-8.
    """
    name = repr(str(path))
    try:
        with path.open("rb") as file:
            return _text(file, name, most_bytes)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigurationError(f"{name} cannot be read: {why}") from error


def read_stdin() -> str:
    """All that comes through stdin; raises `ConfigurationError` as `read_text` does."""
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - started without one
        raise ConfigurationError("there is no stdin to read", hint="Give PROMPT or --file.")
    try:
        return _text(sys.stdin.buffer, "what stands on stdin", MAX_TEXT_BYTES)
    except OSError as error:
        raise ConfigurationError(f"stdin cannot be read: {error.strerror or error}") from error


def _text(file: BinaryIO, name: str, most_bytes: int) -> str:
    data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ConfigurationError(f"{name} is larger than {most_bytes} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"{name} is not text in UTF-8", hint="Convert it to UTF-8 first."
        ) from error
    if "\0" in text:
        raise ConfigurationError(f"{name} holds NUL characters: it is no text")
    return text
