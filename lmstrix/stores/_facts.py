"""A fact as the one line of JSON that a store keeps."""

from __future__ import annotations

from lmstrix.converter import FormatError, to_json
from lmstrix.errors import StoreError

__all__ = ["encode"]


def encode(fact: object) -> str:
    """The JSON of a fact; raises `StoreError` for one that JSON cannot hold."""
    try:
        return to_json(fact)
    except FormatError as error:
        raise StoreError(f"{type(fact).__name__} cannot be stored: {error}") from error
