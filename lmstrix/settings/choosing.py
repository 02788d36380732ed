"""Which measurement to apply, and how many tokens that makes."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from lmstrix.errors import ConfigurationError, ModelNotFound
from lmstrix.models import Cause, ContextReport, ModelInfo, StoredReport
from lmstrix.settings.problems import NotMeasured

__all__ = [
    "STEP_TOKENS",
    "caveats",
    "choose_report",
    "find_model",
    "recommended_context",
    "reports_of",
]

LARGEST_SHOWN = 1e9
"""The largest percentage that a message repeats."""
STEP_TOKENS = 256
"""Contexts are rounded down to a multiple of this: the grain of the search, and of llama.cpp's
own padding of the KV cache."""
WHOLE_PERCENT = 100


def find_model(reports: Sequence[StoredReport], name: str) -> ModelInfo:
    """The model that `name` means among `reports`: a key, a path, or the last part of a key.

    As its newest finished measurement saw it, or else its newest: `reports` are newest first.

    Raises:
        NotMeasured: nothing of that name was measured.
        ModelNotFound: the name could mean several models.
    """
    mine = reports_of(reports, name)
    return next((report for report in mine if report.measured), mine[0]).model


def choose_report(reports: Sequence[StoredReport], name: str) -> ContextReport:
    """The newest finished measurement with a true context of the model that `name` means.

    Raises `NotMeasured` where every measurement of it ended without one, and what
    `find_model` raises.
    """
    mine = reports_of(reports, name)
    for report in mine:
        if report.measured:
            return report
    key, cause = mine[0].model.key, mine[0].cause.replace("_", " ")
    raise NotMeasured(
        f"{key!r} has no finished true context: its newest measurement ended with {cause!r}",
        hint=f"Measure it to the end: lmstrix test {key}",
    )


def recommended_context(
    true_context: int, *, percent: float = WHOLE_PERCENT, cap: int | None = None
) -> int:
    """The context to set, in tokens: never more than `percent` of `true_context`.

    That part is rounded down to a multiple of `STEP_TOKENS`; `cap` is taken as it is where it
    is smaller. Raises `ConfigurationError` for a percentage or cap that leaves nothing, and
    `NotMeasured` for a true context that is itself too small to set.

    >>> recommended_context(40000), recommended_context(40000, percent=90)
    (39936, 35840)
    >>> recommended_context(40000, cap=10000)
    10000
    """
    if not 0 < percent <= WHOLE_PERCENT:
        # An integer may be too large to be written out, or to become a float.
        shown = f"{percent:g}" if abs(percent) < LARGEST_SHOWN else "That"
        raise ConfigurationError(
            f"{shown} is no percentage to take of a true context",
            hint="Give one above 0 and at most 100.",
        )
    if cap is not None and cap < 1:
        raise ConfigurationError(f"{cap} is no context length", hint="Give a positive number.")
    if true_context < STEP_TOKENS:
        raise NotMeasured(
            f"its true context is {true_context} tokens: no setting makes that work",
            hint="Use another model.",
        )
    part = int(true_context * Fraction(str(percent)) / WHOLE_PERCENT)
    rounded = part // STEP_TOKENS * STEP_TOKENS
    if rounded < STEP_TOKENS:
        raise ConfigurationError(
            f"{percent:g} % of a true context of {true_context} tokens is less than"
            f" {STEP_TOKENS}: too little to set",
            hint="Take a larger part of it.",
        )
    return rounded if cap is None else min(rounded, cap)


def caveats(
    reports: Sequence[StoredReport], report: ContextReport, *, engine: str = ""
) -> tuple[str, ...]:
    """What whoever sets this context should know, one sentence each.

    `engine` is the adapter that the setting is for; an empty string for any.
    """
    found: list[str] = []
    if not report.certified:
        found.append("Not certified: no fresh load and fresh text confirmed this result.")
    if report.cause is Cause.MAX_CONTEXT:
        found.append(
            "Nothing failed up to the largest context that was to be tried: more may work."
        )
    newest = next(s.report for s in reports if _is_same(s.report.model, report.model))
    if newest is not report:
        found.append(
            "A newer measurement of this model ended without a true context:"
            f" {newest.cause.replace('_', ' ')}."
        )
    if engine and report.environment.adapter != engine:
        found.append(
            f"Measured with {report.environment.adapter}, not with {engine}:"
            " memory and settings may differ there."
        )
    return tuple(found)


def reports_of(reports: Sequence[StoredReport], name: str) -> Sequence[ContextReport]:
    """Every report of the model that `name` means, in their order: at least one.

    The path of a GGUF file means that file before it means a key: keys of such files are paths
    as they were written, and those of two files may be the same. Raises what `find_model`
    raises.
    """
    of_file = _reports_of_file(reports, name)
    if of_file:
        return of_file
    models = [stored.report.model for stored in reports]
    exact = next((model.key for model in models if name and name in {model.key, model.path}), None)
    keys = {model.key for model in models if _last_part(model.key) == name}
    if exact is not None:
        keys = {exact}
    if len(keys) > 1:
        raise ModelNotFound(
            f"{name[:200]!r} could be any of {len(keys)} models: {', '.join(sorted(keys)[:5])}",
            hint="Give the whole key.",
        )
    if not keys or not name:
        raise _unknown(name, [model.key for model in models])
    return [stored.report for stored in reports if stored.report.model.key in keys]


def _reports_of_file(reports: Sequence[StoredReport], name: str) -> Sequence[ContextReport]:
    """The reports of the GGUF file that `name` is the path of, however it is written."""
    wanted = _as_file(name)
    paths = {stored.report.model.path for stored in reports} if wanted else ()
    mine = {path for path in paths if Path(path).is_absolute() and _as_file(path) == wanted}
    return [stored.report for stored in reports if stored.report.model.path in mine]


def _as_file(name: str) -> str:
    """The real path that `name` means if it is that of a GGUF file, or an empty string."""
    try:
        is_file = name.lower().endswith(".gguf")
        return os.path.realpath(Path(name).expanduser()) if is_file else ""
    except (OSError, ValueError, RuntimeError):  # a NUL inside, no such user, no working folder
        return ""


def _is_same(one: ModelInfo, other: ModelInfo) -> bool:
    """Whether two reports are of one model: files in two folders may have the same key."""
    return one.path == other.path and (one.key == other.key or Path(one.path).is_absolute())


def _last_part(key: str) -> str:
    return key.rpartition("/")[2]


def _unknown(name: str, keys: Sequence[str]) -> NotMeasured:
    lower = {key.lower(): key for key in keys}
    lower |= {_last_part(key).lower(): key for key in keys}
    near = difflib.get_close_matches(name[:200].lower(), lower, n=3, cutoff=0.5)
    if near:
        hint = f"Did you mean {', '.join(dict.fromkeys(lower[match] for match in near))}?"
    else:
        hint = "Measure it first: lmstrix test MODEL. `lmstrix list` shows what is known."
    return NotMeasured(f"{name[:200]!r} was not measured yet", hint=hint)
