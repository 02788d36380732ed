"""Reads JSON from servers and files without trust: any member may be missing or of any type."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, cast

Json = Mapping[str, object]

MAX_COUNT = 2**50
"""Larger counts of bytes or tokens are nonsense."""
MAX_CONTEXT = 2**28
"""A larger context, in tokens, is nonsense too."""
MAX_RATE = 1e6
"""No engine generates as many tokens per second."""
MAX_TEXT = 2000
"""Longer names and messages are cut; document texts never come from a server."""


def parse_object(data: str | bytes) -> Json | None:
    """The JSON object that `data` holds, or None if it holds anything else."""
    try:
        value: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return cast("Json", value) if isinstance(value, dict) else None


def refuse_constant(name: str) -> NoReturn:
    """For `json.loads`: ``NaN`` and infinity are a `ValueError`, as JSON does not have them."""
    raise ValueError(f"{name} is not JSON")


def read_object(path: Path, most_bytes: int) -> Json:
    """The JSON object in the first `most_bytes` of a file; empty if there is none to read."""
    try:
        with path.open("rb") as file:
            return parse_object(file.read(most_bytes)) or {}
    except (OSError, ValueError):  # a NUL in the path is a ValueError
        return {}


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
    """A whole number from 0 to `MAX_COUNT`, even if written as a float; else None."""
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
