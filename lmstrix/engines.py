"""Frozen facts that engines tell of themselves: memory, progress, what is loaded.

Units are in the names, as in `lmstrix.models`.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

__all__ = ["LoadProgress", "LoadedInstance", "MemoryEstimate", "PrefillProgress", "Status"]


@attrs.frozen(kw_only=True)
class MemoryEstimate:
    """What a load at `context_length` is expected to need, in bytes."""

    context_length: int
    model_bytes: int
    context_bytes: int
    available_bytes: int | None = None
    """What the machine has to give now; None where that is unknown."""

    @property
    def total_bytes(self) -> int:
        """Weights and context together."""
        return self.model_bytes + self.context_bytes

    @property
    def fits(self) -> bool | None:
        """Whether the machine has that much now; None where that is unknown."""
        return None if self.available_bytes is None else self.total_bytes <= self.available_bytes


@attrs.frozen(kw_only=True)
class LoadProgress:
    """How far a load has come, from 0 to 1."""

    fraction: float


@attrs.frozen(kw_only=True)
class PrefillProgress:
    """How far the reading of one prompt has come, in tokens."""

    prompt_tokens: int
    cached_tokens: int
    processed_tokens: int
    """Tokens read so far, the cached ones included."""


@attrs.frozen(kw_only=True)
class LoadedInstance:
    """A model that is in the engine's memory now."""

    key: str
    identifier: str
    context_length: int | None = None
    ours: bool = False


@attrs.frozen(kw_only=True)
class Status:
    """What an adapter says about its engine."""

    adapter: str
    engine: str
    available: bool
    detail: str = ""
    hint: str = ""
    versions: Mapping[str, str] = attrs.field(factory=dict[str, str])
    loaded: tuple[LoadedInstance, ...] = ()
    model_folders: tuple[str, ...] = ()
