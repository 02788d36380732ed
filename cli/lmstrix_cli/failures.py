"""Errors to two lines of text and an exit code; never a traceback unasked."""

from __future__ import annotations

import errno
import logging
import traceback

from lmstrix.errors import LMStrixError
from lmstrix_cli import safe_text
from lmstrix_cli.exit_codes import ExitCode, code_of_error
from lmstrix_cli.running import Interrupted

__all__ = ["explain", "explain_known"]

_NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT, errno.EBADF})
"""What a write to stdout may end with."""

_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())  # else Python itself shows on stderr what nobody listens to


def explain_known(error: LMStrixError) -> ExitCode:
    """Say what went wrong and what to do next."""
    _log.error("%s: %s", type(error).__name__, error, exc_info=error)
    safe_text.error(str(error) or type(error).__name__, error.hint)
    return code_of_error(error)


def explain(error: BaseException, *, verbose: bool) -> ExitCode:
    """Say what ended a command, on stderr, and give its exit code."""
    if isinstance(error, (KeyboardInterrupt, Interrupted)):
        _log.info("interrupted")
        safe_text.note("Interrupted.")
        return ExitCode.PARTIAL
    if verbose:
        safe_text.note("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, LMStrixError):
        return explain_known(error)
    # Every other write gives its own error; stdout is the one stream without a file name.
    if isinstance(error, OSError) and error.errno in _NOT_WRITTEN and error.filename is None:
        _log.error("stdout: %s", error.strerror)
        safe_text.error(
            f"stdout cannot be written: {error.strerror}", "Make room, or let it go elsewhere."
        )
        return ExitCode.OTHER
    _log.critical("%s: %s", type(error).__name__, error, exc_info=error)
    safe_text.error(
        f"{type(error).__name__}: {error}. This is a bug in LMStrix or in a plug-in.",
        "" if verbose else "Run `lmstrix --verbose ...` for a traceback to report.",
    )
    return ExitCode.OTHER
