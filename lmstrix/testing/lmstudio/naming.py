"""What models are called on the wire."""

from __future__ import annotations

from pathlib import PurePosixPath

from lmstrix.models import ModelInfo

__all__ = ["listing_path", "public_key"]


def public_key(model: ModelInfo) -> str:
    """The key that LM Studio gives a model: never the path of a file."""
    if not model.key.lower().endswith(".gguf"):
        return model.key
    return PurePosixPath(model.key.replace("\\", "/")).stem.lower()


def listing_path(key: str) -> str:
    """Where LM Studio keeps such a model, relative to its models folder."""
    return f"{key}/{PurePosixPath(key).name}.gguf"
