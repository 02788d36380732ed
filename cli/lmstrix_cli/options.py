"""Options that several commands share, the types of their values, and filters of models."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import attrs
import click

from lmstrix import (
    DEFAULT_LEVELS,
    DEFAULT_STRATEGY,
    MeasureOptions,
    ModelInfo,
)
from lmstrix.reports.words import NO_LEVELS

T = TypeVar("T")
_COUNT = re.compile(
    r"([0-9]+(?:_[0-9]+)*|[0-9]{1,3}(?:,[0-9]{3})+)([km]?)", re.ASCII | re.IGNORECASE
)
_DURATION = re.compile(
    r"(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+(?:\.[0-9]+)?)s)?", re.ASCII | re.IGNORECASE
)
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)(i?)b?", re.ASCII | re.IGNORECASE)
_SHARE = re.compile(r"[0-9]*\.?[0-9]+|[0-9]+/[0-9]*[1-9][0-9]*", re.ASCII)
_DIGITS = 15
"""More digits than any sensible value has; keeps a typing slip from becoming a huge number."""


_LEAST_BYTES = 1_000_000
"""No model file is smaller, so a smaller number without a unit lacks one."""


class Typed(click.ParamType[T]):
    """Text that `parse` reads; a value that a default or a program gives stays.

    What the `ValueError` of `parse` says becomes a usage error.
    """

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> T:  # noqa: ANN401 - click's signature
        """The value; fails with a usage error."""
        if not isinstance(value, str):
            return cast("T", value)
        try:
            return self._parse(value.strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _tokens(text: str) -> int:
    match = _COUNT.fullmatch(text)
    if match is None or len(match[1]) > _DIGITS:
        raise ValueError(f"{text!r} is not a number of tokens such as 8192, 8k or 128k.")
    count = int(match[1].replace(",", "")) * {"": 1, "k": 1024, "m": 1024**2}[match[2].lower()]
    if count < 1:
        raise ValueError("the number of tokens must be positive.")
    return count


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or len(match[1]) > _DIGITS or (match[3] and not match[2]):
        raise ValueError(f"{text!r} is not a size such as 500m, 4g or 1.5GiB.")
    if not match[2] and float(match[1]) < _LEAST_BYTES:
        raise ValueError(f"{text} has no unit: write {text}m or {text}g.")
    unit = 1024 if match[3] else 1000
    return round(float(match[1]) * unit ** " kmgt".index(match[2].lower() or " "))


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch("0s" if text == "0" else text)
    if text != "0" and text.isascii() and text.isdigit() and len(text) <= _DIGITS:
        raise ValueError(f"{text} has no unit: write {text}s, {text}m or {text}h.")
    if not text or match is None or len(text) > _DIGITS:
        raise ValueError(f"{text!r} is not a duration such as 90s, 10m or 1h30m.")
    hours, minutes, seconds = (float(group or 0) for group in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total < 1:
        raise ValueError("the duration must be at least one second.")
    return float(total)


def _share(text: str) -> float:
    if _SHARE.fullmatch(text) is None or len(text) > 2 * _DIGITS:
        raise ValueError(f"{text!r} is not a number such as 0.85 or 1/64.")
    share = float(Fraction(text))
    if not 0 < share <= 1:
        raise ValueError("it must be greater than 0 and at most 1.")
    return share


def _names(text: str) -> tuple[str, ...]:
    words = [word.strip() for word in text.split(",")]
    if words == [NO_LEVELS]:
        return ()
    if not all(words):
        raise ValueError(f"{text!r} is not a list of names such as coherence,copy.")
    return tuple(dict.fromkeys(words))


TOKENS = Typed("tokens", _tokens)
"""A positive number of tokens: ``8192``, ``8_192``, ``8,192``, ``8k``, ``1m`` (k is 1024)."""
SIZE = Typed("size", _bytes)
"""Bytes: ``4g``, ``500MB``, ``1.5 GiB``. Units are decimal; those with an ``i`` are binary."""
DURATION = Typed("duration", _seconds)
"""A positive time in seconds: ``90s``, ``10m``, ``1h30m``."""
SHARE = Typed("share", _share)
"""A part of one, above 0: ``0.85`` or ``1/64``."""
NAMES = Typed("names", _names)
"""Names with commas between them, each once, or the word ``none`` for no name."""


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


quick_option = click.option(
    "--quick",
    is_flag=True,
    help="Rougher and faster: a wider bracket, not confirmed, for about half of the prompt"
    " tokens. The same command without --quick continues from there.",
)


def max_context_option(what: str) -> Decorator:
    """``--max-context``: the largest length, in tokens."""
    return click.option("--max-context", type=TOKENS, metavar="N", help=what)


def count_option(name: str, least: int, default: int, what: str) -> Decorator:
    """A whole number from `least` on."""
    return click.option(
        name,
        type=click.IntRange(min=least),
        default=default,
        show_default=True,
        metavar="N",
        help=what,
    )


def seed_option(default: int, what: str) -> Decorator:
    """``--seed``; `what` says what another number changes."""
    return count_option("--seed", 0, default, what)


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
        help="Test this length alone instead of searching: load N tokens, ask, and print passed"
        " or failed. Stores nothing.",
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
        help="Limit on tokens, read or generated, for each model: 50k. Works like --budget.",
    ),
    click.option(
        "--max-memory",
        "max_memory_bytes",
        type=SIZE,
        metavar="SIZE",
        help="Limit on the estimated memory of a load, weights and context together: 8g, 6GiB."
        " Default: the memory that is free now for the embedded engine, else none.",
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
        help="Also report the largest context at which it generates at least X tokens per second.",
    ),
    click.option(
        "--max-ttft",
        "max_ttft_s",
        type=DURATION,
        metavar="TIME",
        help="Also report the largest context at which the first token comes within TIME.",
    ),
    force_option(
        "Also try sizes whose estimated memory exceeds this machine's. The machine may stop"
        " responding. On Ollama, also replace a model that you have loaded; it is loaded again"
        " afterwards."
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
        help="Width of the final bracket, as a part of the result: 0.05 is 5 %. Default: 1/64"
        " (1.6 %), but at least 256 tokens (128 below 6,144, 64 below 3,072).",
    ),
    ratio_option(
        _DEFAULTS.ratio,
        "A length passes with at least X times the model's own pass rate at short length.",
    ),
    click.option(
        "--absolute",
        is_flag=True,
        help="A length passes with a pass rate of at least --ratio, whatever the model does at"
        " short length.",
    ),
    click.option(
        "--average",
        is_flag=True,
        help="Average the pass rate over the window, as published benchmarks do; this can hide a"
        " lost region.",
    ),
    quick_option,
    click.option(
        "--no-certify",
        is_flag=True,
        help="Skip the confirmation with a fresh load and fresh texts.",
    ),
    count_option(
        "--documents",
        2,
        _DEFAULTS.documents,
        "Number of different texts on which the result must pass, including the search's own.",
    ),
    seed_option(_DEFAULTS.seed, "Another number creates other texts and questions."),
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
        help="Further tests on the same text, separated by commas, or none: coherence (writes"
        " sensible text), copy (a passage), crowd (one of many similar facts), tracing (a value"
        " passed on from name to name).",
    ),
)
"""What is asked, and what counts."""


# Filters

_GLOB = frozenset("*?[")


def name_matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether `name` is one that any of `patterns` means, or there is none; case is ignored.

    A pattern with ``*``, ``?`` or ``[`` stands for the whole name or what is behind its last
    slash, another for a part of the name.

    >>> name_matches("qwen/Qwen3-8B", ["qwen3*"]), name_matches("qwen/Qwen3-8B", ["8b*"])
    (True, False)
    """
    name = name.casefold()
    return not patterns or any(
        fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(Path(name).name, pattern)
        if _GLOB & set(pattern)
        else pattern in name
        for pattern in _folded(patterns)
    )


def _folded(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(word.casefold() for word in words)


@attrs.frozen(kw_only=True)
class ModelFilter:
    """Which models are meant. Sizes are bytes; a size that is not known is neither large nor
    small enough. Raises `click.UsageError` if no size can match.
    """

    names: tuple[str, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    formats: tuple[str, ...] = attrs.field(default=(), converter=_folded)
    types: tuple[str, ...] = attrs.field(default=(), converter=_folded)

    def __attrs_post_init__(self) -> None:
        if self.min_size and self.max_size is not None and self.min_size > self.max_size:
            raise click.UsageError("--min-size is larger than --max-size.")

    @classmethod
    def take(cls, options: dict[str, Any]) -> Self:
        """The filter that a command's options describe; its own are removed from `options`."""
        return cls(**{field.name: options.pop(field.name) for field in attrs.fields(cls)})

    def __bool__(self) -> bool:
        """Whether anything was asked for."""
        return self != ModelFilter()

    def keep(self, models: Iterable[ModelInfo]) -> list[ModelInfo]:
        """Those of `models` that are meant, in their order."""
        known = self.min_size is not None or self.max_size is not None
        least = max(self.min_size or 0, 1 if known else 0)
        most = math.inf if self.max_size is None else self.max_size
        return [
            model
            for model in models
            if name_matches(model.key, self.names)
            and (not self.formats or model.format.casefold() in self.formats)
            and (not self.types or model.type.casefold() in self.types)
            and least <= model.size_bytes <= most
        ]


name_option = click.option(
    "--name",
    "names",
    multiple=True,
    metavar="PATTERN",
    help="Only models whose name contains PATTERN, or whose name or file name matches it:"
    " 'qwen*'. May be repeated; any of them may match.",
)


def model_filters(*format_names: str) -> Decorator:
    """The options of a `ModelFilter`. `format_names` stand for ``--model-format`` too, where
    ``--format`` does not mean the output's.
    """
    return chain(
        name_option,
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
    )
