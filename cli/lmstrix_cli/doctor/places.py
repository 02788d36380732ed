"""Where things are: models, the demo model, the store, locks, space on the disk."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import anyio
import platformdirs

from lmstrix.adapters.llamacpp.catalogue import Catalogue, default_folders
from lmstrix.demo import DEMO
from lmstrix.errors import EngineUnavailable, StoreError
from lmstrix.reports.words import say_bytes, say_count
from lmstrix.stores.sqlite import SqliteStore
from lmstrix_cli import session
from lmstrix_cli.doctor.findings import Outcome, ok, problem, warning
from lmstrix_cli.settings import Settings

__all__ = ["demo_model", "disk", "locks", "models", "store"]

LITTLE_BYTES = 1_000_000_000
"""Below that a download, or a machine that swaps, may fill the disk."""
NO_BYTES = 20_000_000
"""Below that a measurement may end because its trials cannot be kept."""
_OTHER_STORE = "Name another file with --store, in a folder that you may write to."


async def models(settings: Settings) -> Outcome:
    """GGUF files in the usual folders."""
    del settings
    return await anyio.to_thread.run_sync(_models, abandon_on_cancel=True)


def _models() -> Outcome:
    folders = default_folders()
    where = " and ".join(str(folder) for folder in folders)
    try:
        count = len(Catalogue(folders).files())
    except EngineUnavailable as error:
        return problem(f"{error}.", error.hint)
    if not count:
        return warning(
            f"there is no GGUF file in {where}.",
            "Get a model in LM Studio, get a small one with `lmstrix demo`, or name a file by"
            " its path.",
        )
    files = "is 1 GGUF file" if count == 1 else f"are {count} GGUF files"
    return ok(f"there {files} in {where}.")


async def demo_model(settings: Settings) -> Outcome:
    """Present and of the right size; its content is checked when it is used."""
    del settings
    return await anyio.to_thread.run_sync(_demo_model, abandon_on_cancel=True)


def _demo_model() -> Outcome:
    path = platformdirs.user_cache_path("lmstrix") / "models" / DEMO.file_name
    if not path.is_file():
        return ok("it was not fetched yet.", "`lmstrix demo` gets it, if you want it.")
    if path.stat().st_size != DEMO.size_bytes:
        return warning(f"{path} is not the file it should be.", "`lmstrix demo` gets it anew.")
    return ok(f"it is there: {path}.")


async def store(settings: Settings) -> Outcome:
    """Whether the store's file can be read and written. Nothing is created or changed."""
    path = await _store_path(settings)
    if path is None:
        return ok("there is none: nothing is remembered.")
    found = SqliteStore(path, read_only=True)
    try:
        reports = say_count(len(await found.summaries()), "report")
    except StoreError as error:
        return problem(str(error), error.hint)
    finally:
        await found.aclose()
    exists = path.exists()
    for place in [_existing(path.parent), *([path] if exists else [])]:
        if not os.access(place, os.W_OK):
            return problem(f"{place} cannot be written.", _OTHER_STORE)
    if not exists:
        return ok(f"there is none yet; it will be {path}.")
    return ok(f"{path} holds {reports} in {say_bytes(session.store_bytes(str(path))) or '0 B'}.")


async def disk(settings: Settings) -> Outcome:
    """Free space where the store is."""
    path = await _store_path(settings)
    folder = _existing(platformdirs.user_cache_path("lmstrix") if path is None else path.parent)
    usage = await anyio.to_thread.run_sync(shutil.disk_usage, folder, abandon_on_cancel=True)
    found = f"{say_bytes(usage.free) or '0 B'} are free at {folder}."
    if usage.free < NO_BYTES:
        return problem(found, "Free some space: trials are kept as they happen.")
    if usage.free < LITTLE_BYTES:
        return warning(found, "Free some space before you fetch a model.")
    return ok(found)


async def locks(settings: Settings) -> Outcome:
    """Where measurements that take turns keep their locks."""
    del settings
    if find_spec("lmstrix.turns") is None:
        return ok("measurements do not take turns in this version.")
    folder = _existing(platformdirs.user_data_path("lmstrix"))
    if not os.access(folder, os.W_OK):
        return problem(f"{folder} may not be written to.", f"Check who owns {folder}.")
    return ok(f"locks can be kept in {folder}.")


async def _store_path(settings: Settings) -> Path | None:
    """The store's file, None where nothing is kept. Nothing is opened for it."""
    async with session.open_client(settings) as client:
        location = client.store.location
    return Path(location) if location else None


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest above it that is there: it would be made in that one."""
    found = folder.absolute()
    while not found.is_dir() and found != found.parent:
        found = found.parent
    return found
