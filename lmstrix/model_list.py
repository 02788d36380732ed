"""The models that an adapter found: a tuple with a type of its own, which notebooks look for."""

from __future__ import annotations

from lmstrix.models import ModelInfo

__all__ = ["ModelList"]


class ModelList(tuple[ModelInfo, ...]):
    """Models, sorted by key. A tuple in every respect; slices of it are plain tuples."""

    __slots__ = ()
