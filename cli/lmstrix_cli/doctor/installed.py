"""Python, the packages that LMStrix needs, and the optional engine."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

import anyio

from lmstrix_cli import session
from lmstrix_cli.doctor.findings import Outcome, ok, problem, warning
from lmstrix_cli.settings import Settings

__all__ = ["embedded_engine", "has_engine", "packages", "python"]

OLDEST = (3, 11)
ENGINE = "xllamacpp"
INSTALL_ENGINE = 'Install it: pip install "lmstrix[llamacpp]".'
_NEED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*([^;]*)(;.*)?")
_AT_LEAST = re.compile(r">=\s*([0-9.]+)")


async def python(settings: Settings) -> Outcome:
    """The interpreter's version."""
    del settings
    found = f"{platform.python_implementation()} {platform.python_version()} on {sys.platform}."
    if sys.version_info < OLDEST:
        return problem(found, f"Use Python {OLDEST[0]}.{OLDEST[1]} or newer.")
    return ok(found)


async def packages(settings: Settings) -> Outcome:
    """Every package that LMStrix requires is there, and new enough."""
    del settings
    try:
        needed = requires("lmstrix") or []
        versions = [f"lmstrix {version('lmstrix')}"]
    except PackageNotFoundError:
        return warning(
            "lmstrix itself is not installed; it runs from a folder.",
            "Install it, so that its plug-ins are found: pip install lmstrix.",
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
        return problem(f"{', '.join(wrong)}.", "Install LMStrix anew: pip install -U lmstrix.")
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
    """Whether the embedded engine is installed; nothing of it is imported."""
    return find_spec(ENGINE) is not None


async def embedded_engine(settings: Settings) -> Outcome:
    """Imported in a process of its own, as it is for a load: its library may crash."""
    if not has_engine():
        wrong = problem if settings.adapter == session.EMBEDDED else warning
        return wrong(
            f"{ENGINE} is not installed, so GGUF files can only be measured in LM Studio.",
            INSTALL_ENGINE,
        )
    done = await anyio.run_process(
        [sys.executable, "-P", "-c", f"import {ENGINE}"],
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        said = f": {last[0][:300]}" if last else f" (code {done.returncode})"
        return problem(f"{ENGINE} cannot be imported{said}.", f"Install it anew: {ENGINE}.")
    return ok(f"{ENGINE} {version(ENGINE)} can be imported.")
