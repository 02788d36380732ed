"""``lmstrix export``: the whole store as one JSON document."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lmstrix import LMStrixError, StoreContents, dump_contents
from lmstrix.reports.words import say_count
from lmstrix_cli import output, session
from lmstrix_cli.results import STDOUT, write_file
from lmstrix_cli.settings import PATH, Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix export results.json
  lmstrix export | gzip > results.json.gz
  lmstrix --store other.sqlite3 export | lmstrix import -
"""


@click.command(name="export", epilog=EPILOG)
@click.argument("file", default=STDOUT, metavar="[FILE]", type=PATH)
@click.option("--force", is_flag=True, help="Replace FILE if it already exists.")
@pass_settings
def command(settings: Settings, file: str, *, force: bool) -> None:
    """Write every measurement, trial and report of the store to FILE, or to stdout.

    `lmstrix import` reads it on another machine. Needs no engine.
    """
    if file != STDOUT and os.path.isfile(file) and not force:
        raise LMStrixError(
            f"{file!r} already exists", hint="Give another name, or replace it with --force."
        )
    kept = session.run(lambda: _contents(settings))
    if file == STDOUT:
        output.json_line(dump_contents(kept))
    else:
        write_file(Path(file), f"{dump_contents(kept)}\n")
    where = "stdout" if file == STDOUT else file
    reports = sum(one.report is not None for one in kept.measurements)
    output.note(
        f"Exported to {where}: {say_count(len(kept.measurements), 'measurement')},"
        f" {say_count(reports, 'report')}."
    )


async def _contents(settings: Settings) -> StoreContents:
    async with session.client(settings) as client:
        return await session.archive_of(client).contents()
