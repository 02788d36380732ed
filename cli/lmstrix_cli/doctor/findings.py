"""What a check is, and what it finds."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable

import attrs

from lmstrix_cli.settings import Settings

__all__ = ["Check", "Finding", "Look", "Outcome", "Verdict", "ok", "problem", "warning"]

DEADLINE_S = 10.0


class Verdict(enum.StrEnum):
    """How something stands: a warning leaves a part of LMStrix usable, a problem does not."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@attrs.frozen
class Outcome:
    """One sentence on what was found, and one on what to do; the latter may be empty.

    Both may hold untrusted text, such as a path.
    """

    verdict: Verdict
    found: str
    advice: str = ""


@attrs.frozen(kw_only=True)
class Finding:
    """The outcome of a named check."""

    check: str
    verdict: Verdict
    found: str
    advice: str


Look = Callable[[Settings], Awaitable[Outcome]]


@attrs.frozen
class Check:
    """A name, what looks, and for how long it may, in seconds."""

    name: str
    look: Look
    deadline_s: float = DEADLINE_S


def ok(found: str, advice: str = "") -> Outcome:
    """Nothing is wrong."""
    return Outcome(Verdict.OK, found, advice)


def warning(found: str, advice: str) -> Outcome:
    """Something does not work that not everybody needs."""
    return Outcome(Verdict.WARNING, found, advice)


def problem(found: str, advice: str) -> Outcome:
    """Something has to be mended first."""
    return Outcome(Verdict.PROBLEM, found, advice)
