"""Causes and regions in words: the same in a terminal, a page, Markdown and a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from lmstrix.models import UNFINISHED, Cause, ContextReport, Region, RegionReport
from lmstrix.reports.quantities import say_tokens

__all__ = [
    "CAUSE_SENTENCES",
    "REGION_HEAD",
    "REGION_NAMES",
    "region_rows",
    "say_cause",
    "say_regions",
    "say_why",
]

CAUSE_SENTENCES = {
    Cause.DECLARED_MAXIMUM: (
        "Nothing failed up to the declared context. Longer prompts were not tried."
    ),
    Cause.MAX_CONTEXT: (
        "Nothing failed up to the largest context you asked to try; more may work."
    ),
    Cause.NOTHING_FAILED: (
        "Nothing failed in the text that was read, so the limit is at least that long."
    ),
    Cause.LOAD_REFUSED: (
        "The engine's memory guard refused to load a larger context before trying it."
    ),
    Cause.LOAD_FAILED: "The engine could not load a larger context.",
    Cause.LOAD_HUNG: (
        "A load of a larger context made no progress, although the server answered other calls."
    ),
    Cause.CLAMPED: "The engine loaded a smaller context than it was asked for.",
    Cause.CRASHED_ON_FILL: (
        "A larger context loads, but the engine crashes once the window is filled."
    ),
    Cause.OVERFLOW: "The engine says that a longer prompt does not fit, although it loaded it.",
    Cause.TRUNCATED: "The server dropped part of the prompt without saying so.",
    Cause.GIBBERISH: "With a longer prompt the model answers gibberish.",
    Cause.FORGETS: "With a longer prompt the model forgets part of it: its answers are wrong.",
    Cause.TOO_SLOW: "A longer prompt takes longer than the limit that was set.",
    Cause.NOT_MEASURABLE: (
        "The model cannot do the task even with a short prompt, so this validator cannot"
        " measure it. That says nothing about its context."
    ),
    Cause.INVALID_MODEL: "The model's file is truncated, corrupt, or not a model.",
    Cause.UNSUPPORTED_MODEL: "The model cannot be asked questions; it may be an embedding model.",
    Cause.MODEL_NOT_FOUND: "There is no such model.",
    Cause.BUDGET_SPENT: (
        "The budget was spent before the search ended. The numbers are the results so far."
    ),
    Cause.INTERRUPTED: "The measurement was interrupted. The numbers are the results so far.",
    Cause.INFRASTRUCTURE: (
        "The engine was away or stopped answering. That says nothing about the model."
    ),
    Cause.INCONCLUSIVE: "Too many replies could be judged neither right nor wrong.",
}
"""One sentence or two for each `Cause`, for people who have not read the documentation."""

REGION_NAMES = {
    Region.HEAD: ("the start", "the first tenth"),
    Region.EARLY: ("the early part", "the early part"),
    Region.MIDDLE: ("the middle", "the middle"),
    Region.LATE: ("the late part", "the late part"),
    Region.TAIL: ("the end", "the last tenth"),
}
"""What people call a region: in a headline, and in a statement about it."""

REGION_HEAD = ("region", "part of the window", "works up to", "fails from", "cause")
"""The columns of `region_rows`."""

_HEADLINES = {
    Cause.FORGETS: "forgets",
    Cause.GIBBERISH: "answers gibberish about",
    Cause.TRUNCATED: "the server drops",
}
"""The causes by which a region can be lost while the engine itself works."""

_AVERAGE = "averaged over the window: a lost region may hide in it."


def say_cause(cause: Cause) -> str:
    """The name of a cause, with blanks."""
    return cause.replace("_", " ")


def say_why(report: ContextReport) -> str:
    """Why the true context is not larger, in a sentence or two."""
    high = report.bracket[1]
    if report.cause is Cause.LOAD_HUNG and high is not None:
        return (
            f"A load of {high:,} tokens made no progress, although the server answered other calls."
        )
    return CAUSE_SENTENCES[report.cause]


def say_regions(report: ContextReport) -> str:
    """Which parts of the window are lost, from which length on, and how far the others work.

    An empty string if the questions were about no one place.
    """
    if report.method.average:
        return _AVERAGE
    if not report.regions:
        return ""
    lost = [one for one in report.regions if _is_lost(one)]
    so_far = " so far" if report.cause in UNFINISHED else ""
    if not lost:
        return f"{_say_kept(report.regions, 0, everything='every part of the window')}{so_far}."
    if len(lost) == len(report.regions) and _alike(lost):
        return _say_alike(lost)
    lost.sort(key=_failure)
    groups = [list(same) for _, same in groupby(lost, key=lambda one: (_failure(one), one.cause))]
    first = groups[0]
    text = f"{_HEADLINES[first[0].cause]} {_list(REGION_NAMES[one.region][0] for one in first)}"
    text += " first: " if len(groups) > 1 else ": "
    text += ", ".join(_say_lost(group) for group in groups)
    kept = [one for one in report.regions if not _is_lost(one)]
    if kept:
        text += f"; {_say_kept(kept, _failure(first[0]), everything='the rest')}{so_far}"
    return f"{text}."


def region_rows(report: ContextReport) -> list[tuple[str, ...]]:
    """One row for each region, with the cells that `REGION_HEAD` names."""
    return [
        (
            str(one.region),
            "{:.0f} to {:.0f} %".format(*(100 * end for end in one.region.span)),
            say_tokens(one.limit_tokens, unknown="-"),
            say_tokens(one.bracket[1], unknown="-"),
            say_cause(one.cause),
        )
        for one in report.regions
    ]


def _is_lost(one: RegionReport) -> bool:
    return one.bracket[1] is not None and one.cause in _HEADLINES


def _failure(one: RegionReport) -> int:
    """The smallest length at which a region failed."""
    return one.bracket[1] or 0


def _alike(lost: Sequence[RegionReport]) -> bool:
    """Whether no region passed at a length at which another one failed, for the same cause."""
    passed = max(one.limit_tokens or 0 for one in lost)
    return passed < min(map(_failure, lost)) and len({one.cause for one in lost}) == 1


def _say_alike(lost: Sequence[RegionReport]) -> str:
    where = f"everywhere alike from {min(map(_failure, lost)):,} tokens on."
    match lost[0].cause:
        case Cause.FORGETS:
            return f"forgets {where}"
        case Cause.GIBBERISH:
            return f"answers gibberish {where}"
        case _:
            return f"the server drops text {where}"


def _say_lost(group: Sequence[RegionReport]) -> str:
    names = _list(REGION_NAMES[one.region][1] for one in group)
    are = "is" if len(group) == 1 else "are"
    after = f"from {_failure(group[0]):,} tokens on"
    match group[0].cause:
        case Cause.FORGETS:
            return f"{names} {are} lost {after}"
        case Cause.GIBBERISH:
            return f"answers about {names} are gibberish {after}"
        case _:
            return f"{names} {are} dropped {after}"


def _say_kept(kept: Sequence[RegionReport], lost_from: int, *, everything: str) -> str:
    """How far regions work that never failed. They may not have been asked about at `lost_from`,
    the length at which another region was lost.
    """
    works = [one for one in kept if (one.limit_tokens or 0) >= max(lost_from, 1)]
    short = [one for one in kept if one not in works and one.limit_tokens]
    never = [one for one in kept if not one.limit_tokens]
    words: list[str] = []
    for group in (works, short, never):
        if not group:
            continue
        names = everything
        if len(group) < len(kept):
            names = _list(REGION_NAMES[one.region][1] for one in group)
        many = len(group) > 1 and names != everything
        limit = min(one.limit_tokens or 0 for one in group)
        if group is works:
            words.append(f"{names} still work{'' if many else 's'} at {limit:,}")
        elif group is short:
            words.append(f"{names} {'were' if many else 'was'} not asked about beyond {limit:,}")
        else:
            words.append(f"{names} {'were' if many else 'was'} not asked about")
    return ", ".join(words)


def _list(names: Iterable[str]) -> str:
    """Names with commas and an "and"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
