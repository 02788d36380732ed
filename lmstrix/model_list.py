"""The models that an adapter found: a tuple that a notebook shows as a table."""

from __future__ import annotations

from lmstrix.models import ModelInfo
from lmstrix.showing import html_of

__all__ = ["ModelList"]


class ModelList(tuple[ModelInfo, ...]):
    """Models, sorted by key. A tuple in every respect; slices of it are plain tuples."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        return html_of(self)
