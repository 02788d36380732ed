"""The embedded engine: llama.cpp (extra ``llamacpp``) in a child process of ours."""

from lmstrix.adapters.llamacpp.adapter import LlamaCppAdapter
from lmstrix.adapters.llamacpp.loaded import LlamaCppModel

__all__ = ["LlamaCppAdapter", "LlamaCppModel"]
