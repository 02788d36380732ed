"""``lmstrix test --at N``: what a check says, as text, and its exit code."""

from __future__ import annotations

from collections.abc import Iterator

from lmstrix.checks import Outcome, SizeCheck
from lmstrix.models import Cause, ContextReport, LevelReport
from lmstrix.reports.words import CAUSE_SENTENCES, say_cause, say_percent, say_seconds
from lmstrix_cli.exit_codes import ExitCode, code_of_report
from lmstrix_cli.safe_text import label

__all__ = ["check_lines", "code_of_check"]

_NO_FAILURE = {Cause.DECLARED_MAXIMUM, Cause.MAX_CONTEXT, Cause.NOTHING_FAILED}
"""Their sentences say that nothing failed up to there; beyond it nothing was tried."""


def code_of_check(check: SizeCheck, report: ContextReport) -> ExitCode:
    """0 where it passes, 1 where it fails; where nothing can be said, what `report` ends with."""
    if check.outcome is Outcome.PASS:
        return ExitCode.MEASURED
    code = code_of_report(report)
    untold = check.outcome is Outcome.INCONCLUSIVE and code is not ExitCode.MEASURED
    return code if untold else ExitCode.OTHER


def check_lines(check: SizeCheck) -> Iterator[str]:
    """The verdict and its evidence. Escaped."""
    yield f"{label(check.model.key)} at {check.length_tokens} tokens: {check.outcome}"
    if check.cause is not None:
        said = "" if check.cause in _NO_FAILURE else f". {CAUSE_SENTENCES[check.cause]}"
        yield f"cause: {say_cause(check.cause)}{said}"
    if check.trials:
        low, high = check.wilson.low, check.wilson.high
        short = check.baseline
        yield (
            f"{check.passes} of {check.trials} correct"
            f" (95% interval {100 * low:.0f} to {say_percent(high)}),"
            f" at {short.length_tokens} tokens {short.passes} of {short.trials}"
        )
    for level in check.levels:
        if level.name != check.method.validator:
            yield f"{label(level.name)}: {_at(level, check.length_tokens)}"
    if check.tokens_per_second is not None:
        yield f"speed: {check.tokens_per_second:.1f} tokens a second"
    yield from (f"note: {label(note)}" for note in check.notes)
    cost = check.cost
    loads = "1 load" if cost.loads == 1 else f"{cost.loads} loads"
    yield f"cost: {loads}, {cost.prompt_tokens} prompt tokens, {say_seconds(cost.seconds)}"
    yield "No true context: no other length was looked at, and nothing was kept."


def _at(level: LevelReport, length: int) -> Outcome:
    _, failed = level.bracket
    if failed is not None and failed <= length:
        return Outcome.FAIL
    return Outcome.PASS if (level.limit_tokens or 0) >= length else Outcome.INCONCLUSIVE
