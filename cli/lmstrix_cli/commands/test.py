"""``lmstrix test``: measure models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from lmstrix import LMStrix, MeasureOptions
from lmstrix.client import DEFAULT_LEVELS
from lmstrix.models import ModelInfo
from lmstrix.reports.text import NO_LEVELS
from lmstrix_cli import safe_text, session
from lmstrix_cli.exit_codes import ExitCode
from lmstrix_cli.measuring import Batch
from lmstrix_cli.parameters import DURATION, NAMES, SHARE, TOKENS
from lmstrix_cli.progress import choose_progress
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix test path/to/model.gguf
  lmstrix test model-key --max-context 32k --budget 10m
  lmstrix test --all --json > reports.jsonl
  lmstrix test --max-context 16k folder/model-key

\b
Exit codes:
  0  every model was measured
  1  anything else
  2  wrong usage: an option, a name or a value
  3  server or engine not reachable
  4  a model was not found, or is not measurable
  5  interrupted (which ends the batch) or budget spent; the report is partial
With several models the first of 5, 3, 1, 4, 0 that happened.
"""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _options(*decorators: Decorator) -> Decorator:
    """Several options as one decorator, shown in the order in which they are given."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


_what = _options(
    click.option(
        "--all", "all_models", is_flag=True, help="Every model of `lmstrix scan`, smallest first."
    ),
    click.option("--json", "as_json", is_flag=True, help="One report for each model (JSON Lines)."),
    click.option("-q", "--quiet", is_flag=True, help="No progress on stderr."),
)
_limits = _options(
    click.option(
        "--max-context",
        type=TOKENS,
        metavar="N",
        help="Largest length to try: 8192, 8k, 128k (k is 1024). Default: what the model declares.",
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
    click.option(
        "--force",
        is_flag=True,
        help="Also try what the memory estimate says this machine cannot hold."
        " May bring the machine down.",
    ),
    click.option(
        "--fresh",
        is_flag=True,
        help="Forget an interrupted measurement instead of going on with it.",
    ),
)
_method = _options(
    click.option(
        "--tolerance",
        type=SHARE,
        default=MeasureOptions().tolerance,
        show_default=False,
        metavar="X",
        help="How narrow the answer has to be, as a part of it. Default: 1/64.",
    ),
    click.option(
        "--ratio",
        type=SHARE,
        default=MeasureOptions().ratio,
        show_default=True,
        metavar="X",
        help="Part of the model's own short-context pass rate that still counts as a pass.",
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
        default=MeasureOptions().documents,
        show_default=True,
        metavar="N",
        help="On how many texts the result is confirmed, the searched one included.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=MeasureOptions().seed,
        show_default=True,
        metavar="N",
        help="Another number makes other documents and questions.",
    ),
    click.option(
        "--strategy",
        default="auto",
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


@click.command(name="test", epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@_what
@_limits
@_method
@click.pass_context
@pass_settings
def command(
    settings: Settings,
    ctx: click.Context,
    models: tuple[str, ...],
    *,
    all_models: bool,
    as_json: bool,
    quiet: bool,
    **method: Any,  # noqa: ANN401 - click gives each option's value by its name
) -> None:
    """Measure how much context models really handle, one after another.

    MODEL is a name from `lmstrix scan` or the path of a GGUF file. The report goes to stdout,
    progress to stderr. Every answer is kept as it comes: after Ctrl-C, a crash or a spent
    budget the same command goes on where it was. Models that somebody else loaded are left
    alone.
    """
    if bool(models) == all_models:
        raise click.UsageError(
            "name one or more models, or say --all."
            if not models
            else "--all takes no model names."
        )
    parts = {name: method.pop(name) for name in ("strategy", "validator", "levels")}
    batch = Batch(
        options=_measure_options(**method),
        progress=choose_progress(quiet=quiet),
        as_json=as_json,
        again=settings.command_again(),
    )

    async def body() -> None:
        async with session.open_client(settings, **parts) as client:
            chosen: Sequence[str | ModelInfo] = models
            if all_models:
                chosen = await _everything(client)
                if not chosen:
                    safe_text.error("there is no model to measure", "See `lmstrix scan`.")
                    batch.record(ExitCode.NOT_MEASURABLE)
            await batch.measure(client, chosen)

    ctx.exit(batch.run(body))


def _measure_options(*, no_certify: bool, budget: float | None, **numbers: Any) -> MeasureOptions:  # noqa: ANN401 - as above
    return MeasureOptions(certify=not no_certify, budget_s=budget, **numbers)


async def _everything(client: LMStrix) -> Sequence[ModelInfo]:
    """All that can be asked questions, smallest first; the others are named on stderr."""
    found = await client.list_models()
    for model in found:
        if not _speaks(model):
            safe_text.note(
                f"left out: {safe_text.label(model.key)} ({safe_text.label(model.type)})"
            )
    return sorted(filter(_speaks, found), key=lambda model: (model.size_bytes, model.key))


def _speaks(model: ModelInfo) -> bool:
    """Adapters call a model that generates text ``llm`` or ``vlm``; the rest cannot answer."""
    return model.type in {"llm", "vlm"}
