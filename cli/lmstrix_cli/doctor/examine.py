"""Runs the checks, side by side, each under its deadline; none of them can end the others."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from lmstrix.errors import LMStrixError
from lmstrix_cli.doctor import installed, lm_studio, machine, places
from lmstrix_cli.doctor.findings import Check, Finding, Outcome, problem
from lmstrix_cli.settings import Settings

__all__ = ["CHECKS", "examine"]

ENGINE_S = 30.0
"""Importing the engine's library from a slow disk."""
NETWORK_S = 20.0
"""A few addresses, of which each has two seconds."""
FOLDERS_S = 20.0

CHECKS: tuple[Check, ...] = (
    Check("Python", installed.python),
    Check("packages", installed.packages),
    Check("embedded engine", installed.embedded_engine, ENGINE_S),
    Check("LM Studio's server", lm_studio.server, NETWORK_S),
    Check("LM Studio's SDK", lm_studio.sdk, ENGINE_S),
    Check("LM Studio's folder", lm_studio.home),
    Check("LM Studio's settings", lm_studio.settings_folder),
    Check("models", places.models, FOLDERS_S),
    Check("demo model", places.demo_model),
    Check("store", places.store),
    Check("disk", places.disk),
    Check("locks", places.locks),
    Check("memory", machine.memory),
    Check("terminal", machine.terminal),
)


async def examine(settings: Settings, checks: Sequence[Check] = CHECKS) -> tuple[Finding, ...]:
    """What each check finds, in their order. Never raises for what is wrong."""
    found: dict[int, Finding] = {}

    async def one(at: int, check: Check) -> None:
        outcome = await _outcome(check, settings)
        found[at] = Finding(
            check=check.name,
            verdict=outcome.verdict,
            found=outcome.found,
            advice=outcome.advice,
        )

    async with anyio.create_task_group() as group:
        for at, check in enumerate(checks):
            group.start_soon(one, at, check)
    return tuple(found[at] for at in range(len(checks)))


async def _outcome(check: Check, settings: Settings) -> Outcome:
    try:
        with anyio.fail_after(check.deadline_s):
            return await check.look(settings)
    except TimeoutError:
        return problem(
            f"no answer within {check.deadline_s:g} s.",
            "Look for a disk or a network that hangs, and try again.",
        )
    except LMStrixError as error:
        return problem(f"{error}.", error.hint or "See the documentation.")
    except Exception as error:  # noqa: BLE001 - a doctor who falls ill helps nobody
        return problem(
            f"the check itself failed: {type(error).__name__}: {error}.",
            "Report this as a bug, with the output of `lmstrix doctor --json`.",
        )
