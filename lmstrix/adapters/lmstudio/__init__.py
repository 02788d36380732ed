"""Models in a running LM Studio, over its Python SDK."""

from __future__ import annotations

from lmstrix.adapters.lmstudio.adapter import LMStudioAdapter

__all__ = ["LMStudioAdapter"]
