"""Errors and wrong usage as messages and exit codes; never a traceback unless asked."""

from __future__ import annotations

import enum
import errno
import logging
import traceback
from collections.abc import Iterable

import click

from lmstrix import (
    Cause,
    ConfigurationError,
    ContextReport,
    InfrastructureError,
    LMStrixError,
    ModelError,
)
from lmstrix_cli import output
from lmstrix_cli.session import Interrupted
from lmstrix_cli.settings import Settings


class ExitCode(enum.IntEnum):
    """Exit codes that scripts can rely on."""

    MEASURED = 0
    OTHER = 1
    USAGE = 2
    UNREACHABLE = 3
    NOT_MEASURABLE = 4
    PARTIAL = 5


_OF_CAUSE = {
    Cause.BUDGET_SPENT: ExitCode.PARTIAL,
    Cause.INTERRUPTED: ExitCode.PARTIAL,
    Cause.INFRASTRUCTURE: ExitCode.UNREACHABLE,
    Cause.NOT_MEASURABLE: ExitCode.NOT_MEASURABLE,
    Cause.INVALID_MODEL: ExitCode.NOT_MEASURABLE,
    Cause.UNSUPPORTED_MODEL: ExitCode.NOT_MEASURABLE,
    Cause.MODEL_NOT_FOUND: ExitCode.NOT_MEASURABLE,
    Cause.MODEL_IN_USE: ExitCode.NOT_MEASURABLE,
    Cause.INCONCLUSIVE: ExitCode.OTHER,
}

_WORST_FIRST = (
    ExitCode.PARTIAL,
    ExitCode.UNREACHABLE,
    ExitCode.USAGE,
    ExitCode.OTHER,
    ExitCode.NOT_MEASURABLE,
    ExitCode.MEASURED,
)


def code_of_report(report: ContextReport) -> ExitCode:
    """0 if there is a true context, even if it is 0; see `ExitCode` for the others."""
    if report.cause in _OF_CAUSE:
        return _OF_CAUSE[report.cause]
    # A model that the engine loads at no size at all was not measured either.
    return ExitCode.NOT_MEASURABLE if report.true_context is None else ExitCode.MEASURED


def code_of_error(error: LMStrixError) -> ExitCode:
    """The exit code of a command that ended with `error`."""
    kinds = (
        (ConfigurationError, ExitCode.USAGE),
        (InfrastructureError, ExitCode.UNREACHABLE),
        (ModelError, ExitCode.NOT_MEASURABLE),
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), ExitCode.OTHER)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The code of a batch: 5 before 3, 2, 1, 4 and 0. No code at all is 0."""
    return min(codes, key=_WORST_FIRST.index, default=ExitCode.MEASURED)


_NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT, errno.EBADF})
"""Errors of a write to stdout."""

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # without it Python prints unhandled records on stderr


def explain_known(error: LMStrixError) -> ExitCode:
    """Print what went wrong and what to do next."""
    _log.error("%s", type(error).__name__, exc_info=error)
    hint = error.hint
    context = click.get_current_context(silent=True)
    settings = context.find_object(Settings) if context else None
    host = "" if settings is None or settings.host_is_typed else settings.host or ""
    if host and host.rpartition("//")[2].rstrip("/") in str(error):
        hint = f"LMSTRIX_HOST names that address. {hint}".strip()
    output.error(str(error) or type(error).__name__, hint)
    return code_of_error(error)


def explain(error: BaseException, *, verbose: bool) -> ExitCode:
    """Print on stderr why a command ended; returns its exit code."""
    if isinstance(error, (KeyboardInterrupt, Interrupted)):
        _log.info("interrupted")
        output.note("Interrupted.")
        return ExitCode.PARTIAL
    if verbose:
        output.note("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, LMStrixError):
        return explain_known(error)
    # Every other write gives its own error; stdout is the one stream without a file name.
    if isinstance(error, OSError) and error.errno in _NOT_WRITTEN and error.filename is None:
        _log.error("stdout: %s", error.strerror)
        output.error(
            f"stdout cannot be written: {error.strerror}",
            "Free some space, or redirect it elsewhere.",
        )
        return ExitCode.OTHER
    _log.critical("%s", type(error).__name__, exc_info=error)
    output.error(
        f"{type(error).__name__}: {error}. This is a bug in LMStrix or in a plug-in.",
        "" if verbose else "Run `lmstrix --verbose ...` for a traceback to report.",
    )
    return ExitCode.OTHER
