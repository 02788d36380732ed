"""Reports and checks as a terminal shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType

from lmstrix import (
    Cause,
    ContextReport,
    LevelReport,
    Outcome,
    SizeCheck,
)
from lmstrix.reports.text import render_text
from lmstrix.reports.words import (
    CAUSE_SENTENCES,
    say_cause,
    say_count,
    say_percent,
    say_seconds,
)
from lmstrix_cli import output

_STYLES = {
    r"(?m)^(declared|loadable|true|usable) (at least )?\S+(?=  )": "bold",
    r"(?<=  )passed(?=  |$)": "green",
    r"(?<=  )failed(?=  |$)": "red",
    r"(?<=  )undecided(?=  |$)": "yellow",
}
"""The numbers of a report, and the cells of its table that hold a verdict."""


def report_screen(
    report: ContextReport, *, options: Sequence[str] = (), limits: Sequence[str] = ()
) -> RenderableType:
    """The whole report. `options` and `limits` stand in the command that repeats it."""
    width = output.line_width()
    text = output.verbatim(render_text(report, width=width, options=options, limits=limits))
    for words, style in _STYLES.items():
        text.highlight_regex(words, style)
    return text


_NO_FAILURE = {Cause.DECLARED_MAXIMUM, Cause.MAX_CONTEXT, Cause.NOTHING_FAILED}
"""Their sentences say that nothing failed up to there; beyond it nothing was tried."""
_AT_ONE_LENGTH = {
    Cause.LOAD_REFUSED: "It was refused before it was loaded: it may not fit into memory.",
    Cause.LOAD_FAILED: "The engine could not load this context.",
    Cause.LOAD_HUNG: "Loading this context made no progress, although the server answered.",
    Cause.CRASHED_ON_FILL: "This context loads, but the engine crashes once it is filled.",
    Cause.OVERFLOW: "The engine says that the prompt does not fit into the context it loaded.",
    Cause.GIBBERISH: "With a prompt of this length the model answers gibberish or nothing.",
    Cause.FORGETS: "With a prompt of this length the model forgets part of it.",
    Cause.TOO_SLOW: "With a prompt of this length a reply takes too long.",
    Cause.BUDGET_SPENT: "The budget was spent before there was a verdict.",
}
"""Where the sentence of a report would speak of larger contexts or longer prompts."""
NOT_TRIED = "not tried"
_WORDS = {Outcome.PASS: "passed", Outcome.FAIL: "failed"}


def check_screen(check: SizeCheck) -> RenderableType:
    """The verdict at one length and its evidence."""
    return output.prose(*_check(check))


def say_outcome(check: SizeCheck) -> str:
    """``passed``, ``failed``, ``inconclusive``, or that the length was not tried."""
    tried = check.trials or check.cause not in _NO_FAILURE
    return str(_WORDS.get(check.outcome, check.outcome)) if tried else NOT_TRIED


def _check(check: SizeCheck) -> Iterator[str]:
    found = say_outcome(check)
    tried = found != NOT_TRIED
    yield f"{check.model.key} at {check.length_tokens:,} tokens: {found}"
    if check.cause is not None:
        sentence = _AT_ONE_LENGTH.get(check.cause) or CAUSE_SENTENCES[check.cause]
        said = f". {sentence}" if tried else ""
        yield f"cause: {say_cause(check.cause)}{said}"
    if check.trials:
        low, high = check.wilson.low, check.wilson.high
        short = check.baseline
        yield (
            f"{check.passes} of {check.trials} correct"
            f" (95% interval {100 * low:.0f} to {say_percent(high)});"
            f" at {short.length_tokens:,} tokens: {short.passes} of {short.trials}"
        )
    for level in check.levels:
        if level.name != check.method.validator:
            found = _at(level, check.length_tokens)
            yield f"{level.name}: {_WORDS.get(found, found)}"
    if check.tokens_per_second is not None:
        yield f"speed: {check.tokens_per_second:.1f} tokens per second"
    yield from (f"note: {note}" for note in check.notes)
    cost = check.cost
    yield (
        f"cost: {say_count(cost.loads, 'load')}, {cost.prompt_tokens:,} prompt tokens,"
        f" {say_seconds(cost.seconds)}"
    )
    yield "Nothing was stored: one length alone is not a true context."


def _at(level: LevelReport, length: int) -> Outcome:
    _, failed = level.bracket
    if failed is not None and failed <= length:
        return Outcome.FAIL
    return Outcome.PASS if (level.limit_tokens or 0) >= length else Outcome.INCONCLUSIVE
