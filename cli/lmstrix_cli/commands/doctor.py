"""``lmstrix doctor``: one small function for each thing that can be wrong.

A check loads nothing, changes nothing and has a deadline.
"""

from __future__ import annotations

import enum
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from inspect import iscoroutinefunction
from pathlib import Path
from typing import cast

import anyio
import attrs
import click
import platformdirs
from rich.console import RenderableType
from rich.text import Text

from lmstrix import (
    EMBEDDED_ADAPTER,
    EngineUnavailable,
    LMStrixError,
    SettingsError,
    SqliteStore,
    Status,
    StoreError,
    to_json,
)

# It examines the parts themselves, so it knows more of them than other commands do.
from lmstrix.adapters.llamacpp.catalogue import default_folders, files_in
from lmstrix.adapters.llamacpp.engine import ENGINE_PACKAGE, INSTALL_HINT
from lmstrix.adapters.llamacpp.memory import available_memory
from lmstrix.adapters.lmstudio_home import CONFIG_FOLDER, INTERNAL, existing_home
from lmstrix.demo import DEMO
from lmstrix.locks import turns_folder
from lmstrix.reports.words import say_bytes, say_count
from lmstrix_cli import output, session
from lmstrix_cli.errors import ExitCode
from lmstrix_cli.options import json_option
from lmstrix_cli.settings import Settings, colours_wanted, pass_settings

DEADLINE_S = 10.0


class Verdict(enum.StrEnum):
    """How something stands: a warning leaves a part of LMStrix usable, a problem does not."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@attrs.frozen
class Finding:
    """What a check found, in one sentence, and what to do about it; the latter may be empty.

    Both may hold untrusted text, such as a path.
    """

    check: str = attrs.field(default="", kw_only=True)
    verdict: Verdict
    found: str
    advice: str = ""


ok = partial(Finding, Verdict.OK)
warning = partial(Finding, Verdict.WARNING)
problem = partial(Finding, Verdict.PROBLEM)
Look = Callable[[Settings], Finding] | Callable[[Settings], Awaitable[Finding]]


@attrs.frozen
class Check:
    """A name, what looks, in a thread or on the event loop, and for how long it may, in seconds."""

    name: str
    look: Look
    deadline_s: float = DEADLINE_S


INSTALL = 'pip install . in a checkout, pip install -U "lmstrix>=2.0.0a1" after a release'
_NEED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)(;.*)?")
_AT_LEAST = re.compile(r">=\s*([0-9.]+)")


def check_python(_: Settings) -> Finding:
    """The interpreter's version."""
    return ok(f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}.")


def check_packages(_: Settings) -> Finding:
    """Every package that LMStrix requires is there, and new enough."""
    try:
        needed = requires("lmstrix") or []
        versions = [f"lmstrix {version('lmstrix')}"]
    except PackageNotFoundError:
        return warning(
            "LMStrix is not installed; it runs from a source folder.",
            f"Install it, so that it finds its plug-ins: {INSTALL}.",
        )
    wrong: list[str] = []
    for name, least in _needs(needed):
        try:
            has = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        versions.append(f"{name} {has}")
        if _numbers(has) < _numbers(least):
            wrong.append(f"{name} {has} is older than {least}")
    if wrong:
        return problem(f"{', '.join(wrong)}.", f"Reinstall LMStrix: {INSTALL}.")
    return ok(f"{', '.join(versions)}.")


def _needs(requirements: list[str]) -> Iterator[tuple[str, str]]:
    """Names and lowest versions, without those of extras."""
    for requirement in requirements:
        match = _NEED.fullmatch(requirement.strip())
        if match and "extra" not in (match[3] or ""):
            least = _AT_LEAST.search(match[2])
            yield match[1], least[1] if least else ""


def _numbers(text: str) -> tuple[int, ...]:
    leading = re.match(r"[0-9.]*", text)
    return tuple(int(part) for part in (leading[0] if leading else "").split(".") if part)


def has_engine() -> bool:
    """Whether the embedded engine is installed; it is not imported."""
    return find_spec(ENGINE_PACKAGE) is not None


async def check_embedded_engine(settings: Settings) -> Finding:
    """Imported in a process of its own, as it is for a load: its library may crash."""
    if not has_engine():
        wrong = problem if settings.adapter == EMBEDDED_ADAPTER else warning
        return wrong(
            f"{ENGINE_PACKAGE} is not installed, so GGUF files need another engine.",
            INSTALL_HINT,
        )
    done = await anyio.run_process(
        [sys.executable, "-P", "-c", f"import {ENGINE_PACKAGE}"],
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        said = f": {last[0][:300]}" if last else f" (code {done.returncode})"
        return problem(
            f"{ENGINE_PACKAGE} cannot be imported{said}.",
            f"Reinstall it: pip install --force-reinstall {ENGINE_PACKAGE}.",
        )
    return ok(f"{ENGINE_PACKAGE} {version(ENGINE_PACKAGE)} can be imported.")


GREETING_S = 2.0
"""For each address: the servers of this machine answer in milliseconds."""
_START = "Start LM Studio and its server (lms server start), or name one with --host HOST:PORT."
_ONCE = "Start LM Studio once. GGUF files, Ollama and llama-server do not need it."


async def check_other_servers(settings: Settings) -> Finding:
    """Whether the server that was named answers, or which others do on this machine."""
    if settings.adapter in {"lmstudio", EMBEDDED_ADAPTER}:
        return ok("Not checked: --adapter names another engine.")
    found = await _answers(settings)
    away = [status for status in found if not status.available]
    if away and settings.adapter is not None:
        return problem(f"{away[0].detail}.", away[0].hint)
    said = " ".join(f"{one.engine}: {one.detail}" for one in found)
    advice = away[0].hint if away else ""
    return ok(said or "Neither Ollama nor llama-server answers.", advice)


async def _answers(settings: Settings) -> Sequence[Status]:
    """Of the server that was named, or of the others on this machine that are not LM Studio."""
    named = settings.adapter
    host = settings.host if named else None
    async with session.open_client(replace(settings, host=host, store="memory")) as client:
        servers = [client.adapter] if named else await client.other_servers()
        return [await server.status() for server in servers]


async def check_server(settings: Settings) -> Finding:
    """Whether LM Studio's server greets. It is a problem if nothing else can measure either."""
    if settings.adapter not in {None, "lmstudio"}:
        return ok("Not checked: --adapter names another engine.")
    # Imported here because it imports LM Studio's SDK, whose absence is for `check_lmstudio_sdk`
    # to report.
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
        wanted = host is not None or settings.adapter == "lmstudio"
        said = f"LM Studio does not answer at {tried}."
        if wanted or not (has_engine() or await _answers(settings)):
            return problem(said, _START)
        return warning(said, f"{_START} GGUF files, Ollama and llama-server do not need it.")
    return ok(f"LM Studio answers at {found}.")


def check_lmstudio_sdk(_: Settings) -> Finding:
    """The version of the SDK, and whether it has what the adapter uses."""
    try:
        # Imported here because a broken SDK must not keep the other checks from running.
        from lmstrix.adapters.lmstudio.sdk import check_sdk, sdk_version  # noqa: PLC0415

        check_sdk()
    except ImportError as error:
        return problem(
            f"The package lmstudio cannot be imported: {error}.",
            "Reinstall it: pip install -U lmstudio.",
        )
    except LMStrixError as error:
        return problem(f"{error}.", error.hint)
    return ok(f"lmstudio {sdk_version()} has everything that LMStrix uses.")


def check_home(_: Settings) -> Finding:
    """LM Studio's own folder."""
    try:
        found = existing_home()
    except SettingsError as error:
        return warning(f"{error}.", _ONCE)
    if not _readable(found / INTERNAL):
        return problem(f"{found / INTERNAL} cannot be read.", f"Check who owns {found}.")
    return ok(f"LM Studio's home is {found}.")


def check_model_settings(_: Settings) -> Finding:
    """Where `lmstrix apply` writes."""
    try:
        folder = existing_home() / INTERNAL / CONFIG_FOLDER
    except SettingsError:
        return warning("LM Studio keeps no settings here: it has no folder.", _ONCE)
    if not folder.is_dir():
        return ok(f"There are no settings of models yet; they will be in {folder}.")
    if not _readable(folder) or not os.access(folder, os.W_OK):
        return problem(
            f"{folder} cannot be read and written.",
            "Check who owns it; `lmstrix apply` writes there.",
        )
    return ok(f"Settings of models are in {folder}.")


def _readable(folder: Path) -> bool:
    return os.access(folder, os.R_OK | os.X_OK)


LITTLE_BYTES = 1_000_000_000
"""Below that a download, or a machine that swaps, may fill the disk."""
NO_BYTES = 20_000_000
"""Below that a measurement may end because its trials cannot be kept."""
_OTHER_STORE = "Name another file with --store, in a folder that you can write to."


def check_models(_: Settings) -> Finding:
    """GGUF files in the usual folders."""
    folders = default_folders()
    where = " and ".join(str(folder) for folder in folders)
    try:
        count = len(files_in(folders))
    except EngineUnavailable as error:
        return problem(f"{error}.", error.hint)
    if not count:
        return warning(
            f"There is no GGUF file in {where}.",
            "Get a model in LM Studio, get a small one with `lmstrix demo`, or name a file by"
            " its path.",
        )
    return ok(f"{say_count(count, 'GGUF file')} in {where}.")


def check_demo_model(_: Settings) -> Finding:
    """Present and of the right size; its content is checked when it is used."""
    path = platformdirs.user_cache_path("lmstrix") / "models" / DEMO.file_name
    if not path.is_file():
        return ok("It is not downloaded yet.", "`lmstrix demo` downloads it.")
    if path.stat().st_size != DEMO.size_bytes:
        return warning(f"{path} is not the expected file.", "`lmstrix demo` downloads it again.")
    return ok(f"It is at {path}.")


async def check_store(settings: Settings) -> Finding:
    """Whether the store's file can be read and written. Nothing is created or changed."""
    path = await _store_path(settings)
    if path is None:
        return ok("There is none: nothing is kept.")
    found = SqliteStore(path, read_only=True)
    try:
        results = say_count(len(await found.summaries()), "result")
    except StoreError as error:
        return problem(str(error), error.hint)
    finally:
        await found.aclose()
    exists = path.exists()
    for place in [_existing(path.parent), *([path] if exists else [])]:
        if not os.access(place, os.W_OK):
            return problem(f"{place} is not writable.", _OTHER_STORE)
    if not exists:
        return ok(f"There is none yet; it will be {path}.")
    return ok(f"{path} holds {results} in {say_bytes(session.store_bytes(str(path))) or '0 B'}.")


async def check_disk(settings: Settings) -> Finding:
    """Free space where the store is."""
    path = await _store_path(settings)
    folder = _existing(platformdirs.user_cache_path("lmstrix") if path is None else path.parent)
    usage = await anyio.to_thread.run_sync(shutil.disk_usage, folder, abandon_on_cancel=True)
    found = f"{say_bytes(usage.free) or '0 B'} are free at {folder}."
    if usage.free < NO_BYTES:
        return problem(found, "Free some space: every trial is stored at once.")
    if usage.free < LITTLE_BYTES:
        return warning(found, "Free some space before you download a model.")
    return ok(found)


def check_locks(_: Settings) -> Finding:
    """Where measurements that take turns keep their locks."""
    folder = _existing(turns_folder())
    if not os.access(folder, os.W_OK):
        return problem(f"{folder} is not writable.", f"Check who owns {folder}.")
    return ok(f"Lock files can be created in {folder}.")


async def _store_path(settings: Settings) -> Path | None:
    """The store's file, None if nothing is kept. Nothing is opened for it."""
    async with session.open_client(settings) as client:
        location = client.store.location
    return Path(location) if location else None


def _existing(folder: Path) -> Path:
    """`folder`, or the nearest above it that is there: it would be made in that one."""
    found = folder.absolute()
    while not found.is_dir() and found != found.parent:
        found = found.parent
    return found


SMALL_BYTES = 1_000_000_000
"""What a model of a billion weights in four bits needs, without any context."""
NARROWEST = 60
"""Columns that the tables of reports need."""


def check_memory(_: Settings) -> Finding:
    """What a load could use now."""
    free = available_memory()
    if free is None:
        return ok("This system does not report its free memory.")
    found = f"{say_bytes(free) or '0 B'} are free for a model."
    if free < SMALL_BYTES:
        return warning(found, "Close other programs, or measure a small model.")
    return ok(found)


def check_terminal(_: Settings) -> Finding:
    """Encoding, width, colours."""
    encoding = (getattr(sys.stdout, "encoding", None) or "unknown").lower()
    width = shutil.get_terminal_size().columns
    found = f"Encoding {encoding}, {width} columns, {_colours()}."
    if encoding.replace("-", "") != "utf8":
        return warning(found, "Set PYTHONUTF8=1 to see every letter of a model's name.")
    if sys.stdout.isatty() and width < NARROWEST:
        return warning(found, f"Tables need {NARROWEST} columns: make the window wider.")
    return ok(found)


def _colours() -> str:
    """Whether there are colours, and what decides that."""
    if os.environ.get("NO_COLOR"):
        return "no colours because of NO_COLOR"
    said = colours_wanted("auto")
    if said is None:
        return "colours" if sys.stdout.isatty() else "no colours, because this is not a terminal"
    return "colours because of FORCE_COLOR" if said else "no colours because of TERM=dumb"


ENGINE_S = 30.0
"""Importing the engine's library from a slow disk."""
NETWORK_S = 20.0
"""A few addresses, of which each has two seconds."""
FOLDERS_S = 20.0

CHECKS: tuple[Check, ...] = (
    Check("Python", check_python),
    Check("packages", check_packages),
    Check("embedded engine", check_embedded_engine, ENGINE_S),
    Check("LM Studio's server", check_server, NETWORK_S),
    Check("other servers", check_other_servers, NETWORK_S),
    Check("LM Studio's SDK", check_lmstudio_sdk, ENGINE_S),
    Check("LM Studio's folder", check_home),
    Check("LM Studio's settings", check_model_settings),
    Check("models", check_models, FOLDERS_S),
    Check("demo model", check_demo_model),
    Check("store", check_store),
    Check("disk", check_disk),
    Check("locks", check_locks),
    Check("memory", check_memory),
    Check("terminal", check_terminal),
)


async def examine(settings: Settings, checks: Sequence[Check] = CHECKS) -> tuple[Finding, ...]:
    """What each check finds, in their order. Never raises for what is wrong."""
    found: dict[int, Finding] = {}

    async def one(at: int, check: Check) -> None:
        found[at] = attrs.evolve(await _finding(check, settings), check=check.name)

    async with anyio.create_task_group() as group:
        for at, check in enumerate(checks):
            group.start_soon(one, at, check)
    return tuple(found[at] for at in range(len(checks)))


async def _finding(check: Check, settings: Settings) -> Finding:
    try:
        with anyio.fail_after(check.deadline_s):
            if iscoroutinefunction(check.look):
                return await check.look(settings)
            look = cast("Callable[[Settings], Finding]", check.look)
            return await anyio.to_thread.run_sync(look, settings, abandon_on_cancel=True)
    except TimeoutError:
        return warning(
            f"No answer within {check.deadline_s:g} s.",
            "Look for a disk or a network that hangs, or a machine that is very busy; try again.",
        )
    except LMStrixError as error:
        return problem(f"{error}.", error.hint or "See the documentation.")
    except Exception as error:  # noqa: BLE001 - one broken check must not end the others
        return problem(
            f"The check itself failed: {type(error).__name__}: {error}.",
            "Report this as a bug, with the output of `lmstrix doctor --json`.",
        )


EPILOG = """\b
Examples:
  lmstrix doctor
  lmstrix --host 192.168.1.5:1234 doctor
  lmstrix doctor --json
"""


@click.command(name="doctor", epilog=EPILOG)
@json_option("One JSON object.")
@click.pass_context
@pass_settings
def command(settings: Settings, ctx: click.Context, *, as_json: bool) -> None:
    """Check everything that LMStrix needs, and explain how to fix problems.

    Loads nothing and changes nothing. The exit code is 0 if there is no problem, else 1. A
    warning does not stop LMStrix: an optional part is missing, disk or memory is low, or a check
    got no answer in time.
    """
    session.open_client(settings)  # options that cannot work are wrong usage, as everywhere
    findings = session.run(lambda: examine(settings))
    if as_json:
        output.json_object(
            {
                "checks": [json.loads(to_json(finding)) for finding in findings],
                "problems": _count(findings, Verdict.PROBLEM),
                "warnings": _count(findings, Verdict.WARNING),
            }
        )
    else:
        output.out(*_screen(findings))
    if _count(findings, Verdict.PROBLEM):
        ctx.exit(ExitCode.OTHER)


def _screen(findings: Sequence[Finding]) -> Iterator[RenderableType]:
    rows: list[tuple[str | Text, ...]] = []
    for finding in findings:
        rows.append((output.verdict(finding.verdict), finding.check, finding.found))
        if finding.advice:
            rows.append(("", "", f"-> {finding.advice}"))
    yield output.prose(output.grid(*rows, gap=2))
    counts = {verdict: _count(findings, verdict) for verdict in Verdict}
    problems = say_count(counts[Verdict.PROBLEM], "problem")
    warnings = say_count(counts[Verdict.WARNING], "warning")
    yield f"\n{problems}, {warnings}."


def _count(findings: Sequence[Finding], verdict: Verdict) -> int:
    return sum(finding.verdict is verdict for finding in findings)
