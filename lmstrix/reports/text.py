"""A `ContextReport` as plain text: what a terminal shows and a bug report quotes."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator

from lmstrix.models import UNFINISHED, ContextReport, CurvePoint, LevelReport, Usable, Verdict
from lmstrix.reports.causes import CAUSE_SENTENCES
from lmstrix.reports.escaping import escape_controls
from lmstrix.reports.quantities import say_bytes, say_seconds, say_tokens
from lmstrix.reports.table import curve_table

__all__ = ["render_text", "repeat_command"]

NO_LEVELS = "none"
"""The word for measuring nothing but the validator's own questions."""

NARROWEST = 40
"""Columns below which nothing readable fits; a smaller width is taken as this."""


def render_text(report: ContextReport, *, width: int = 80) -> str:
    """The whole report in at most `width` columns where words can be broken, without a final
    newline. Untrusted text in it is escaped; commands are never broken.
    """
    width = max(width, NARROWEST)
    blocks = (
        [_model_line(report)],
        list(_numbers(report)),
        list(_evidence(report, width)),
        curve_table(report.curve, width) if report.curve else [],
        list(_levels(report)),
        list(_remarks(report, width)),
        list(_provenance(report, width)),
    )
    return "\n\n".join("\n".join(block) for block in blocks if block)


def repeat_command(report: ContextReport) -> str:
    """The command line that asks the same questions again, quoted for a POSIX shell."""
    method, environment = report.method, report.environment
    words = ["lmstrix"]
    if environment.adapter:
        words += ["--adapter", environment.adapter]
    words += ["test", "--fresh", "--seed", str(method.seed)]
    words += ["--strategy", method.strategy, "--validator", method.validator]
    words += ["--tolerance", f"{method.tolerance:.6g}", "--ratio", f"{method.ratio:.6g}"]
    if method.absolute:
        words.append("--absolute")
    words += ["--levels", ",".join(method.levels) or NO_LEVELS]
    if method.max_context is not None:
        words += ["--max-context", str(method.max_context)]
    if report.model.key.startswith("-"):
        words.append("--")
    words.append(report.model.key)
    return escape_controls(shlex.join(words))


def _model_line(report: ContextReport) -> str:
    model = report.model
    facts = (
        model.format,
        model.architecture,
        model.parameters,
        model.quantization,
        say_bytes(model.size_bytes),
    )
    described = ", ".join(fact for fact in facts if fact)
    return escape_controls(f"{model.key} ({described})" if described else model.key)


def _numbers(report: ContextReport) -> Iterator[str]:
    unfinished = report.cause in UNFINISHED and report.true_context
    true_words = "works so far" if unfinished else "the largest filled context at which it works"
    loadable = report.loadable_context
    asked = {report.method.max_context, report.declared_context}
    censored = loadable is not None and loadable in asked
    load_words = "loads; no more was tried" if censored else "the largest context the engine loads"
    rows = (
        ("declared", report.declared_context, "unknown", "what the model's metadata claims"),
        ("loadable", loadable, "unknown", load_words),
        ("true", report.true_context, "unknown", true_words),
    )
    if report.usable is not None:
        limit = report.usable.limit_tokens
        rows = (*rows, ("usable", limit or 0, "", _wishes(report.usable)))
    labels = [f"{word} {say_tokens(tokens, unknown=none)}" for word, tokens, none, _ in rows]
    widest = max(len(label) for label in labels)
    for label, (*_, words) in zip(labels, rows, strict=True):
        yield f"{label.ljust(widest)}   {words}"


def _wishes(usable: Usable) -> str:
    speed, wait = usable.min_tokens_per_second, usable.max_ttft_s
    words = [
        *([f"at least {speed:g} tokens a second"] if speed is not None else []),
        *([f"the first token within {wait:g} s"] if wait is not None else []),
    ]
    return "with " + " and ".join(words)


def _evidence(report: ContextReport, width: int) -> Iterator[str]:
    cause = report.cause
    yield from _wrap(f"cause: {cause}. {CAUSE_SENTENCES[cause]}", width)
    if report.true_context is None:
        return
    yield from _wrap(_certified(report), width)
    yield from _wrap(_bracket(report), width)
    baseline = report.baseline
    if baseline.trials:
        yield from _wrap(
            f"baseline: {baseline.passes} of {baseline.trials} right at"
            f" {baseline.length_tokens} tokens; a length passes with"
            f" {report.method.ratio:.0%}{'' if report.method.absolute else ' of that rate'}.",
            width,
        )


def _levels(report: ContextReport) -> Iterator[str]:
    """One line for each kind of use: how far it reaches, and why no further."""
    if not report.levels:
        return
    yield "levels"
    rows = [
        (level.name, _reach(level), str(level.cause).replace("_", " ")) for level in report.levels
    ]
    names = max(len(name) for name, _, _ in rows)
    limits = max(len(limit) for _, limit, _ in rows)
    for name, limit, why in rows:
        yield escape_controls(f"  {name.ljust(names)}  {limit.rjust(limits)}  {why}")


def _reach(level: LevelReport) -> str:
    if level.limit_tokens is None:
        return "unknown"
    low, high = level.bracket
    return f"at least {low}" if high is None else f"{low}"


def _certified(report: ContextReport) -> str:
    if report.certified:
        return "certified: yes, by a fresh load and fresh documents at that length."
    return "certified: no, it was not confirmed by a fresh load and fresh documents."


def _bracket(report: ContextReport) -> str:
    low, high = report.bracket
    works = f"{low} works" if low else "no length is known to work"
    fails = "none was seen to fail" if high is None else f"{high} does not"
    text = f"bracket: {works}, {fails}."
    interval = report.interval
    if interval.level > 0:
        upper = "more" if interval.high is None else str(interval.high)
        text += f" {interval.level:.0%} interval: {interval.low} to {upper}."
        if report.estimate is not None and report.bracket[1] is not None:
            text += f" Best guess: {report.estimate}."
    return text


def _remarks(report: ContextReport, width: int) -> Iterator[str]:
    if not report.monotone:
        yield from _wrap(
            "not monotone: a length failed below a longer one that passed. See the table.", width
        )
    for point in report.curve:
        if point.verdict is Verdict.FAIL:
            yield from _depths(point, width)
        if point.inconclusive:
            replies = "reply" if point.inconclusive == 1 else "replies"
            yield from _wrap(
                f"at {point.length_tokens}: {point.inconclusive} {replies} could be judged"
                " neither way and count neither way.",
                width,
            )
    for note in report.notes:
        yield from _wrap(f"note: {note}", width)


def _depths(point: CurvePoint, width: int) -> Iterator[str]:
    weak = [d for d in point.depths if d.passes < d.trials]
    if weak:
        listed = ", ".join(f"{d.region} {d.passes} of {d.trials}" for d in weak)
        yield from _wrap(
            f"forgets at {point.length_tokens}, right answers by depth: {listed}.", width
        )


def _provenance(report: ContextReport, width: int) -> Iterator[str]:
    cost, environment = report.cost, report.environment
    if cost.loads or cost.prompt_tokens or cost.cached_tokens:
        yield from _wrap(
            f"cost: {cost.loads} {'load' if cost.loads == 1 else 'loads'},"
            f" {cost.prompt_tokens} prompt tokens read, {cost.cached_tokens} reused from cache,"
            f" {cost.generated_tokens} generated, {say_seconds(cost.seconds)}.",
            width,
        )
    versions = ", ".join(f"{name} {version}" for name, version in environment.versions.items())
    where = ", ".join(part for part in (environment.engine, versions) if part)
    if where:
        yield from _wrap(f"engine: {where}", width)
    finished = report.finished_at.isoformat(sep=" ", timespec="seconds")
    yield from _wrap(f"finished: {finished}", width)
    yield f"repeat: {repeat_command(report)}"


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        escape_controls(text), width, subsequent_indent="  ", break_on_hyphens=False
    )
