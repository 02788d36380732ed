"""``lmstrix map``: what a model still knows, by length and depth."""

from __future__ import annotations

from typing import Any

import click

from lmstrix import ContextMap, MapOptions, to_json
from lmstrix.reports.text import render_map
from lmstrix_cli import output, session
from lmstrix_cli.options import (
    count_option,
    force_option,
    json_option,
    max_context_option,
    ratio_option,
    seed_option,
)
from lmstrix_cli.progress import choose_progress
from lmstrix_cli.settings import Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix map path/to/model.gguf --max-context 8k
  lmstrix map model-key --lengths 8 --json > map.json
"""

DEFAULTS = MapOptions()


@click.command(name="map", epilog=EPILOG)
@click.argument("model")
@max_context_option("Largest length to map: 8192, 8k. Default: the declared context, at most 32k.")
@count_option("--lengths", 2, DEFAULTS.lengths, "Number of lengths, evenly spaced.")
@count_option("--trials", 1, DEFAULTS.trials, "Questions of each kind at each length.")
@ratio_option(DEFAULTS.ratio, "Fraction of the score at the shortest length that counts as kept.")
@seed_option(DEFAULTS.seed, "Another number creates another document and other questions.")
@force_option(
    "Map even if the engine reads every prompt again from the start. On Ollama, also replace a"
    " model that you have loaded."
)
@json_option("The map as one JSON object.")
@pass_settings
def command(
    settings: Settings,
    model: str,
    *,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click gives each option's value by its name
) -> None:
    """Show how much MODEL recalls, by prompt length and by position in the prompt (depth).

    Reads one document, and asks at each length for facts and passages from every depth. If the
    engine cannot reuse its KV cache, this costs far more: it then stops, unless you give --force.
    """
    progress = choose_progress()

    async def ask() -> ContextMap:
        async with session.client(settings) as client:
            with progress:
                return await client.map_context(model, MapOptions(**options), observers=[progress])

    found = session.run(ask)
    if as_json:
        output.json_line(to_json(found))
    else:
        output.out(output.verbatim(render_map(found, width=output.line_width())))
