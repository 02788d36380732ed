"""Options that several commands share, the types of their values, and filters of models."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, ClassVar, TypeVar, cast

import attrs
import click

from lmstrix import (
    DEFAULT_LEVELS,
    DEFAULT_STRATEGY,
    Cause,
    MeasureOptions,
    ModelInfo,
    ReportSummary,
)
from lmstrix.reports.words import NO_LEVELS

__all__ = [
    "DURATION",
    "NAMES",
    "SHARE",
    "SIZE",
    "TOKENS",
    "Decorator",
    "Duration",
    "FileSize",
    "ModelFilter",
    "Names",
    "ReportFilter",
    "Share",
    "TokenCount",
    "chain",
    "force_option",
    "json_option",
    "max_context_option",
    "measure_limits",
    "measure_method",
    "model_filters",
    "name_matches",
    "ratio_option",
    "report_filters",
    "seed_option",
]

T = TypeVar("T")
_COUNT = re.compile(r"([0-9]+(?:_[0-9]+)*)([km]?)", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?", re.ASCII | re.IGNORECASE)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?", re.ASCII | re.IGNORECASE)
_SHARE = re.compile(r"[0-9]*\.?[0-9]+|[0-9]+/[0-9]*[1-9][0-9]*", re.ASCII)
_DIGITS = 15
"""More digits than any sensible value has; keeps a typing slip from becoming a huge number."""


class _Typed(click.ParamType[T]):
    """Text that is parsed; what a program or a default gives as a value already stays."""

    values: ClassVar[type | tuple[type, ...]]

    def parse(self, text: str) -> T:
        """The value; raises `ValueError` with what is wrong, for a usage error."""
        raise NotImplementedError

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:  # noqa: ANN401 - click's signature
        """The value; fails with a usage error."""
        if isinstance(value, self.values):
            return cast("T", value)
        try:
            return self.parse(str(value).strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TokenCount(_Typed[int]):
    """A positive number of tokens: ``8192``, ``8_192``, ``8k``, ``1m`` (k is 1024)."""

    name = "tokens"
    values = int

    def parse(self, text: str) -> int:
        """The number of tokens."""
        match = _COUNT.fullmatch(text)
        if match is None or len(match[1]) > _DIGITS:
            raise ValueError(f"{text!r} is not a number of tokens such as 8192, 8k or 128k.")
        count = int(match[1]) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]
        if count < 1:
            raise ValueError("the number of tokens must be positive.")
        return count


class FileSize(_Typed[int]):
    """A size in bytes: ``4g``, ``500MB``, ``1.5 GiB``. Units are decimal, as sizes are shown
    everywhere; those with an ``i`` are binary.
    """

    name = "size"
    values = int

    def parse(self, text: str) -> int:
        """The number of bytes."""
        match = _SIZE.fullmatch(text)
        if match is None or len(match[1]) > _DIGITS or (match[3] and not match[2]):
            raise ValueError(f"{text!r} is not a size such as 500m, 4g or 1.5GiB.")
        unit = 1024 if match[3] else 1000
        return round(float(match[1]) * unit ** " kmgt".index(match[2].lower() or " "))


class Duration(_Typed[float]):
    """A positive time in seconds: ``90s``, ``10m``, ``1h30m``."""

    name = "duration"
    values = (int, float)

    def parse(self, text: str) -> float:
        """The number of seconds."""
        match = _DURATION.fullmatch(text)
        if text.isascii() and text.isdigit() and len(text) <= _DIGITS:
            raise ValueError(f"{text} has no unit: write {text}s, {text}m or {text}h.")
        if not text or match is None or len(text) > _DIGITS:
            raise ValueError(f"{text!r} is not a duration such as 90s, 10m or 1h30m.")
        hours, minutes, seconds = (int(group or 0) for group in match.groups())
        total = 3600 * hours + 60 * minutes + seconds
        if total < 1:
            raise ValueError("the duration must be at least one second.")
        return float(total)


class Share(_Typed[float]):
    """A part of one, above 0: ``0.85`` or ``1/64``."""

    name = "share"
    values = float

    def parse(self, text: str) -> float:
        """The number."""
        if _SHARE.fullmatch(text) is None or len(text) > 2 * _DIGITS:
            raise ValueError(f"{text!r} is not a number such as 0.85 or 1/64.")
        share = float(Fraction(text))
        if not 0 < share <= 1:
            raise ValueError("it must lie above 0 and be at most 1.")
        return share


class Names(_Typed[tuple[str, ...]]):
    """Names with commas between them, each once, or the word ``none`` for no name."""

    name = "names"
    values = tuple

    def parse(self, text: str) -> tuple[str, ...]:
        """The names."""
        words = [word.strip() for word in text.split(",")]
        if words == [NO_LEVELS]:
            return ()
        if not all(words):
            raise ValueError(f"{text!r} is not a list of names such as coherence,copy.")
        return tuple(dict.fromkeys(words))


NAMES = Names()
SIZE = FileSize()
TOKENS = TokenCount()
DURATION = Duration()
SHARE = Share()


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_DEFAULTS = MeasureOptions()


def chain(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, shown in the order in which they are given."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def json_option(what: str) -> Decorator:
    """``--json``, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help=what)


def max_context_option(what: str) -> Decorator:
    """``--max-context``: the largest length, in tokens."""
    return click.option("--max-context", type=TOKENS, metavar="N", help=what)


def seed_option(default: int, what: str) -> Decorator:
    """``--seed``; `what` says what another number changes."""
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=default,
        show_default=True,
        metavar="N",
        help=what,
    )


def ratio_option(default: float, what: str) -> Decorator:
    """``--ratio``: a part of what the model does at short length."""
    return click.option(
        "--ratio", type=SHARE, default=default, show_default=True, metavar="X", help=what
    )


def force_option(what: str) -> Decorator:
    """``--force``; `what` says what it goes beyond."""
    return click.option("--force", is_flag=True, help=what)


measure_limits = chain(
    max_context_option(
        "Largest length to try: 8192, 8k, 128k (k is 1024). Default: the declared context."
    ),
    click.option(
        "--at",
        "only_at",
        type=TOKENS,
        metavar="N",
        help="Test only N tokens instead of searching: loads there, asks there, prints pass or"
        " fail. Stores nothing.",
    ),
    click.option(
        "--budget",
        type=DURATION,
        metavar="TIME",
        help="Time limit for each model: 90s, 10m, 1h30m. Reports the results so far; the next"
        " run continues.",
    ),
    click.option(
        "--budget-tokens",
        type=TOKENS,
        metavar="N",
        help="Limit of tokens, read or generated, for each model: 50k. Works like --budget.",
    ),
    click.option(
        "--max-memory",
        "max_memory_bytes",
        type=SIZE,
        metavar="SIZE",
        help="Limit of the estimated memory of a load, weights and context together: 8g, 6GiB."
        " Default: this machine's memory.",
    ),
    click.option(
        "--load-timeout",
        "load_timeout_s",
        type=DURATION,
        default=_DEFAULTS.load_timeout_s,
        show_default=False,
        metavar="TIME",
        help="How long a load may make no progress before it counts as hung: 60s, 5m. Large files"
        " get longer. Default: 60s.",
    ),
    click.option(
        "--min-speed",
        "min_tokens_per_second",
        type=click.FloatRange(min=0, min_open=True),
        metavar="X",
        help="Also report the largest context with at least X tokens a second generated.",
    ),
    click.option(
        "--max-ttft",
        "max_ttft_s",
        type=DURATION,
        metavar="TIME",
        help="Also report the largest context with the first token within TIME.",
    ),
    force_option(
        "Also try sizes that exceed this machine's memory by the estimate."
        " May bring the machine down."
    ),
    click.option(
        "--fresh",
        is_flag=True,
        help="Start over: do not continue an interrupted measurement. With --all, also measure"
        " models whose stored result is still valid.",
    ),
)
"""How far a measurement goes, and what it may cost."""

measure_method = chain(
    click.option(
        "--tolerance",
        type=SHARE,
        default=_DEFAULTS.tolerance,
        show_default=False,
        metavar="X",
        help="Width of the final bracket, as a part of the answer. Default: 1/64.",
    ),
    ratio_option(
        _DEFAULTS.ratio,
        "Part of the model's own short-context pass rate that still counts as a pass.",
    ),
    click.option(
        "--absolute",
        is_flag=True,
        help="Use the ratio as the pass rate itself, not as a part of the model's own pass rate.",
    ),
    click.option(
        "--average",
        is_flag=True,
        help="Average the pass rate over the window, as published benchmarks do; a lost region may"
        " hide in it.",
    ),
    click.option(
        "--quick",
        is_flag=True,
        help="Stop at a wider bracket, without the confirmation, for about half of the prompt"
        " tokens. The same command without --quick continues from there.",
    ),
    click.option(
        "--no-certify",
        is_flag=True,
        help="Skip the confirmation with a fresh load and fresh documents.",
    ),
    click.option(
        "--documents",
        type=click.IntRange(min=2),
        default=_DEFAULTS.documents,
        show_default=True,
        metavar="N",
        help="Number of documents that confirm the result, including that of the search.",
    ),
    seed_option(_DEFAULTS.seed, "Another number creates other documents and questions."),
    click.option(
        "--strategy",
        default=DEFAULT_STRATEGY,
        show_default=True,
        metavar="NAME",
        help="The search strategy, which chooses the next length: bayes, gallop or a plug-in.",
    ),
    click.option(
        "--validator",
        default="recall",
        show_default=True,
        metavar="NAME",
        help="The validator, which asks the questions and judges the replies.",
    ),
    click.option(
        "--levels",
        type=NAMES,
        default=",".join(DEFAULT_LEVELS) or NO_LEVELS,
        show_default=True,
        metavar="NAMES",
        help="Further tests on the same document: coherence, copy, crowd, tracing, separated by"
        " commas, or none.",
    ),
)
"""What is asked, and what counts."""


# Filters

_GLOB = frozenset("*?[")


def name_matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether `name` is one that any of `patterns` means, or there is none; case is ignored.

    A pattern with ``*``, ``?`` or ``[`` stands for the whole name, another for a part of it.

    >>> name_matches("qwen/Qwen3-8B", ["qwen3"]), name_matches("qwen/Qwen3-8B", ["qwen3*"])
    (True, False)
    """
    folded = name.casefold()
    return not patterns or any(_matches(folded, pattern.casefold()) for pattern in patterns)


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) if _GLOB & set(pattern) else pattern in name


@attrs.frozen(kw_only=True)
class ModelFilter:
    """Which models are meant. Sizes are bytes; a size that is not known is neither large nor
    small enough.
    """

    names: tuple[str, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    formats: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything was asked for."""
        return self != ModelFilter()

    def keep(self, models: Iterable[ModelInfo]) -> list[ModelInfo]:
        """Those of `models` that are meant, in their order."""
        return [model for model in models if self._fits(model)]

    def _fits(self, model: ModelInfo) -> bool:
        return (
            name_matches(model.key, self.names)
            and (not self.formats or model.format.casefold() in self.formats)
            and (not self.types or model.type.casefold() in self.types)
            and self._fits_size(model.size_bytes)
        )

    def _fits_size(self, size: int) -> bool:
        if self.min_size is None and self.max_size is None:
            return True
        at_least = self.min_size is None or size >= self.min_size
        return size > 0 and at_least and (self.max_size is None or size <= self.max_size)


@attrs.frozen(kw_only=True)
class ReportFilter:
    """Which results are meant."""

    names: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    certified: bool | None = None
    min_true: int | None = None

    def keep(self, found: Iterable[ReportSummary]) -> list[ReportSummary]:
        """Those of `found` that are meant, in their order."""
        return [summary for summary in found if self._fits(summary)]

    def _fits(self, summary: ReportSummary) -> bool:
        return (
            name_matches(summary.model_key, self.names)
            and (not self.causes or summary.cause in self.causes)
            and self.certified in {None, summary.certified}
            and (self.min_true is None or (summary.true_context or 0) >= self.min_true)
        )


def _collected(make: Callable[..., object], *parameters: str) -> Decorator:
    """Give the command one parameter `chosen` in the place of several."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def command(*args: Any, **said: Any) -> Any:  # noqa: ANN401 - as click calls it
            made = make(**{name: said.pop(name) for name in parameters})
            return function(*args, chosen=made, **said)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        # Options that were declared below stay with the command.
        command.__dict__.update(function.__dict__)
        return command

    return decorate


def _lower(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word.casefold() for word in value)


_name_option = click.option(
    "--name",
    "names",
    multiple=True,
    metavar="PATTERN",
    help="Only models whose name holds PATTERN, or is like it: 'qwen*'. May be repeated: any of"
    " them.",
)


def model_filters(*format_names: str) -> Decorator:
    """The options of a `ModelFilter`, as one parameter `chosen`. `format_names` stand for
    ``--model-format`` too, where ``--format`` does not mean the output's.
    """
    return chain(
        _name_option,
        click.option(
            "--min-size", type=SIZE, metavar="SIZE", help="Only files of SIZE or more: 500m, 4g."
        ),
        click.option("--max-size", type=SIZE, metavar="SIZE", help="Only files of SIZE or less."),
        click.option(
            *format_names,
            "--model-format",
            "formats",
            multiple=True,
            metavar="NAME",
            help="Only files of this format: gguf, mlx. May be repeated.",
        ),
        click.option(
            "--type",
            "types",
            multiple=True,
            metavar="NAME",
            help="Only models of this type: llm, vlm, embedding. May be repeated.",
        ),
        _collected(_model_filter, "names", "min_size", "max_size", "formats", "types"),
    )


def _model_filter(**said: Any) -> ModelFilter:  # noqa: ANN401 - click gives each value by its name
    low, high = said["min_size"], said["max_size"]
    if low is not None and high is not None and low > high:
        raise click.UsageError("--min-size is larger than --max-size.")
    said["formats"], said["types"] = _lower(said["formats"]), _lower(said["types"])
    return ModelFilter(**said)


report_filters: Decorator = chain(
    _name_option,
    click.option(
        "--cause",
        "causes",
        multiple=True,
        type=click.Choice([str(cause) for cause in Cause]),
        metavar="CAUSE",
        help="Only results with this cause: forgets, declared_maximum, ... May be repeated.",
    ),
    click.option(
        "--certified/--not-certified", default=None, help="Only results that are certified, or not."
    ),
    click.option(
        "--min-true", type=TOKENS, metavar="N", help="Only a true context of N tokens or more: 32k."
    ),
    _collected(ReportFilter, "names", "causes", "certified", "min_true"),
)
"""The options of a `ReportFilter`, as one parameter `chosen`."""
