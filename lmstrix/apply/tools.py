"""The setting for other servers, as text: nothing is written."""

from __future__ import annotations

from pathlib import Path

from lmstrix.models import ModelInfo

__all__ = ["llama_server_arguments", "ollama_modelfile"]

MODEL_PLACEHOLDER = "NAME-OF-YOUR-MODEL"


def llama_server_arguments(context: int) -> str:
    """The arguments that set the context, in tokens, for llama.cpp's ``llama-server``.

    >>> llama_server_arguments(8192)
    '-c 8192'
    """
    return f"-c {context}"


def ollama_modelfile(model: ModelInfo, context: int) -> str:
    r"""An Ollama Modelfile that sets the context, in tokens.

    It names the measured GGUF file if there is one. Ollama has its own names for all other
    models, so the user has to fill them in.

    >>> print(ollama_modelfile(ModelInfo(key="some/model"), 8192))
    FROM NAME-OF-YOUR-MODEL
    PARAMETER num_ctx 8192
    """
    return f"FROM {_source(model)}\nPARAMETER num_ctx {context}"


def _source(model: ModelInfo) -> str:
    """Paths are untrusted: one that could be read as more than a path is left out."""
    path = model.path
    plain = path.isprintable() and not set(path) & set("\"'#")
    if plain and path.lower().endswith(".gguf") and Path(path).is_absolute():
        return f'"{path}"' if " " in path else path
    return MODEL_PLACEHOLDER
