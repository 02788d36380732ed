"""The command that goes on with an interrupted measurement, from the key it is kept under."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import cast

from lmstrix import MeasureOptions
from lmstrix.client import DEFAULT_ADAPTER, DEFAULT_LEVELS, DEFAULT_STRATEGY
from lmstrix.json_values import as_list, as_object, as_text, parse_object
from lmstrix.reports.words import NO_LEVELS
from lmstrix_cli.settings import Settings

__all__ = ["command_to_go_on"]

DEFAULT_VALIDATOR = "recall"


def command_to_go_on(model_key: str, key: str, settings: Settings) -> str:
    """``lmstrix test MODEL`` with what the result depends on: with other options it would be
    another measurement. Where the key cannot be read, the model alone.
    """
    depends = parse_object(key) or {}
    words = ["lmstrix"]
    adapter = depends.get("adapter")
    is_file = model_key.lower().endswith(".gguf")
    if isinstance(adapter, str) and adapter != DEFAULT_ADAPTER and not is_file:
        words += ["--adapter", adapter]
    elif settings.host and not is_file:
        words += ["--host", settings.host]
    if settings.store:
        words += ["--store", settings.store]
    options = as_object(depends.get("method"))
    words += ["test", *_options(options)]
    words += [*(["--"] if model_key.startswith("-") else []), model_key]
    return shlex.join(words)


def _options(method: Mapping[str, object]) -> Iterator[str]:
    defaults = MeasureOptions()
    usual: Mapping[str, object] = {
        "max_context": defaults.max_context,
        "tolerance": defaults.tolerance,
        "ratio": defaults.ratio,
        "seed": defaults.seed,
        "strategy": DEFAULT_STRATEGY,
        "validator": DEFAULT_VALIDATOR,
    }
    for name, default in usual.items():
        value = method.get(name, default)
        if value != default and isinstance(value, str | int | float):
            yield from (f"--{name.replace('_', '-')}", str(value))
    if method.get("absolute") is True:
        yield "--absolute"
    if method.get("average") is True:
        yield "--average"
    levels = method.get("levels", list(DEFAULT_LEVELS))
    if isinstance(levels, list) and levels != list(DEFAULT_LEVELS):
        names = [as_text(level) for level in as_list(cast("object", levels))]
        yield from ("--levels", ",".join(filter(None, names)) or NO_LEVELS)
