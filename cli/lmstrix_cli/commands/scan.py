"""``lmstrix scan``: which models are there?"""

from __future__ import annotations

from collections.abc import Sequence

import click

from lmstrix.converter import to_json
from lmstrix.models import ModelInfo, Status
from lmstrix.reports.quantities import say_bytes, say_tokens
from lmstrix_cli import safe_text, session
from lmstrix_cli.running import run_async
from lmstrix_cli.settings import Settings, pass_settings
from lmstrix_cli.tables import columns

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix scan
  lmstrix scan --json
"""

HEAD = ("MODEL", "FORMAT", "SIZE", "QUANTIZATION", "DECLARED")


@click.command(name="scan", epilog=EPILOG)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object for each model (JSON Lines)."
)
@pass_settings
def command(settings: Settings, *, as_json: bool) -> None:
    """Look for models.

    Nothing is loaded. What stands in the column MODEL is what `lmstrix test` takes; a path to
    a GGUF file works too.
    """
    models, status = run_async(lambda: _scan(settings))
    if as_json:
        for model in models:
            safe_text.json_line(to_json(model))
    elif models:
        safe_text.out(columns(HEAD, [_row(model) for model in models], right=(2, 4)))
    elif status is not None:
        safe_text.out(_nothing_found(status))


async def _scan(settings: Settings) -> tuple[Sequence[ModelInfo], Status | None]:
    async with session.open_client(settings) as client:
        models = await client.list_models()
        return models, None if models else await client.status()


def _row(model: ModelInfo) -> tuple[str, ...]:
    kind = "" if model.type in {"", "llm"} else model.type
    return (
        model.key,
        " ".join(part for part in (model.format, model.architecture, kind) if part),
        say_bytes(model.size_bytes),
        model.quantization,
        say_tokens(model.declared_context),
    )


def _nothing_found(status: Status) -> str:
    where = [f"  {safe_text.label(folder)}" for folder in status.model_folders]
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
