"""Which models: the options by which `test`, `scan` and `list` choose, and what they mean."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import attrs
import click

from lmstrix.models import Cause, ModelInfo
from lmstrix.stores.export import ReportSummary
from lmstrix_cli.options import SIZE, TOKENS, Decorator, chain

__all__ = ["ModelFilter", "ReportFilter", "model_filters", "name_matches", "report_filters"]

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
