"""``lmstrix bench``: how fast a model reads and writes, by context length."""

from __future__ import annotations

from typing import Any

import click

from lmstrix import BenchFinished, BenchOptions, BenchPoint, Event, SpeedBench, to_json
from lmstrix.reports.text import BENCH_HEAD, bench_row, render_bench
from lmstrix_cli import output, session
from lmstrix_cli.errors import ExitCode
from lmstrix_cli.options import count_option, max_context_option, seed_option
from lmstrix_cli.output import JSON, TABLE, Column, choose_format, format_options, show_rows
from lmstrix_cli.progress import choose_progress
from lmstrix_cli.settings import Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix bench path/to/model.gguf --max-context 8k
  lmstrix bench model-key --rounds 1 --json > bench.json
  lmstrix bench model-key --format csv > bench.csv
"""


def _column(at: int, key: str) -> Column[BenchPoint]:
    return Column(key, BENCH_HEAD[at], lambda point: bench_row(point)[at], right=True)


_COLUMNS = [
    _column(0, "length_tokens"),
    _column(1, "prefill_tokens_per_second"),
    _column(3, "ttft_s"),
    _column(4, "tokens_per_second"),
    _column(6, "reused"),
    _column(7, "warm_ttft_s"),
]
DEFAULTS = BenchOptions()


@click.command(name="bench", epilog=EPILOG)
@click.argument("model")
@max_context_option(
    "Largest length: 8192, 8k. Default: the true context if the model was measured, else the"
    " declared one, at most 8k."
)
@count_option(
    "--rounds",
    1,
    DEFAULTS.rounds,
    "How often each length is measured, each time with another text.",
)
@seed_option(DEFAULTS.seed, "Another number creates other texts.")
@format_options("one object, with every reply")
@click.pass_context
@pass_settings
def command(
    settings: Settings,
    ctx: click.Context,
    model: str,
    *,
    kind: str | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - click gives each option's value by its name
) -> None:
    """Measure how fast MODEL reads a prompt (prefill) and generates, at lengths that double.

    At each length it sends a new text, and then the same text with another request at the end.
    That shows both speeds, the time to first token, and how much of the text the engine reuses
    from its KV cache. It loads no more than memory is expected to hold.
    """
    kind = choose_format(kind, as_json=as_json)
    progress = choose_progress()
    finished: list[SpeedBench] = []

    def hear(event: Event) -> None:
        if isinstance(event, BenchFinished):
            finished.append(event.bench)

    async def measure() -> SpeedBench:
        async with session.client(settings) as client:
            with progress:
                return await client.bench(
                    model, BenchOptions(**options), observers=[progress, hear]
                )

    try:
        _show(session.run(measure), kind=kind)
    except session.Interrupted:
        if finished and finished[0].points:
            _show(finished[0], kind=kind)
        output.note("Interrupted.")
        ctx.exit(ExitCode.PARTIAL)


def _show(found: SpeedBench, *, kind: str) -> None:
    if kind == JSON:
        output.json_line(to_json(found))
    elif kind == TABLE:
        output.out(output.verbatim(render_bench(found, width=output.line_width())))
    else:
        show_rows(kind, _COLUMNS, found.points)
