"""``lmstrix scan``: which models are there?"""

from __future__ import annotations

import json
from collections.abc import Sequence

import attrs
import click

from lmstrix import UNFINISHED, LMStrix, ModelInfo, Status, StoreError, to_json
from lmstrix.reports.words import say_bytes, say_count, say_tokens
from lmstrix_cli import output, session
from lmstrix_cli.options import ModelFilter, model_filters
from lmstrix_cli.output import JSON, Column, choose_format, format_options, show_rows
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix scan
  lmstrix scan --name 'qwen*' --max-size 8g --type llm
  lmstrix scan --json
  lmstrix scan --format csv > models.csv
"""


@attrs.frozen
class _Found:
    """A model, and the newest true context of this very file; None if there is none."""

    model: ModelInfo
    tested: int | None


@click.command(name="scan", epilog=EPILOG)
@model_filters()
@format_options("one object for each model")
@pass_settings
def command(settings: Settings, *, chosen: ModelFilter, kind: str | None, as_json: bool) -> None:
    """List the available models.

    Lists the models of LM Studio and the GGUF files in the folders of the embedded engine; with
    --adapter or --host only the models there. Loads nothing. Give `lmstrix test` a name from the
    column MODEL; a path to any GGUF file works too. TRUE is the true context, if it was measured.
    """
    kind = choose_format(kind, as_json=as_json)
    found, status = session.run(lambda: _scan(settings))
    wanted = {model.key for model in chosen.keep(row.model for row in found)}
    kept = [row for row in found if row.model.key in wanted]
    if kind == JSON:
        for row in kept:
            output.json_line(_as_json(row))
    elif kept or kind == "csv":
        show_rows(kind, _COLUMNS, kept)
    elif found:
        output.note(f"No match among {say_count(len(found), 'model')}.")
    elif status is not None:
        output.out(_nothing_found(status))


async def _scan(settings: Settings) -> tuple[Sequence[_Found], Status | None]:
    async with session.client(settings) as client:
        for status in await client.other_servers():
            output.note(
                f"{status.engine} answers too: `lmstrix --adapter {status.adapter} scan` lists its"
                " models."
            )
        models = await session.every_model(client, settings)
        if not models:
            return [], await client.status()
        tested = await _tested(client)
        return [_Found(model, tested.get(model.identity)) for model in models], None


async def _tested(client: LMStrix) -> dict[str, int]:
    """The newest true contexts, by `ModelInfo.identity`; models are shown without a store too."""
    try:
        summaries = await client.summaries()
    except StoreError as error:
        output.note(f"store: {error}")
        return {}
    known: dict[str, int] = {}
    for summary in summaries:
        if summary.true_context is not None and summary.cause not in UNFINISHED:
            known.setdefault(summary.model_identity, summary.true_context)
    return known


def _as_json(row: _Found) -> str:
    document = json.loads(to_json(row.model))
    document["tested_context"] = row.tested
    return json.dumps(document, ensure_ascii=False)


_COLUMNS: list[Column[_Found]] = [
    Column(key="model", head="MODEL", least=18, value=lambda row: row.model.key),
    Column(key="type", head="TYPE", value=lambda row: row.model.type),
    Column(
        key="format",
        head="FORMAT",
        least=8,
        value=lambda row: row.model.format,
        text=lambda row: " ".join(filter(None, (row.model.format, row.model.architecture))),
    ),
    Column(
        key="size_bytes",
        head="SIZE",
        right=True,
        value=lambda row: row.model.size_bytes or None,
        text=lambda row: say_bytes(row.model.size_bytes),
    ),
    Column(
        key="quantization",
        head="QUANTIZATION",
        short="QUANT",
        least=6,
        value=lambda row: row.model.quantization,
    ),
    Column(
        key="declared_context",
        head="DECLARED",
        right=True,
        value=lambda row: row.model.declared_context,
        text=lambda row: say_tokens(row.model.declared_context),
    ),
    Column(key="tested_context", head="TRUE", right=True, value=lambda row: row.tested),
    Column(key="architecture", value=lambda row: row.model.architecture),
    Column(key="parameters", value=lambda row: row.model.parameters),
    Column(key="path", value=lambda row: row.model.path),
    Column(key="digest", value=lambda row: row.model.digest),
]


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
