"""What a report says, sentence by sentence: the same words in a terminal, a page and Markdown.

Nothing is escaped here; names of models and engines in these texts are still untrusted.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from lmstrix.models import (
    UNFINISHED,
    Cause,
    ContextReport,
    CurvePoint,
    LevelReport,
    Usable,
    Verdict,
)
from lmstrix.reports.quantities import say_bytes, say_percent, say_seconds, say_tokens

_LOADS = frozenset({Cause.LOAD_REFUSED, Cause.LOAD_FAILED, Cause.LOAD_HUNG})

__all__ = [
    "Number",
    "say_baseline",
    "say_bracket",
    "say_certified",
    "say_cost",
    "say_engine",
    "say_interval",
    "say_model_facts",
    "say_numbers",
    "say_reach",
    "say_remarks",
]


@attrs.frozen
class Number:
    """One of the three numbers, or the usable context: its name, value and meaning."""

    name: str
    tokens: int | None
    value: str
    meaning: str


def say_numbers(report: ContextReport) -> tuple[Number, ...]:
    """Declared, loadable and true context; and the usable one where that was asked for."""
    unfinished = report.cause in UNFINISHED and report.true_context
    true_words = "works so far" if unfinished else "the largest filled context at which it works"
    loadable = report.loadable_context
    asked = {report.method.max_context, report.declared_context}
    censored = loadable is not None and loadable in asked
    load_words = "loads; no more was tried" if censored else "the largest context the engine loads"
    rows = [
        ("declared", report.declared_context, "what the model's metadata claims"),
        ("loadable", loadable, load_words),
        ("true", report.true_context, true_words),
    ]
    if report.usable is not None:
        rows.append(("usable", report.usable.limit_tokens or 0, _wishes(report.usable)))
    return tuple(Number(name, tokens, say_tokens(tokens), words) for name, tokens, words in rows)


def _wishes(usable: Usable) -> str:
    speed, wait = usable.min_tokens_per_second, usable.max_ttft_s
    words = [
        *([f"at least {speed:g} tokens a second"] if speed is not None else []),
        *([f"the first token within {wait:g} s"] if wait is not None else []),
    ]
    return "with " + " and ".join(words)


def say_model_facts(report: ContextReport) -> str:
    """Format, architecture, size, as far as they are known, with commas."""
    model = report.model
    facts = (
        model.format,
        model.architecture,
        model.parameters,
        model.quantization,
        say_bytes(model.size_bytes),
    )
    return ", ".join(fact for fact in facts if fact)


def say_certified(report: ContextReport) -> str:
    """Whether the answer held on a fresh load."""
    if report.certified:
        return "certified: yes, by a fresh load and fresh documents at that length."
    return "certified: no, it was not confirmed by a fresh load and fresh documents."


def say_bracket(report: ContextReport) -> str:
    """What works, what does not, and how sure that is."""
    low, high = report.bracket
    works = f"{low} works" if low else "no length is known to work"
    fails = _open_end(report) if high is None else f"{high} {_how_it_fails(report, high)}"
    text = f"bracket: {works}, {fails}."
    interval = report.interval
    if interval.level > 0:
        text += f" {say_percent(interval.level)} interval: {say_interval(report)}."
        if report.estimate is not None and report.bracket[1] is not None:
            text += f" Best guess: {report.estimate}."
    return text


def say_interval(report: ContextReport) -> str:
    """Where the limit lies, as far as that can be said: no more was tried than what loads."""
    low, high = report.interval.low, report.interval.high
    if high is not None:
        return f"{low} to {high}"
    loaded = report.loadable_context
    return f"at least {low}" if loaded is None or loaded <= low else f"{low} to more than {loaded}"


def _how_it_fails(report: ContextReport, high: int) -> str:
    """A size beyond the loadable context was never filled: loading it is what failed."""
    loaded = report.loadable_context
    if high in {point.length_tokens for point in report.curve} or (loaded and high <= loaded):
        return "does not"
    if report.cause is Cause.CLAMPED:
        return "loads smaller than asked"
    known = loaded is not None or report.cause in _LOADS
    return "does not load" if known else "does not"


def _open_end(report: ContextReport) -> str:
    """What is known of longer prompts where no length is known to fail."""
    longer = [point for point in report.curve if point.length_tokens > report.bracket[0]]
    if any(point.passes < point.trials for point in longer):
        return "above that nothing is settled"
    return "none was seen to fail"


def say_baseline(report: ContextReport) -> str:
    """What counts as a pass; an empty string where nothing was asked."""
    baseline = report.baseline
    if not baseline.trials:
        return ""
    method = report.method
    where = " in every region" if report.regions else ""
    where = " on average over the window" if method.average else where
    return (
        f"baseline: {baseline.passes} of {baseline.trials} correct at {baseline.length_tokens}"
        f" tokens; a length passes with {say_percent(method.ratio)}"
        f"{'' if method.absolute else ' of that rate'}{where}."
    )


def say_reach(level: LevelReport) -> str:
    """How far a level reaches; a limit that nothing contradicted is a lower one."""
    if level.limit_tokens is None:
        return "unknown"
    low, high = level.bracket
    return f"at least {low}" if high is None else f"{low}"


def say_remarks(report: ContextReport) -> Iterator[str]:
    """What a reader should know beside the numbers."""
    if not report.monotone:
        yield "not monotone: a length failed below a longer one that passed. See the table."
    for point in report.curve:
        if point.verdict is Verdict.FAIL:
            yield from _depths(point)
        if point.inconclusive:
            replies = "reply" if point.inconclusive == 1 else "replies"
            yield (
                f"at {point.length_tokens}: {point.inconclusive} {replies} could be judged"
                " neither way and count neither way."
            )
    for note in report.notes:
        yield f"note: {note}"


def _depths(point: CurvePoint) -> Iterator[str]:
    weak = [d for d in point.depths if d.passes < d.trials]
    if weak:
        listed = ", ".join(f"{d.region} {d.passes} of {d.trials}" for d in weak)
        how = str(point.failure or Cause.FORGETS).replace("_", " ")
        yield f"{how} at {point.length_tokens}, right answers by depth: {listed}."


def say_cost(report: ContextReport) -> str:
    """What the measurement cost; an empty string where it did nothing."""
    cost = report.cost
    if not (cost.loads or cost.prompt_tokens or cost.cached_tokens):
        return ""
    return (
        f"cost: {cost.loads} {'load' if cost.loads == 1 else 'loads'},"
        f" {cost.prompt_tokens} prompt tokens read, {cost.cached_tokens} reused from cache,"
        f" {cost.generated_tokens} generated, {say_seconds(cost.seconds)}."
    )


def say_engine(report: ContextReport) -> str:
    """The engine and the versions of what took part; an empty string where it is not known."""
    environment = report.environment
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    return ", ".join(part for part in (environment.engine, versions) if part)
