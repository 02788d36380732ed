"""A store's contents as one JSON document, and back. Pure, but for reading a file.

The document comes from a file that anybody may have written: it is checked as a whole before
any of it is used.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import attrs

from lmstrix.converter import FormatError, from_json, to_json
from lmstrix.errors import StoreError
from lmstrix.models import SCHEMA_VERSION
from lmstrix.stores.archive import ImportedResult, KeptMeasurement, StoreContents

__all__ = [
    "EXPORT_FORMAT",
    "EXPORT_VERSION",
    "LARGEST_LENGTH",
    "as_object",
    "check_id",
    "check_length",
    "dump_contents",
    "load_contents",
    "read_document",
]

EXPORT_FORMAT = "lmstrix-store"
EXPORT_VERSION = 1
"""Version of the document. Raised when a key changes its meaning."""
MAX_DOCUMENT_BYTES = 1 << 30
"""Largest file that is read: several times a store of 5,000 models and 100,000 trials."""
LARGEST_LENGTH = 2**63 - 1
"""Largest context length that every store can keep, in tokens."""

_ID = re.compile(r"[0-9a-f]{32}")
"""What our stores make, and nothing that could be taken for anything else."""
_HINT = "Give a file that `lmstrix export` has written."


@attrs.frozen(kw_only=True)
class _Head:
    format: str
    schema_version: int


@attrs.frozen(kw_only=True)
class _Document:
    format: str
    schema_version: int
    measurements: tuple[KeptMeasurement, ...]
    imported: tuple[ImportedResult, ...]


def dump_contents(contents: StoreContents) -> str:
    """The contents as JSON. Raises `StoreError` for what JSON cannot hold."""
    document = _Document(
        format=EXPORT_FORMAT,
        schema_version=EXPORT_VERSION,
        measurements=contents.measurements,
        imported=contents.imported,
    )
    try:
        return to_json(document)
    except FormatError as error:
        raise StoreError(f"The store cannot be written as JSON: {error}") from error


def load_contents(text: str) -> StoreContents:
    """What `dump_contents` wrote; raises `StoreError` for anything else, and for a newer version.

    Nothing is half taken: one wrong value and the whole document is refused.
    """
    try:
        _check_head(from_json(text, _Head))
        document = from_json(text, _Document)
        _check(document.measurements)
    except FormatError as error:
        raise StoreError(f"This is no export of a store: {_short(error)}", hint=_HINT) from error
    return StoreContents(measurements=document.measurements, imported=document.imported)


def _check_head(head: _Head) -> None:
    """First of all, because a newer document may have another shape in every other place."""
    if head.format != EXPORT_FORMAT:
        raise FormatError(f"its format is {head.format[:40]!r}")
    if head.schema_version > EXPORT_VERSION:
        raise StoreError(
            f"The export is of a newer version ({head.schema_version}).",
            hint="Update LMStrix to read it.",
        )


def _check(measurements: Iterable[KeptMeasurement]) -> None:
    """What the types do not say; raises `FormatError`, `StoreError` for a newer report."""
    seen = set[str]()
    for kept in measurements:
        check_id(kept.id)
        if kept.id in seen:
            raise FormatError("two measurements have the same id")
        check_length(kept.trying)
        if kept.report is not None and kept.report.schema_version > SCHEMA_VERSION:
            raise StoreError(
                f"A report in the export is of a newer version ({kept.report.schema_version}).",
                hint="Update LMStrix to read it.",
            )
        seen.add(kept.id)


def check_id(text: str) -> str:
    """An id as our stores make them; raises `FormatError` for any other text."""
    if not _ID.fullmatch(text):
        raise FormatError("a measurement has an id that no store gives")
    return text


def check_length(length: int | None) -> int | None:
    """A context length, or None; raises `FormatError` for an impossible one."""
    if length is not None and not 0 < length <= LARGEST_LENGTH:
        raise FormatError("a measurement was trying an impossible context length")
    return length


def _short(error: FormatError) -> str:
    """The first of what may be a thousand complaints."""
    return str(error).split("; ")[0][:300] + "."


def read_document(path: Path, what: str) -> str:
    """The text of a file that the user named; `what` says what was wanted.

    Raises `StoreError` where it is no file, too large, not UTF-8 or cannot be read.
    """
    try:
        # Looked at before it is opened: opening a pipe waits for its other end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise StoreError(f"{path} is not a file.", hint=f"Give {what}.")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_DOCUMENT_BYTES:
                raise StoreError(f"{path} is too large.", hint=f"Give {what}.")
            return file.read(MAX_DOCUMENT_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(f"{path} is not text in UTF-8.", hint=f"Give {what}.") from error
    except (OSError, ValueError) as error:
        if isinstance(error, StoreError):
            raise
        why = (error.strerror if isinstance(error, OSError) else None) or error
        raise StoreError(f"{path} cannot be read: {why}.", hint=f"Give {what}.") from error


def as_object(value: object) -> dict[str, Any]:
    """A JSON object, or an empty one for anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
