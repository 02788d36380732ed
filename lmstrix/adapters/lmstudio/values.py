"""What a server's JSON says, read without trust: any member may be missing or of any type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

__all__ = [
    "MAX_RATE",
    "Json",
    "as_context",
    "as_count",
    "as_list",
    "as_object",
    "as_seconds",
    "as_text",
]

Json = Mapping[str, object]

MAX_COUNT = 2**50
"""Larger counts of bytes or tokens are taken as nonsense."""
MAX_CONTEXT = 2**28
"""A larger context, in tokens, is nonsense too."""
MAX_RATE = 1e6
"""No engine writes as many tokens per second."""
MAX_TEXT = 2000
"""Longer names and messages are cut; document texts never come from the server."""


def as_object(value: object) -> Json:
    """`value` if it is an object, else an empty one."""
    return cast("Json", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[object]:
    """`value` if it is an array, else an empty one."""
    return cast("list[object]", value) if isinstance(value, list) else []


def as_text(value: object) -> str:
    """`value` if it is a string, cut to `MAX_TEXT`, else an empty one."""
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def as_count(value: object) -> int | None:
    """A whole number from 0 to `MAX_COUNT`, also where it was written as a float; else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and not (math.isfinite(value) and value.is_integer()):
        return None
    return int(value) if 0 <= value <= MAX_COUNT else None


def as_context(value: object) -> int | None:
    """A context length in tokens, from 1 to `MAX_CONTEXT`; else None."""
    count = as_count(value)
    return count if count and count <= MAX_CONTEXT else None


def as_seconds(value: object) -> float | None:
    """A finite number that is not negative, or None; also for rates."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MAX_COUNT else None
