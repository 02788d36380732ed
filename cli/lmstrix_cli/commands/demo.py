"""``lmstrix demo``: the whole tool in one go."""

from __future__ import annotations

import shlex
from dataclasses import replace

import click

from lmstrix import EMBEDDED_ADAPTER, EngineUnavailable, MeasureOptions, demo
from lmstrix_cli import output, session
from lmstrix_cli.errors import ExitCode
from lmstrix_cli.measurements import Batch
from lmstrix_cli.options import json_option, quick_option
from lmstrix_cli.settings import Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix demo
  lmstrix demo --quick
  lmstrix demo --json
"""


WHAT_NEXT = """
What next:
  lmstrix infer {} "Why is the sky blue?"
  lmstrix list                      list the results
  lmstrix scan                      list the available models
  lmstrix test path/to/model.gguf   measure one of yours"""
HOW_LONG = (
    "This measures a model of 135 million parameters. It takes about 5 to 25 minutes on a laptop's"
    " CPU, and downloads 93 MB the first time. Ctrl-C stops it; the next run continues."
)
QUICKER = " `lmstrix demo --quick` gives a rougher answer sooner."


@click.command(name="demo", epilog=EPILOG)
@quick_option
@json_option("The report as one JSON object.")
@click.pass_context
@pass_settings
def command(settings: Settings, ctx: click.Context, *, quick: bool, as_json: bool) -> None:
    """Download a small model and measure it with the embedded engine.

    Takes about 5 to 25 minutes on a laptop's CPU. The model (93 MB) is downloaded once and kept in
    your cache folder. Needs the embedded engine: pip install xllamacpp. No server is used:
    --adapter and --host are ignored.
    """
    settings = replace(settings, adapter=EMBEDDED_ADAPTER, host=None)
    batch = Batch(settings, options=MeasureOptions(quick=quick), as_json=as_json, explains=True)
    paths: list[str] = []

    async def body() -> None:
        async with session.client(settings) as client:
            status = await client.status()
            if not status.available:  # nothing is downloaded for an engine that is not there
                reason = status.detail or f"the engine {status.engine} is not available"
                raise EngineUnavailable(reason, hint=status.hint)
            output.note(HOW_LONG if quick else HOW_LONG + QUICKER)
            path = await demo.fetch_demo_model(announce=output.note)
            paths.append(str(path))
            await batch.measure(client, paths)

    code = batch.run(body)
    if code is ExitCode.MEASURED:
        output.note(WHAT_NEXT.format(shlex.quote(paths[0])))
    ctx.exit(code)
