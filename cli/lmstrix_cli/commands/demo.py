"""``lmstrix demo``: the whole tool in one go."""

from __future__ import annotations

import shlex
from dataclasses import replace

import click

from lmstrix import LMStrix, MeasureOptions
from lmstrix.demo import fetch_demo_model
from lmstrix.errors import EngineUnavailable
from lmstrix_cli import safe_text, session
from lmstrix_cli.errors import ExitCode
from lmstrix_cli.measurements import Batch
from lmstrix_cli.progress import choose_progress
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix demo
  lmstrix demo --json
"""


@click.command(name="demo", epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_context
@pass_settings
def command(settings: Settings, ctx: click.Context, *, as_json: bool, quiet: bool) -> None:
    """Download a small model and measure it with the embedded engine.

    The model is fetched once and kept in your cache folder. Needs the extra `llamacpp`:
    pip install "lmstrix[llamacpp]". No server is used; --adapter and --host do not matter.
    """
    settings = replace(settings, adapter=session.EMBEDDED, host=None)
    batch = Batch(
        options=MeasureOptions(),
        progress=choose_progress(quiet=quiet),
        as_json=as_json,
        again=settings.command_again(),
    )
    paths: list[str] = []

    async def body() -> None:
        async with session.client(settings) as client:
            await _check_engine(client)
            path = await fetch_demo_model(announce=safe_text.note)
            paths.append(str(path))
            await batch.measure(client, paths)

    code = batch.run(body)
    if code is ExitCode.MEASURED and not (quiet or settings.quiet):
        safe_text.note(_what_next(paths[0]))
    ctx.exit(code)


async def _check_engine(client: LMStrix) -> None:
    """Nothing is downloaded for an engine that is not there."""
    status = await client.status()
    if not status.available:
        reason = status.detail or f"the engine {status.engine} is not available"
        raise EngineUnavailable(reason, hint=status.hint)


def _what_next(path: str) -> str:
    return "\n".join(
        (
            "",
            "What next:",
            f'  lmstrix infer {shlex.quote(path)} "Why is the sky blue?"',
            "  lmstrix list                      list the results",
            "  lmstrix scan                      which models are there?",
            "  lmstrix test path/to/model.gguf   measure one of yours",
        )
    )
