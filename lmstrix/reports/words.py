"""The words of reports, the same in text, Markdown, HTML and notebooks.

Only `escape_controls` and the commands escape anything. Names of models, engines and levels in the
other texts are still untrusted.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby, takewhile

import attrs

from lmstrix.json_values import as_list, as_text
from lmstrix.models import (
    RESUMABLE,
    UNDECLARED_CONTEXT,
    UNFINISHED,
    Cause,
    ContextMap,
    ContextReport,
    CurvePoint,
    Layer,
    LevelReport,
    Region,
    RegionReport,
    Usable,
    Verdict,
)
from lmstrix.serialize import to_json

# Untrusted text

REPLY_KEEPS = "\n\t\u200c\u200d"
r"""Characters that stay in a model's reply: line breaks, tabs, and the joiners of Persian, Hindi
and many emoji. Carriage returns do not, because they overwrite a line."""

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that steer a terminal: controls, formats (such as the marks that reverse the
reading direction), lone surrogates, line and paragraph separators."""


def escape_controls(text: str, *, keep: str = "") -> str:
    r"""`text` with every character that could steer a terminal written as ``\xNN`` or ``\uNNNN``.

    Characters in `keep` stay. Each character is escaped by itself, so a text may be escaped in
    pieces.

    >>> escape_controls("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if char in keep or unicodedata.category(char) not in _UNSAFE else _escape(char)
        for char in text
    )


def _escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


# Quantities


def say_bytes(size_bytes: int) -> str:
    """Decimal units, as LM Studio and the model hubs show them; an empty string for none.

    >>> say_bytes(98_000_000)
    '98.0 MB'
    """
    if size_bytes <= 0:
        return ""
    size = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def say_count(count: int, noun: str) -> str:
    """A number of things whose plural takes an s.

    >>> say_count(1, "report"), say_count(0, "report")
    ('1 report', '0 reports')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def say_moment(moment: datetime) -> str:
    """A moment to the second, with its UTC offset, or "UTC" if that is its zone.

    >>> from datetime import UTC
    >>> say_moment(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02 03:04:05 UTC'
    """
    text = moment.isoformat(sep=" ", timespec="seconds")
    local = text.removesuffix("+00:00")
    return text if local == text else f"{local} UTC"


def say_percent(share: float) -> str:
    """A share of one in whole percent.

    >>> say_percent(0.85)
    '85%'
    """
    return f"{100 * share:.0f}%"


def say_seconds(seconds: float) -> str:
    """A duration in the units that suit its size.

    >>> say_seconds(0.1234), say_seconds(66.5), say_seconds(3750)
    ('0.12 s', '1 min 06 s', '1 h 02 min')
    """
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours < 48 else f"{hours // 24} days"


def say_wait(seconds: float | None) -> str:
    """A time in a column of times: always in seconds, so that they are easy to compare.

    >>> say_wait(0.1234), say_wait(3750), say_wait(None)
    ('0.12 s', '3750 s', '-')
    """
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def say_speed(tokens_per_second: float | None) -> str:
    """Tokens per second, in a column of speeds.

    >>> say_speed(38), say_speed(2345.6), say_speed(None)
    ('38.0', '2,346', '-')
    """
    if tokens_per_second is None:
        return "-"
    return f"{tokens_per_second:.1f}" if tokens_per_second < 1000 else f"{tokens_per_second:,.0f}"


def say_tokens(tokens: int | None, *, unknown: str = "unknown") -> str:
    """Digits in groups of three.

    >>> say_tokens(131072), say_tokens(None)
    ('131,072', 'unknown')
    """
    return unknown if tokens is None else f"{tokens:,}"


# Causes

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
        "A larger context was refused before it was loaded: it may not fit into memory."
    ),
    Cause.LOAD_FAILED: "The engine could not load a larger context.",
    Cause.LOAD_HUNG: (
        "A load of a larger context made no progress, although the server answered other calls."
    ),
    Cause.CLAMPED: "The engine loaded a smaller context than it was asked for.",
    Cause.CRASHED_ON_FILL: (
        "A larger context loads, but the engine crashes once the window is filled."
    ),
    Cause.OVERFLOW: (
        "The engine says that a longer prompt does not fit, although it loaded that context."
    ),
    Cause.TRUNCATED: "The server dropped part of the prompt without saying so.",
    Cause.GIBBERISH: "With a longer prompt the model answers gibberish or nothing.",
    Cause.FORGETS: "With a longer prompt the model forgets part of it: its answers are wrong.",
    Cause.TOO_SLOW: "A longer prompt takes longer than the limit that was set.",
    Cause.NOT_MEASURABLE: (
        "The model cannot do the task even with a short prompt, or loads too little for one."
        " That says nothing about longer prompts."
    ),
    Cause.INVALID_MODEL: "The model's file is truncated, corrupt, or not a model.",
    Cause.UNSUPPORTED_MODEL: "The model cannot be asked questions; it may be an embedding model.",
    Cause.MODEL_NOT_FOUND: "The model was not found.",
    Cause.MODEL_IN_USE: "You or another program have loaded the model. Measuring would replace it.",
    Cause.BUDGET_SPENT: (
        "The budget was spent before the search ended. The numbers are the results so far."
    ),
    Cause.INTERRUPTED: "The measurement was interrupted. The numbers are the results so far.",
    Cause.INFRASTRUCTURE: (
        "The engine was unreachable or stopped answering. That says nothing about the model."
    ),
    Cause.INCONCLUSIVE: "Too many replies could not be judged right or wrong.",
}
"""A sentence or two for each `Cause`, for people who have not read the documentation."""


def say_cause(cause: Cause) -> str:
    """The name of a cause, with blanks."""
    return cause.replace("_", " ")


_NEVER_LOADED = {
    Cause.LOAD_REFUSED: "It was refused at any size, before it was loaded.",
    Cause.LOAD_FAILED: "The engine could not load it at any size.",
    Cause.LOAD_HUNG: "Its loads made no progress, although the server answered other calls.",
}


def say_why(report: ContextReport) -> str:
    """Why the true context is not larger, in a sentence or two; empty if the summary says so."""
    why = _why(report)
    return "" if why in say_summary(report) else why


def _why(report: ContextReport) -> str:
    high = report.bracket[1]
    if report.loadable_context is None and report.cause in _NEVER_LOADED:
        return _NEVER_LOADED[report.cause]
    if report.cause is Cause.NOT_MEASURABLE and report.baseline.trials:
        return (
            "The model cannot do the task even with a short prompt. That says nothing about longer"
            " prompts. An instruction-tuned model, or another --validator, may do better."
        )
    if report.cause is Cause.LOAD_HUNG and high is not None:
        return (
            f"A load of {high:,} tokens made no progress, although the server answered other calls."
        )
    return CAUSE_SENTENCES[report.cause]


# The answer

_BEYOND = {
    Cause.DECLARED_MAXIMUM: "Nothing failed.",
    Cause.MAX_CONTEXT: "Longer prompts were not tried.",
    Cause.NOTHING_FAILED: "Longer prompts were not tried.",
    Cause.LOAD_REFUSED: "More was refused before it was loaded: it may not fit into memory.",
    Cause.LOAD_FAILED: "Beyond that the engine cannot load it.",
    Cause.LOAD_HUNG: "Beyond that, loading hangs.",
    Cause.CLAMPED: "The engine loads no more than that.",
    Cause.CRASHED_ON_FILL: "Beyond that the engine crashes.",
    Cause.OVERFLOW: "Beyond that the engine says that the prompt does not fit.",
    Cause.TRUNCATED: "Beyond that the server drops part of the prompt.",
    Cause.GIBBERISH: "Beyond that it answers gibberish or nothing.",
    Cause.TOO_SLOW: "Beyond that a reply takes too long.",
    Cause.BUDGET_SPENT: "The budget was spent before the search ended.",
    Cause.INTERRUPTED: "The measurement was interrupted.",
    Cause.INFRASTRUCTURE: "The engine was unreachable or stopped answering.",
}
"""The sentence after the true context. Other causes have sentences of their own."""
_AT_LEAST = {Cause.MAX_CONTEXT, Cause.NOTHING_FAILED, *UNFINISHED}


def say_summary(report: ContextReport) -> str:
    """The answer, then the reason why it is not larger: the beginning of every form of a report."""
    declared, true = report.declared_context, report.true_context
    claims = "Declares no context length" if declared is None else f"Claims {declared:,} tokens"
    if true is None or report.cause is Cause.NOT_MEASURABLE:
        known = "" if declared is None else f"{claims}; "
        return f"{known}{'not' if known else 'Not'} measured. {_why(report)}"
    if not true:
        return f"{claims}; not reliable at any length. {_why(report)}"
    least = report.cause in _AT_LEAST
    if (correct := _correct_so_far(report)) > true:
        known = f"no settled result yet; all answers were correct up to {correct:,}"
        return f"{claims}; {known}. {_BEYOND.get(report.cause) or _why(report)}"
    if _is_uneven(report):
        beyond = "Beyond that its answers are too uneven to tell."
    elif report.cause is Cause.FORGETS:
        beyond = f"Beyond that it forgets {_forgotten(report)}."
    else:
        beyond = _BEYOND.get(report.cause) or _why(report)
    return f"{claims}; reliable {'to at least' if least else 'up to'} {true:,}. {beyond}"


def _is_uneven(report: ContextReport) -> bool:
    """Whether only the unevenness of the answers stands against a certificate."""
    whole = report.measured and not (report.certified or report.method.quick)
    return whole and report.vague


def _correct_so_far(report: ContextReport) -> int:
    """How far all answers were correct, if the search ended before more than the baseline's length
    was settled; else 0.
    """
    floor = report.baseline.length_tokens
    if report.cause not in UNFINISHED or (report.true_context or 0) > floor:
        return 0
    points = sorted(report.curve, key=lambda point: point.length_tokens)
    clean = takewhile(lambda p: p.passes == p.trials and p.failure is None, points)
    return max((p.length_tokens for p in clean if p.trials), default=0)


def _forgotten(report: ContextReport) -> str:
    groups = [] if report.method.average else _lost(report)
    if not groups or groups[0][0].cause is not Cause.FORGETS:
        return "part of the prompt"
    if _alike(report, groups) or len(groups[0]) == len(report.regions):
        return "facts anywhere in the prompt"
    return f"{_list(f'the {_PARTS[one.region]}' for one in groups[0])} of the prompt"


def say_true(report: ContextReport, unknown: str = "not known") -> str:
    """The true context; "at least" if longer prompts may work and were not tried."""
    least = report.true_context and report.cause in {Cause.MAX_CONTEXT, *UNFINISHED}
    return f"{'at least ' if least else ''}{say_tokens(report.true_context, unknown=unknown)}"


def say_next(report: ContextReport, options: Sequence[str] = ()) -> str:
    """The next step for the user; empty without a true context. See `apply_command`."""
    command = next_command(report, options)
    return f"To use {say_tokens(report.true_context)} tokens: {command}" if command else ""


def next_command(report: ContextReport, options: Sequence[str] = ()) -> str:
    """The command that puts the true context to use, for a POSIX shell; empty if there is none."""
    if not report.measured or not report.true_context:
        return ""
    # Without it, `apply` takes an older result with a larger number.
    behind = report.cause is Cause.MAX_CONTEXT or report.method.quick
    cap = report.true_context if behind else None
    return apply_command(report.model.key, report.environment.adapter, options, cap=cap)


_APPLIED_FOR = {"llamacpp": "llama-server", "llama-server": "llama-server", "ollama": "ollama"}
"""By adapter: the program that ``apply`` prints the setting for. LM Studio's is written."""


def apply_command(
    model_key: str, adapter: str, options: Sequence[str] = (), *, cap: int | None = None
) -> str:
    """``lmstrix apply MODEL``; empty for a server whose settings are not known. Of the `options`
    of another command it needs ``--store``.
    """
    if adapter == "openai":
        return ""
    at = options.index("--store") if "--store" in options else len(options)
    words = ["lmstrix", *options[at : at + 2], "apply"]
    if adapter in _APPLIED_FOR:
        words += ["--for", _APPLIED_FOR[adapter]]
    words += [] if cap is None else ["--cap", str(cap)]
    words += [*(["--"] if model_key.startswith("-") else []), model_key]
    return escape_controls(shlex.join(words))


def dump_report(report: ContextReport) -> str:
    """One line of JSON: the keys and units that ``docs/json.md`` describes."""
    return to_json(report, summary=say_summary(report))


# Regions of the window

REGION_NAMES = {
    Region.HEAD: ("the start", "the first tenth"),
    Region.EARLY: ("the early part", "the early part"),
    Region.MIDDLE: ("the middle", "the middle"),
    Region.LATE: ("the late part", "the late part"),
    Region.TAIL: ("the end", "the last tenth"),
}
"""Plain names of a region: in a headline, and in a statement about it."""

_PARTS = {
    Region.HEAD: "beginning",
    Region.EARLY: "early part",
    Region.MIDDLE: "middle",
    Region.LATE: "late part",
    Region.TAIL: "end",
}
"""Names of a region in the summary."""

REGION_HEAD = ("region", "part of the window", "works up to", "fails at", "cause")
"""The columns of `region_rows`."""

_HEADLINES = {
    Cause.FORGETS: "forgets",
    Cause.GIBBERISH: "answers gibberish or nothing about",
    Cause.TRUNCATED: "the server drops",
}
"""The causes by which a region can be lost while the engine itself works."""

_AVERAGE = "averaged over the window: this can hide a lost region."


def say_regions(report: ContextReport) -> str:
    """Which parts of the window are lost, from which length on, and how far the others work.

    An empty string if the questions were not about places in the window.
    """
    text = _region_words(report)
    return text[:1].upper() + text[1:]


def _region_words(report: ContextReport) -> str:
    if report.true_context is None:
        return ""
    if report.method.average:
        return _AVERAGE
    if not report.regions:
        return ""
    groups = _lost(report)
    so_far = " so far" if report.cause in UNFINISHED else ""
    if not groups:
        return f"{_say_kept(report, report.regions, 0, 'every part of the window')}{so_far}."
    if _alike(report, groups):
        return _say_alike(groups[0])
    text = _headline(groups[0]) + (" first: " if len(groups) > 1 else ": ")
    text += ", ".join(_say_lost(group) for group in groups)
    kept = [one for one in report.regions if not _is_lost(one)]
    if kept:
        words = _say_kept(report, kept, _failure(groups[0][0]), "the rest")
        text += f"; {words}{'' if 'no verdict yet' in words else so_far}"
    return f"{text}."


def region_rows(report: ContextReport) -> list[tuple[str, ...]]:
    """One row for each region, or a single one if all are alike, with the cells that
    `REGION_HEAD` names.
    """
    rows = [
        (
            str(one.region),
            "{:.0f} to {:.0f}%".format(*(100 * end for end in one.region.span)),
            say_tokens(one.limit_tokens, unknown="-"),
            say_tokens(one.bracket[1], unknown="-"),
            "undecided" if _is_doubtful(report, one) else say_cause(one.cause),
        )
        for one in report.regions
    ]
    if len(rows) == len(Region) and len({row[2:] for row in rows}) == 1:
        return [("all", "0 to 100%", *rows[0][2:])]
    return rows


def say_limit(report: ContextReport) -> str:
    """The cause in a few words, with the part of the window it affects: "forgets the start"."""
    groups = [] if report.method.average else _lost(report)
    if not groups or groups[0][0].cause is not report.cause:
        return say_cause(report.cause)
    if _alike(report, groups):
        where = "" if report.cause is Cause.GIBBERISH else " everywhere"
        return f"{say_cause(report.cause)}{where}"
    return _headline(groups[0])


def _headline(group: Sequence[RegionReport]) -> str:
    return f"{_HEADLINES[group[0].cause]} {_list(REGION_NAMES[one.region][0] for one in group)}"


def _lost(report: ContextReport) -> list[list[RegionReport]]:
    """The regions that failed while the engine worked, grouped by the length at which they failed
    and by cause, the smallest length first.
    """

    def order(one: RegionReport) -> tuple[int, Cause]:
        return _failure(one), one.cause

    lost = sorted((one for one in report.regions if _is_lost(one)), key=order)
    return [list(group) for _, group in groupby(lost, key=order)]


def _is_lost(one: RegionReport) -> bool:
    return one.bracket[1] is not None and one.cause in _HEADLINES


def _is_doubtful(report: ContextReport, one: RegionReport) -> bool:
    """Whether a region failed on some texts only, or its answers beyond its limit do not decide."""
    if one.bracket[1] is not None:
        return False
    beyond = [p for p in report.curve if p.length_tokens > (one.limit_tokens or 0)]
    asked = any(t.region is one.region and t.trials for p in beyond for t in p.depths)
    return asked or one.cause in _HEADLINES


def _failure(one: RegionReport) -> int:
    """The smallest length at which a region failed."""
    return one.bracket[1] or 0


def _alike(report: ContextReport, groups: Sequence[Sequence[RegionReport]]) -> bool:
    """Whether every region is lost for one cause, and none passed at a length at which another
    failed. Gibberish at such a length is about no region, even if only one was asked about.
    """
    lost = [one for group in groups for one in group]
    passed = max(one.limit_tokens or 0 for one in report.regions)
    causes = {one.cause for one in lost}
    every = len(lost) == len(report.regions) or causes == {Cause.GIBBERISH}
    return every and len(causes) == 1 and passed < _failure(lost[0])


def _say_alike(lost: Sequence[RegionReport]) -> str:
    what = _HEADLINES[lost[0].cause].removesuffix(" about")
    text = " text" if lost[0].cause is Cause.TRUNCATED else ""
    where = "" if lost[0].cause is Cause.GIBBERISH else " everywhere"
    return f"{what}{text}{where} from {_failure(lost[0]):,} tokens on."


_NEAR = 1 / 8
"""A region is said to be lost from a length on if it worked so near below, as a part of it."""


def _say_lost(group: Sequence[RegionReport]) -> str:
    names = _list(REGION_NAMES[one.region][1] for one in group)
    are = "is" if len(group) == 1 else "are"
    failed = _failure(group[0])
    after = f"from {failed:,} tokens on"
    if min(one.limit_tokens or 0 for one in group) < failed * (1 - _NEAR):
        after = f"at {failed:,} tokens"  # it may begin far below that
    if group[0].cause is Cause.GIBBERISH:
        return f"answers about {names} are gibberish or missing {after}"
    return f"{names} {are} {'lost' if group[0].cause is Cause.FORGETS else 'dropped'} {after}"


def _say_kept(
    report: ContextReport, kept: Sequence[RegionReport], lost_from: int, everything: str
) -> str:
    """How far the regions that never failed work. At `lost_from`, the length at which another
    region was lost, there may have been no questions about them.
    """
    works = [one for one in kept if (one.limit_tokens or 0) >= max(lost_from, 1)]
    doubtful = [one for one in kept if one not in works and _is_doubtful(report, one)]
    short = [one for one in kept if one not in (*works, *doubtful) and one.limit_tokens]
    never = [one for one in kept if one not in doubtful and not one.limit_tokens]
    words: list[str] = []
    for group in (works, doubtful, short, never):
        if not group:
            continue
        names = everything
        if len(group) < len(kept):
            names = _list(REGION_NAMES[one.region][1] for one in group)
        many = len(group) > 1 and names != everything
        # What is said of a group has to be true of each.
        nearest = min if group is works else max
        limit = nearest(one.limit_tokens or 0 for one in group)
        if group is works:
            words.append(f"{names} still work{'' if many else 's'} at {limit:,}")
        elif group is doubtful and report.cause in UNFINISHED:
            words.append(f"there is no verdict yet on {names} beyond {limit:,}")
        elif group is doubtful:
            words.append(f"{names} {'are' if many else 'is'} undecided beyond {limit:,}")
        elif group is short:
            words.append(f"{names} {'were' if many else 'was'} not asked about beyond {limit:,}")
        else:
            words.append(f"{names} {'were' if many else 'was'} not asked about")
    return "; ".join(words)


def _list(names: Iterable[str]) -> str:
    """Names with commas and an "and"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


# The numbers and their evidence


@attrs.frozen
class Number:
    """One of the three numbers, or the usable context: its name, value and meaning."""

    name: str
    value: str
    meaning: str


def say_numbers(report: ContextReport) -> tuple[Number, ...]:
    """Declared, loadable and true context, and the usable one if it was asked for."""
    unfinished = report.cause in UNFINISHED and report.true_context
    true_words = "works so far" if unfinished else "the largest filled context at which it works"
    at_least = "at least " if unfinished else ""
    if unfinished and _correct_so_far(report):
        true_words = "no larger length has a verdict yet"
    if report.cause is Cause.MAX_CONTEXT and report.true_context:
        true_words, at_least = "longer prompts were not tried", "at least "
    rows = [
        Number(
            "declared", say_tokens(report.declared_context), "the claim of the model's metadata"
        ),
        _loadable(report),
        Number("true", at_least + say_tokens(report.true_context), true_words),
    ]
    if report.usable is not None:
        usable = say_tokens(report.usable.limit_tokens, unknown="none")
        rows.append(Number("usable", usable, _wishes(report.usable)))
    return tuple(rows)


LOAD_FAILURES = frozenset({Cause.LOAD_REFUSED, Cause.LOAD_FAILED, Cause.LOAD_HUNG})
LOADS_NOTHING = frozenset({"openai"})
"""Adapters of servers whose models are loaded already, and do not tell their context."""


def say_loadable(report: ContextReport) -> str:
    """The loadable context in a cell, as it is told with the other numbers."""
    return _loadable(report).value


def _loadable(report: ContextReport) -> Number:
    """The largest context that loads, or the largest that was tried."""
    loadable = report.loadable_context
    value, meaning = say_tokens(loadable), "the largest context that loads"
    if report.environment.adapter in LOADS_NOTHING:
        value, meaning = "-", "the server does not report it"
    elif loadable is None:
        if report.cause in LOAD_FAILURES:
            value, meaning = "none", "no size was loaded"
    elif loadable == report.declared_context:
        meaning = "all that it declares"
    elif loadable == report.method.max_context:
        value, meaning = f"at least {value}", "not tried further"
    elif report.cause is Cause.LOAD_REFUSED:
        meaning = "the largest context that was not refused"
    elif loadable == UNDECLARED_CONTEXT and report.declared_context is None:
        meaning = "loads; larger sizes were not tried"
    return Number("loadable", value, meaning)


def _wishes(usable: Usable) -> str:
    speed, wait = usable.min_tokens_per_second, usable.max_ttft_s
    words = [
        *([f"at least {speed:g} tokens/s"] if speed is not None else []),
        *([f"the first token within {wait:g} s"] if wait is not None else []),
    ]
    return "with " + " and ".join(words)


def base_name(key: str) -> str:
    """The file's name if `key` is the path of a GGUF file, else `key`."""
    return re.split(r"[/\\]", key)[-1] if key.lower().endswith(".gguf") else key


def say_model_facts(report: ContextReport) -> str:
    """Format, architecture and size, as far as they are known, with commas."""
    model = report.model
    facts = (
        model.format,
        model.architecture,
        model.parameters,
        model.quantization,
        say_bytes(model.size_bytes),
    )
    return ", ".join(fact for fact in facts if fact)


def say_evidence(report: ContextReport) -> list[str]:
    """Sentences that support the true context; none if there is no true context."""
    if report.true_context is None:
        return []
    certified = "yes, confirmed by" if report.certified else "no, not confirmed by"
    # That server loads nothing for us.
    fresh = "" if report.environment.adapter in LOADS_NOTHING else "a fresh load and "
    by = f"{certified} {fresh}fresh texts at that length"
    sentences = (
        f"certified: {'no, the answers are too uneven' if _is_uneven(report) else by}.",
        _say_bracket(report),
        _say_baseline(report),
    )
    return [sentence for sentence in sentences if sentence]


def _say_bracket(report: ContextReport) -> str:
    low, high = report.bracket
    works = f"{low:,} works" if low else "no length is known to work"
    fails = _open_end(report) if high is None else f"{high:,} {_how_it_fails(report, high)}"
    text = f"bracket: {works}, {fails}."
    if report.interval.level > 0:
        text += f" {say_percent(report.interval.level)} interval: {say_interval(report)}."
        if _helps(report.estimate, low, high):
            text += f" Best guess: {say_tokens(report.estimate)}."
    return text


def _helps(estimate: int | None, low: int, high: int | None) -> bool:
    """Whether a best guess adds to the bracket: it is between two ends that are far apart."""
    if estimate is None or high is None or not low < estimate < high:
        return False
    return high - low > low / 8


def _open_end(report: ContextReport) -> str:
    """The result for longer prompts if no length is known to fail."""
    longer = [point for point in report.curve if point.length_tokens > report.bracket[0]]
    if any(point.passes < point.trials for point in longer):
        return "longer prompts are undecided"
    return "no length is known to fail"


def _how_it_fails(report: ContextReport, high: int) -> str:
    """A size beyond the loadable context was never filled: it failed to load."""
    loaded = report.loadable_context
    if high in {point.length_tokens for point in report.curve} or (loaded and high <= loaded):
        return "does not"
    if report.cause is Cause.CLAMPED:
        return "loads smaller than asked"
    if report.cause is Cause.LOAD_REFUSED:
        return "was not loaded"
    return "does not" if loaded is None and report.cause not in LOAD_FAILURES else "does not load"


def say_interval(report: ContextReport) -> str:
    """The interval of the true context. Lengths beyond the loadable context were not tried."""
    low, high = report.interval.low, report.interval.high
    if high is not None:
        return f"{low:,} to {high:,}"
    loaded = report.loadable_context
    if loaded is None or loaded <= low:
        return f"at least {low:,}"
    return f"{low:,} to more than {loaded:,}"


def _say_baseline(report: ContextReport) -> str:
    """The rule for a pass; an empty string if nothing was asked."""
    baseline, method = report.baseline, report.method
    if not baseline.trials:
        return ""
    where = " in every region" if report.regions else ""
    where = " on average over the window" if method.average else where
    return (
        f"baseline: {baseline.passes} of {baseline.trials} correct at {baseline.length_tokens:,}"
        f" tokens; a length passes with {say_percent(method.ratio)}"
        f"{'' if method.absolute else ' of that rate'}{where}."
    )


def say_reach(part: LevelReport | RegionReport) -> str:
    """How far a level or a region reaches; "at least" if no failure is known."""
    if part.limit_tokens is None:
        return "unknown"
    return f"{'at least ' if part.bracket[1] is None else ''}{part.limit_tokens:,}"


def level_rows(report: ContextReport) -> list[tuple[str, str, str]]:
    """Name, limit and cause of each level."""
    return [(one.name, say_reach(one), say_cause(one.cause)) for one in report.levels]


def _as_sentence(note: str) -> str:
    """A note with a capital letter and a full stop."""
    return note[:1].upper() + note[1:] + ("" if note[-1:] in ".!?" else ".")


def say_remarks(report: ContextReport) -> Iterator[str]:
    """Sentences that a reader should know besides the numbers."""
    if report.method.quick:
        yield (
            "quick: a wider bracket, and not confirmed on fresh texts. The same command without"
            " --quick continues from here."
        )
    if not report.monotone:
        yield "not monotone: a length failed below a longer one that passed. See the table."
    for point in report.curve:
        weak = [d for d in point.depths if d.passes < d.trials]
        if point.verdict is Verdict.FAIL and weak:
            listed = ", ".join(f"{d.region} {d.passes} of {d.trials}" for d in weak)
            yield f"at {point.length_tokens:,}, correct answers by region: {listed}."
        if point.inconclusive:
            replies = "reply was" if point.inconclusive == 1 else "replies were"
            yield (
                f"at {point.length_tokens:,}: {point.inconclusive} {replies} inconclusive and"
                " not counted."
            )
    yield from (f"note: {_as_sentence(note)}" for note in report.notes)


def say_cost(report: ContextReport) -> str:
    """The cost of the measurement; an empty string if it did nothing."""
    cost = report.cost
    if not (cost.loads or cost.prompt_tokens or cost.cached_tokens):
        return ""
    return (
        f"cost: {say_count(cost.loads, 'load')},"
        f" {cost.prompt_tokens:,} prompt tokens read, {cost.cached_tokens:,} reused from cache,"
        f" {cost.generated_tokens:,} generated, {say_seconds(cost.seconds)}."
    )


def say_provenance(report: ContextReport) -> list[str]:
    """The cost, the engine with the versions involved, and the time, as far as they are known."""
    environment = report.environment
    told = {**environment.versions, **environment.load_config}
    parts = [f"{name} {value}" for name, value in told.items()]
    parts = [part for part in parts if part not in environment.engine]
    if not any(part.startswith(environment.engine) for part in parts):
        parts.insert(0, environment.engine)
    engine = ", ".join(part for part in parts if part)
    finished = f"finished: {say_moment(report.finished_at)}"
    lines = (say_cost(report), f"engine: {engine}" if engine else "", finished)
    return [line for line in lines if line]


LEAST_SCORE = 0.5
"""A lower score at the shortest length says nothing about longer ones, as for a baseline."""


def say_kept(found: ContextMap, layer: Layer) -> str:
    """How far a layer of a map keeps its score; an empty string if that is not known."""
    limit, (*_, short) = layer.limit(found.ratio), layer.scores(min(found.lengths))
    if limit is None or short is None:
        return ""
    if short < LEAST_SCORE:
        return f"it cannot do this even at {min(found.lengths):,} tokens"
    share = say_percent(found.ratio)
    short_at = min(found.lengths)
    return f"keeps at least {share} of its score at {short_at:,} tokens up to {limit:,} tokens"


# The table of lengths

CURVE_HEAD = ("length", "correct", "95% interval", "verdict", "TTFT", "tok/s")
"""The columns of `curve_row`."""


def in_order(curve: Iterable[CurvePoint]) -> list[CurvePoint]:
    """The points by length, the shortest first, with one kind of time.

    If the time of a fresh prompt is known at any length, times of partly cached prompts are left
    out: next to the others they would suggest that a longer prompt is faster.
    """
    points = sorted(curve, key=lambda point: point.length_tokens)
    if any(point.full_ttft_s is not None for point in points):
        return [attrs.evolve(point, ttft_s=None) for point in points]
    return points


def curve_row(point: CurvePoint) -> tuple[str, ...]:
    """The cells of one length, as `CURVE_HEAD` names them."""
    asked = point.trials > 0
    wait = point.ttft_s if point.full_ttft_s is None else point.full_ttft_s
    return (
        say_tokens(point.length_tokens),
        f"{point.passes} of {point.trials}" if asked else "-",
        f"{point.wilson.low * 100:.0f} to {say_percent(point.wilson.high)}" if asked else "-",
        say_verdict(point.verdict),
        say_wait(wait),
        say_speed(point.tokens_per_second),
    )


def curve_notes(curve: Iterable[CurvePoint]) -> list[str]:
    """Explanations of words in a table of lengths."""
    points = list(curve)
    undecided = any(point.verdict is Verdict.UNDECIDED for point in points)
    timed = any(point.ttft_s is not None or point.full_ttft_s is not None for point in points)
    return [*([UNDECIDED] if undecided else []), *([TTFT] if timed else [])]


VERDICT_WORDS = {Verdict.PASS: "passed", Verdict.FAIL: "failed", Verdict.UNDECIDED: "undecided"}
UNDECIDED = "undecided: too few answers for a verdict, or too near the pass rate for one"
"""Explains that word once if it appears."""
TTFT = "TTFT: time to the first token of the reply, if the whole prompt is new"
LEVEL_MEANINGS = {
    "coherence": "still writes sensible text",
    "recall": "finds a fact in the prompt",
    "copy": "copies a passage word by word",
    "crowd": "finds one of many similar facts",
    "tracing": "follows a value from name to name",
}


def say_verdict(verdict: Verdict) -> str:
    """The verdict in a word."""
    return VERDICT_WORDS[verdict]


def bar(share: float, cells: int) -> str:
    """A bar of `cells` cells. It is rounded down, so only a share of 1 fills it."""
    filled = min(max(int(cells * share), 0), cells)  # a stored report may hold any number
    return "[" + "#" * filled + "." * (cells - filled) + "]"


# The command

NO_LEVELS = "none"
"""The value of ``--levels`` that measures the validator's own questions only."""


_USUAL = {
    "max_context": None,
    "tolerance": 0.015625,
    "ratio": 0.85,
    "strategy": "bayes",
    "validator": "recall",
}
"""The values of `Method` that a command need not name."""


def method_options(method: Mapping[str, object]) -> Iterator[str]:
    """The options of ``lmstrix test`` for a `Method` as a mapping, without its seed."""
    for name, usual in _USUAL.items():
        value = method.get(name, usual)
        if value != usual and isinstance(value, str | int | float):
            # An option takes no exponent.
            shown = f"{Decimal(str(value)):f}" if isinstance(value, float) else str(value)
            yield from (f"--{name.replace('_', '-')}", shown)
    levels = ",".join(map(as_text, as_list(method.get("levels", ["coherence"]))))
    if levels != "coherence":
        yield from ("--levels", levels or NO_LEVELS)
    yield from (f"--{name}" for name in ("absolute", "average") if method.get(name) is True)


def _wished(usable: Usable | None) -> Iterator[str]:
    """The options that asked for it."""
    if usable and usable.min_tokens_per_second is not None:
        yield from ("--min-speed", f"{usable.min_tokens_per_second:.15g}")
    if usable and usable.max_ttft_s is not None:
        yield from ("--max-ttft", f"{usable.max_ttft_s:f}".rstrip("0").rstrip(".") + "s")


def continue_command(
    report: ContextReport, options: Sequence[str] = (), limits: Sequence[str] = ()
) -> str:
    """The command line that goes on from where a measurement ended: see `repeat_command`. Empty if
    it ended by itself.
    """
    if not (report.cause in RESUMABLE or (report.method.quick and report.measured)):
        return ""
    if not report.baseline.trials:
        return ""
    full = attrs.evolve(report, method=attrs.evolve(report.method, quick=False))
    return repeat_command(full, options, limits).replace(" test --fresh ", " test ", 1)


def repeat_command(
    report: ContextReport, options: Sequence[str] = (), limits: Sequence[str] = ()
) -> str:
    """The command line that asks the same questions again, escaped and quoted for a POSIX shell.

    `options` and `limits` are those that the report does not hold, such as the server's address,
    and the largest memory.
    """
    method, environment = report.method, report.environment
    words = ["lmstrix", *options]
    if environment.adapter:
        words += ["--adapter", environment.adapter]
    words += ["test", "--fresh", "--seed", str(method.seed)]
    words += method_options(attrs.asdict(method) | {"levels": list(method.levels)})
    if method.quick:
        words.append("--quick")
    words += [*_wished(report.usable), *limits]
    if report.model.key.startswith("-"):
        words.append("--")
    words.append(report.model.key)
    return escape_controls(shlex.join(words))
