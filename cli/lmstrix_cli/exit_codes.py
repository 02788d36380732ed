"""Exit codes, and how facts and errors become one."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from lmstrix.errors import ConfigurationError, InfrastructureError, LMStrixError, ModelError
from lmstrix.models import Cause, ContextReport

__all__ = ["ExitCode", "code_of_error", "code_of_report", "worst"]


class ExitCode(enum.IntEnum):
    """What a script can rely on."""

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
    Cause.INCONCLUSIVE: ExitCode.OTHER,
}

_WORST_FIRST = (
    ExitCode.PARTIAL,
    ExitCode.UNREACHABLE,
    ExitCode.OTHER,
    ExitCode.NOT_MEASURABLE,
    ExitCode.MEASURED,
)


def code_of_report(report: ContextReport) -> ExitCode:
    """0 where there is a true context, also where it is 0; see `ExitCode` for the others."""
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
    """The code of a batch: 5 before 3, 1, 4 and 0. No code at all is 0."""
    return min(codes, key=_WORST_FIRST.index, default=ExitCode.MEASURED)
