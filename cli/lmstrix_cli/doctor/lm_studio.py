"""LM Studio: its server, its SDK, its folders."""

from __future__ import annotations

import os
from pathlib import Path

import anyio

from lmstrix.adapters.lmstudio_home import INTERNAL, existing_home
from lmstrix.apply.lmstudio import CONFIG_FOLDER
from lmstrix.errors import EngineUnavailable, LMStrixError, SettingsError
from lmstrix_cli import session
from lmstrix_cli.doctor.findings import Outcome, ok, problem, warning
from lmstrix_cli.doctor.installed import has_engine
from lmstrix_cli.settings import Settings

__all__ = ["home", "sdk", "server", "settings_folder"]

GREETING_S = 2.0
"""For each address: the servers of this machine answer in milliseconds."""
_START = "Start LM Studio and its server (lms server start), or name one with --host HOST:PORT."
_ONCE = "Start LM Studio once; without it, GGUF files can be measured with --adapter llamacpp."


async def server(settings: Settings) -> Outcome:
    """Whether a server greets. Without one, GGUF files can still be measured."""
    # Imported here because it imports LM Studio's SDK, whose absence is for `sdk` to tell.
    from lmstrix.adapters.lmstudio.discovery import (  # noqa: PLC0415
        addresses,
        find_server,
        parse_host,
    )

    host = None if settings.host is None else parse_host(settings.host)
    tried = ", ".join(addresses(host))
    try:
        found = await find_server(host, GREETING_S)
    except EngineUnavailable:
        wanted = host is not None or settings.adapter == "lmstudio" or not has_engine()
        said = f"LM Studio answers at none of {tried}."
        if wanted and settings.adapter != session.EMBEDDED:
            return problem(said, _START)
        return warning(said, f"{_START} GGUF files need none.")
    return ok(f"LM Studio answers at {found} (tried in this order: {tried}).")


async def sdk(settings: Settings) -> Outcome:
    """The version of the SDK, and whether it has what the adapter uses."""
    del settings
    return await anyio.to_thread.run_sync(_sdk, abandon_on_cancel=True)


def _sdk() -> Outcome:
    try:
        # Imported here because a broken SDK must not keep the other checks from running.
        from lmstrix.adapters.lmstudio.sdk import check_sdk, sdk_version  # noqa: PLC0415

        check_sdk()
    except ImportError as error:
        return problem(
            f"the package lmstudio cannot be imported: {error}.",
            "Install it anew: pip install -U lmstudio.",
        )
    except LMStrixError as error:
        return problem(f"{error}.", error.hint)
    return ok(f"lmstudio {sdk_version()} has what LMStrix uses of it.")


async def home(settings: Settings) -> Outcome:
    """LM Studio's own folder."""
    del settings
    return await anyio.to_thread.run_sync(_home, abandon_on_cancel=True)


def _home() -> Outcome:
    try:
        found = existing_home()
    except SettingsError as error:
        return warning(f"{error}.", _ONCE)
    if not _readable(found / INTERNAL):
        return problem(f"{found / INTERNAL} cannot be read.", f"Check who owns {found}.")
    return ok(f"LM Studio keeps its things in {found}.")


async def settings_folder(settings: Settings) -> Outcome:
    """Where `lmstrix apply` writes."""
    del settings
    return await anyio.to_thread.run_sync(_settings_folder, abandon_on_cancel=True)


def _settings_folder() -> Outcome:
    try:
        folder = existing_home() / INTERNAL / CONFIG_FOLDER
    except SettingsError:
        return warning("there are none, because LM Studio has no folder here.", _ONCE)
    if not folder.is_dir():
        return ok(f"LM Studio keeps no settings of models yet; they would be in {folder}.")
    if not _readable(folder) or not os.access(folder, os.W_OK):
        return problem(
            f"{folder} cannot be read and written.",
            "Check who owns it; `lmstrix apply` writes there.",
        )
    return ok(f"settings of models are in {folder}.")


def _readable(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)
