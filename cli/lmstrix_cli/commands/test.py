"""``lmstrix test``: measure models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from lmstrix import LMStrix, MeasureOptions
from lmstrix.models import ContextReport, ModelInfo
from lmstrix_cli import safe_text, session
from lmstrix_cli.errors import ExitCode
from lmstrix_cli.filters import ModelFilter, model_filters
from lmstrix_cli.measurements import Batch, known_reports, plan_models, show_plans
from lmstrix_cli.options import json_option, measure_limits, measure_method, quiet_option
from lmstrix_cli.progress import choose_progress
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix test path/to/model.gguf
  lmstrix test model-key --max-context 32k --budget 10m
  lmstrix test model-key --at 16k
  lmstrix test --all --json > reports.jsonl
  lmstrix test --all --name 'qwen*' --max-size 8g --dry-run
  lmstrix test --max-context 16k folder/model-key

\b
Exit codes:
  0  every model was measured; with --at: it passes
  1  anything else; with --at: it fails
  2  wrong usage: an option, a name or a value
  3  server or engine not reachable
  4  a model was not found, or is not measurable
  5  interrupted (which ends the batch) or budget spent; the report is partial
With several models the first of 5, 3, 1, 4, 0 that happened.
"""

Chosen = Sequence[str | ModelInfo]
Known = Mapping[str, ContextReport]


@click.command(name="test", epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--all",
    "all_models",
    is_flag=True,
    help="Every model of `lmstrix scan`, smallest first, but for what is known and unchanged.",
)
@model_filters("--format")
@click.option(
    "--dry-run", is_flag=True, help="Say what would be measured, and what it costs. Loads nothing."
)
@json_option("One report for each model (JSON Lines).")
@quiet_option
@measure_limits
@measure_method
@click.pass_context
@pass_settings
def command(
    settings: Settings,
    ctx: click.Context,
    models: tuple[str, ...],
    *,
    all_models: bool,
    chosen: ModelFilter,
    dry_run: bool,
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
    _check_usage(models, chosen, all_models=all_models)
    parts = {name: method.pop(name) for name in ("strategy", "validator", "levels")}
    options = _measure_options(**method)
    batch = Batch(
        options=options,
        progress=choose_progress(quiet=quiet),
        as_json=as_json,
        again=settings.command_again(),
    )

    async def body() -> None:
        async with session.client(settings, **parts) as client:
            wanted, known = await _choose(client, models, chosen, options)
            if not wanted:
                safe_text.error(*_nothing(chosen))
                batch.record(ExitCode.NOT_MEASURABLE)
            elif dry_run:
                plans, codes = await plan_models(client, wanted, options, known)
                show_plans(plans, options, as_json=as_json)
                for code in codes:
                    batch.record(code)
            else:
                await batch.measure(client, wanted, known)

    ctx.exit(batch.run(body))


def _nothing(chosen: ModelFilter) -> tuple[str, str]:
    """What is wrong where ``--all`` means no model, and what to do."""
    if chosen:
        return (
            "no model is like that",
            "`lmstrix scan` takes the same options; without, it shows all.",
        )
    return "there is no model to measure", "See `lmstrix scan`."


def _check_usage(models: Sequence[str], chosen: ModelFilter, *, all_models: bool) -> None:
    """Names, or all; a filter says which of all."""
    if models and all_models:
        raise click.UsageError("--all takes no model names.")
    if chosen and not all_models:
        raise click.UsageError("--name, --type, --format and sizes choose among --all.")
    if not models and not all_models:
        raise click.UsageError("name one or more models (see `lmstrix scan`), or say --all.")


def _measure_options(*, no_certify: bool, budget: float | None, **numbers: Any) -> MeasureOptions:  # noqa: ANN401 - as above
    if numbers["only_at"] is not None and numbers["max_context"] is not None:
        raise click.UsageError("--at looks at one length: --max-context has no place beside it.")
    return MeasureOptions(certify=not no_certify, budget_s=budget, **numbers)


async def _choose(
    client: LMStrix, models: Sequence[str], chosen: ModelFilter, options: MeasureOptions
) -> tuple[Chosen, Known]:
    """The models by their names; without names all that can be asked, and what is known."""
    if models:
        return models, {}
    everything = await _everything(client, chosen)
    return everything, await known_reports(client, everything, options)


async def _everything(client: LMStrix, chosen: ModelFilter) -> Sequence[ModelInfo]:
    """All that can be asked questions, smallest first; the others are named on stderr."""
    found = chosen.keep(await client.list_models())
    for model in found:
        if not _speaks(model):
            safe_text.note(
                f"left out: {safe_text.label(model.key)} ({safe_text.label(model.type)})"
            )
    return sorted(filter(_speaks, found), key=lambda model: (model.size_bytes, model.key))


def _speaks(model: ModelInfo) -> bool:
    """Adapters call a model that generates text ``llm`` or ``vlm``; the rest cannot answer."""
    return model.type in {"llm", "vlm"}
