"""Options that more than one command takes, and those of a measurement: the same words and
the same help everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lmstrix import MeasureOptions
from lmstrix.client import DEFAULT_LEVELS, DEFAULT_STRATEGY
from lmstrix.reports.text import NO_LEVELS
from lmstrix_cli.parameters import DURATION, NAMES, SHARE, SIZE, TOKENS

__all__ = [
    "Decorator",
    "chain",
    "force_option",
    "json_option",
    "max_context_option",
    "measure_limits",
    "measure_method",
    "quiet_option",
    "ratio_option",
    "seed_option",
]

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


quiet_option: Decorator = click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")


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
        "Largest length to try: 8192, 8k, 128k (k is 1024). Default: what the model declares."
    ),
    click.option(
        "--at",
        "only_at",
        type=TOKENS,
        metavar="N",
        help="No search: does it work at N tokens? Loads there, asks there, says pass or fail."
        " Nothing is kept.",
    ),
    click.option(
        "--budget",
        type=DURATION,
        metavar="TIME",
        help="Longest time for each model: 90s, 10m, 1h30m. What is known by then is reported,"
        " and kept for going on.",
    ),
    click.option(
        "--budget-tokens",
        type=TOKENS,
        metavar="N",
        help="Most tokens, read or generated, for each model: 50k. Likewise.",
    ),
    click.option(
        "--max-memory",
        "max_memory_bytes",
        type=SIZE,
        metavar="SIZE",
        help="Most memory that a load may be expected to need, weights and context together: 8g,"
        " 6GiB. Default: what this machine has.",
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
        help="Also report the largest context whose first token comes within TIME.",
    ),
    force_option(
        "Also try what the memory estimate says this machine cannot hold."
        " May bring the machine down."
    ),
    click.option(
        "--fresh",
        is_flag=True,
        help="Begin anew: go on with no interrupted measurement, and with --all measure what is"
        " known and unchanged too.",
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
        help="How narrow the answer has to be, as a part of it. Default: 1/64.",
    ),
    ratio_option(
        _DEFAULTS.ratio,
        "Part of the model's own short-context pass rate that still counts as a pass.",
    ),
    click.option(
        "--absolute",
        is_flag=True,
        help="Take the ratio as the pass rate itself, not as a part of the model's own.",
    ),
    click.option(
        "--no-certify",
        is_flag=True,
        help="Skip the confirmation by a fresh load and fresh documents.",
    ),
    click.option(
        "--documents",
        type=click.IntRange(min=2),
        default=_DEFAULTS.documents,
        show_default=True,
        metavar="N",
        help="On how many texts the result is confirmed, the searched one included.",
    ),
    seed_option(_DEFAULTS.seed, "Another number makes other documents and questions."),
    click.option(
        "--strategy",
        default=DEFAULT_STRATEGY,
        show_default=True,
        metavar="NAME",
        help="How the next length is chosen.",
    ),
    click.option(
        "--validator",
        default="recall",
        show_default=True,
        metavar="NAME",
        help="What is asked, and how it is judged.",
    ),
    click.option(
        "--levels",
        type=NAMES,
        default=",".join(DEFAULT_LEVELS) or NO_LEVELS,
        show_default=True,
        metavar="NAMES",
        help="What else is asked of what was read anyway: coherence, copy, crowd, tracing, with"
        " commas between them, or none.",
    ),
)
"""What is asked, and what counts."""
