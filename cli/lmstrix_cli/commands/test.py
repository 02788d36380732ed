"""``lmstrix test``: measure models."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import click
from click.core import ParameterSource

from lmstrix import ContextReport, LMStrix, LMStrixError, MeasureOptions, ModelError, ModelInfo
from lmstrix.reports.words import say_bytes, say_count
from lmstrix_cli import output, session
from lmstrix_cli.errors import ExitCode
from lmstrix_cli.measurements import Batch, plan_models, show_plans
from lmstrix_cli.options import (
    ModelFilter,
    json_option,
    measure_limits,
    measure_method,
    model_filters,
)
from lmstrix_cli.settings import Settings, pass_settings

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
  1  any other failure; with --at: it fails
  2  wrong usage: an option, a name or a value
  3  server or engine not reachable
  4  a model was not found, or is not measurable
  5  interrupted (which ends the batch) or budget spent; the report is partial
With several models, the code is the first of 5, 3, 2, 1, 4, 0 that occurred.
"""

NO_MATCH = (
    "no model matches these filters",
    "`lmstrix scan` takes the same options; without them it lists all models.",
)
NO_MODEL = ("no model was found", "`lmstrix scan` shows where LMStrix looks for models.")


@click.command(name="test", epilog=EPILOG)
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option(
    "--all",
    "all_models",
    is_flag=True,
    help="Measure every model of LM Studio, smallest first; for those of another engine, add"
    " --adapter. Skips models whose stored result is still valid.",
)
@model_filters("--format")
@click.option("--dry-run", is_flag=True, help="Show the plan and its expected cost. Loads nothing.")
@json_option("One report on each line (JSON Lines).")
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
    dry_run: bool,
    as_json: bool,
    **method: Any,  # noqa: ANN401 - click gives each option's value by its name
) -> None:
    """Measure how much context models really handle, one after another.

    MODEL is a name from `lmstrix scan` or the path of a GGUF file. Without one, the only model of
    the engine that --adapter names is measured; else a terminal shows a list to choose from. The
    report goes to stdout, progress to stderr. Every answer is stored at once: after Ctrl-C, a crash
    or a spent budget, the same command continues. LMStrix unloads no model that it did not load,
    unless you use --force with Ollama.
    """
    chosen = ModelFilter.take(method)
    asks = _somebody_is_there() and not as_json
    if not (models or all_models or chosen) and (settings.adapter or asks):
        models = _unnamed(settings, asks=asks)
    _check_usage(models, chosen, all_models=all_models)
    if method["only_at"] is not None:
        _check_only_at(ctx)
    parts = {name: method.pop(name) for name in ("strategy", "validator", "levels")}
    options = _measure_options(**method)
    batch = Batch(settings, options=options, as_json=as_json)

    async def body() -> None:
        async with session.client(settings, **parts) as client:
            async with client.session(models):
                wanted, known = await _choose(client, models, chosen, options)
                if dry_run and wanted:
                    plans, codes = await plan_models(client, wanted, options, known)
                    show_plans(plans, options, as_json=as_json)
                    for code in codes:
                        batch.record(code)
            if not wanted:
                output.error(*(NO_MATCH if chosen else NO_MODEL))
                batch.record(ExitCode.NOT_MEASURABLE)
            elif not dry_run:
                await batch.measure(client, wanted, known)

    ctx.exit(batch.run(body))


def _somebody_is_there() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _unnamed(settings: Settings, *, asks: bool) -> tuple[str, ...]:
    """The only model of the engine that --adapter names, or the one that a person chooses by its
    number; none if there is none, or no answer.
    """

    async def read() -> Sequence[tuple[str, ModelInfo]]:
        async with session.client(settings) as client:
            everything = await session.every_model(client, settings)
        speak = [(adapter, model) for adapter, model in everything if model.generates_text]
        return sorted(speak, key=lambda one: (one[1].size_bytes, one[1].key))

    found = session.ask(read)
    if settings.adapter and len(found) == 1:
        return (found[0][1].key,)
    if not (found and asks):
        return ()
    for number, (adapter, model) in enumerate(found, start=1):
        words = (output.label(model.key), say_bytes(model.size_bytes), output.label(adapter))
        click.echo(f"{number:3}  {'  '.join(filter(None, words))}", err=True)
    try:
        answer = click.prompt(
            f"Number of the model to measure (1 to {len(found)}, Ctrl-C for none)",
            type=click.IntRange(1, len(found)),
            err=True,
        )
    except click.Abort:  # the end of what is typed
        return ()
    settings.adapter, model = found[answer - 1]
    return (model.key,)


def _check_usage(models: Sequence[str], chosen: ModelFilter, *, all_models: bool) -> None:
    """Either names or ``--all``; filters need ``--all``."""
    if models and all_models:
        raise click.UsageError("--all takes no model names.")
    if chosen and not all_models:
        raise click.UsageError(
            "--name, --type, --format and the sizes choose models, and need --all. JSON: --json."
        )
    if not models and not all_models:
        raise click.UsageError("name one or more models (see `lmstrix scan`), or use --all.")


OF_A_SEARCH = frozenset(
    {
        *("max_context", "tolerance", "strategy", "quick", "no_certify", "documents"),
        *("min_tokens_per_second", "max_ttft_s"),
    }
)
"""Parameters that mean nothing for one length."""


def _check_only_at(ctx: click.Context) -> None:
    """Raises `click.UsageError` if an option that only a search heeds is given beside ``--at``."""
    for option in ctx.command.params:
        given = ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name in OF_A_SEARCH:
            raise click.UsageError(
                f"--at tests one length and cannot be combined with {option.opts[0]}."
            )


def _measure_options(*, no_certify: bool, budget: float | None, **numbers: Any) -> MeasureOptions:  # noqa: ANN401 - as above
    return MeasureOptions(certify=not no_certify, budget_s=budget, **numbers)


async def _choose(
    client: LMStrix, models: Sequence[str], chosen: ModelFilter, options: MeasureOptions
) -> tuple[Sequence[str | ModelInfo], Mapping[str, ContextReport]]:
    """The named models; without names, all that generate text, and their valid results."""
    if models:
        # A wrong name is told at once, not after hours.
        unknown = [m for m in models if models[1:] and not await _is_found(client, m)]
        return [*unknown, *(m for m in models if m not in unknown)], {}
    found = chosen.keep(await client.list_models())
    for server in await client.other_servers():
        with suppress(LMStrixError):
            if count := len(chosen.keep(await server.list_models())):
                left, engine = say_count(count, "model"), getattr(server, "engine", server.name)
                output.note(
                    f"not included: {left} on {output.label(engine)}; to measure them:"
                    f" --adapter {output.label(server.name)}"
                )
    for model in found:
        if not model.generates_text:
            output.note(f"skipped: {model.key}: a model of type {model.type} cannot be measured")
    # Smallest first.
    speak = [model for model in found if model.generates_text]
    everything = sorted(speak, key=lambda model: (model.size_bytes, model.key))
    return everything, await client.known_reports(everything, options)


async def _is_found(client: LMStrix, name: str) -> bool:
    try:
        await client.adapter_for(name).find_model(name)
    except ModelError:
        return False
    except LMStrixError:
        return True  # its server may answer later
    return True
