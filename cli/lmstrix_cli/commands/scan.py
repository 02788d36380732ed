"""``lmstrix scan``: which models are there?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import click

from lmstrix import LMStrix, ModelInfo, Status, StoreError, to_json
from lmstrix.reports.words import say_bytes, say_count, say_tokens
from lmstrix_cli import output, session
from lmstrix_cli.options import ModelFilter, model_filters
from lmstrix_cli.output import JSON, Column, choose_format, format_options, show_rows
from lmstrix_cli.results import newest_true
from lmstrix_cli.settings import Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix scan
  lmstrix scan --name 'qwen*' --max-size 8g --type llm
  lmstrix scan --json
  lmstrix scan --format csv > models.csv
"""


@attrs.frozen
class _Row:
    adapter: str
    model: ModelInfo
    tested: int | None


@click.command(name="scan", epilog=EPILOG)
@model_filters()
@format_options("one model on each line (JSON Lines)")
@pass_settings
def command(settings: Settings, *, kind: str | None, as_json: bool, **filters: Any) -> None:  # noqa: ANN401 - click gives each option's value by its name
    """List the available models.

    Lists the models of LM Studio, Ollama and llama-server on this machine, and the GGUF files in
    the embedded engine's folders (SERVER `llamacpp`). With --adapter or --host, only the models
    there. Loads nothing. `lmstrix test` takes a name from the column MODEL, or the path
    of any GGUF file. TRUE is the true context, if it was measured.
    """
    chosen, kind = ModelFilter.take(filters), choose_format(kind, as_json=as_json)
    found, tested, status = session.ask(lambda: _scan(settings))
    rows = [
        _Row(adapter, model, tested.get(model.identity))
        for adapter, model in found
        if chosen.keep([model])
    ]
    if kind == JSON:
        for row in rows:
            document = json.loads(to_json(row.model))
            document |= {"adapter": row.adapter, "tested_context": row.tested}
            output.json_object(document)
    elif rows or kind == "csv":
        show_rows(kind, _columns(several=settings.adapter is None), rows)
    elif found:
        output.note(f"No match among {say_count(len(found), 'model')}.")
    elif status is not None:
        output.out(_nothing_found(status))


async def _scan(
    settings: Settings,
) -> tuple[Sequence[tuple[str, ModelInfo]], Mapping[str, int], Status | None]:
    async with session.client(settings) as client:
        models = await session.every_model(client, settings)
        if not models:
            return [], {}, await client.status()
        return models, await _tested(client), None


async def _tested(client: LMStrix) -> dict[str, int]:
    """The newest true contexts, by `ModelInfo.identity`; models are shown without a store too."""
    try:
        summaries = await client.summaries()
    except StoreError as error:
        output.note(f"store: {error}")
        return {}
    return {
        identity: summary.true_context or 0
        for identity, summary in newest_true(summaries, by="model_identity").items()
    }


def _columns(*, several: bool) -> list[Column[_Row]]:
    """With the column SERVER for people if `several` were asked."""
    return [
        _fact("key", "MODEL", csv="model", least=18),
        Column("adapter", "SERVER" if several else ""),
        _fact("type", "TYPE"),
        _fact(
            "format",
            "FORMAT",
            lambda model: f"{model.format} {model.architecture or ''}".strip() or "-",
            least=8,
        ),
        _fact("size_bytes", "SIZE", lambda model: say_bytes(model.size_bytes), right=True),
        _fact("quantization", "QUANTIZATION", short="QUANT", least=6),
        _fact(
            "declared_context",
            "DECLARED",
            lambda model: say_tokens(model.declared_context),
            right=True,
        ),
        Column("tested_context", "TRUE", value=lambda row: row.tested, right=True),
        *map(_fact, ("architecture", "parameters", "path", "digest")),
    ]


def _fact(
    name: str,
    head: str = "",
    text: Callable[[ModelInfo], str] | None = None,
    *,
    csv: str = "",
    **layout: Any,  # noqa: ANN401 - those of `Column`
) -> Column[_Row]:
    """A column of an attribute of the model. A size that is not known is empty in CSV."""
    return Column(
        csv or name,
        head,
        None if text is None else lambda row: text(row.model),
        lambda row: getattr(row.model, name) or None,
        **layout,
    )


def _nothing_found(status: Status) -> str:
    where = [f"  {output.label(folder)}" for folder in status.model_folders]
    looked = ["Looked in:", *where] if where else [f"Asked the adapter {status.adapter}."]
    return "\n".join(
        (
            "No models found.",
            *looked,
            "",
            "What next:",
            "  lmstrix demo                      get a small model and measure it",
            "  lmstrix test path/to/model.gguf   measure a GGUF file from anywhere",
        )
    )
