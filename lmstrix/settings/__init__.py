"""Puts a measured context to use: in LM Studio's settings, for llama-server and for Ollama.

Nothing here asks a user or an engine. A change is planned first (`plan_change`, `plan_undo`),
so that it can be shown, and written only by its own `write` method.
"""

from __future__ import annotations

from lmstrix.settings.choosing import (
    STEP_TOKENS,
    caveats,
    choose_report,
    find_model,
    recommended_context,
    reports_of,
)
from lmstrix.settings.home import find_home
from lmstrix.settings.lmstudio import CONTEXT_KEY, Change, Undo, plan_change, plan_undo
from lmstrix.settings.places import lmstudio_identifier
from lmstrix.settings.problems import NotMeasured, SettingsError
from lmstrix.settings.servers import llama_server_arguments, ollama_modelfile

__all__ = [
    "CONTEXT_KEY",
    "STEP_TOKENS",
    "Change",
    "NotMeasured",
    "SettingsError",
    "Undo",
    "caveats",
    "choose_report",
    "find_home",
    "find_model",
    "llama_server_arguments",
    "lmstudio_identifier",
    "ollama_modelfile",
    "plan_change",
    "plan_undo",
    "recommended_context",
    "reports_of",
]
