"""Puts a measured context to use: in LM Studio's settings, for llama-server and for Ollama.

A change is planned first (`plan_change`, `plan_undo`), so that it can be shown; only its
`write` method writes.
"""

from __future__ import annotations

from lmstrix.adapters.lmstudio_home import CONTEXT_KEY, existing_home, settings_identifier
from lmstrix.apply.context import (
    MODEL_PLACEHOLDER,
    caveats,
    choose_report,
    find_model,
    llama_server_arguments,
    ollama_modelfile,
    recommended_context,
)
from lmstrix.apply.lmstudio import Change, plan_change, plan_undo

__all__ = [
    "CONTEXT_KEY",
    "MODEL_PLACEHOLDER",
    "Change",
    "caveats",
    "choose_report",
    "existing_home",
    "find_model",
    "llama_server_arguments",
    "ollama_modelfile",
    "plan_change",
    "plan_undo",
    "recommended_context",
    "settings_identifier",
]
