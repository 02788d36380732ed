"""``lmstrix export``: the whole store as one JSON document."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lmstrix import LMStrixError, dump_contents
from lmstrix.files import replace_file
from lmstrix.reports.words import say_count
from lmstrix_cli import output, session
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix export results.json
  lmstrix export | gzip > results.json.gz
  lmstrix --store other.sqlite3 export | lmstrix import -
"""

STDOUT = "-"


@click.command(name="export", epilog=EPILOG)
@click.argument("file", default=STDOUT, metavar="[FILE]")
@click.option("--force", is_flag=True, help="Replace FILE if it is there already.")
@pass_settings
def command(settings: Settings, file: str, *, force: bool) -> None:
    """Write every measurement, trial and report of the store to FILE, or to stdout.

    `lmstrix import` reads it on another machine. No engine is needed.
    """
    path = None if file == STDOUT else Path(file)
    if path is not None:
        _check(path, force=force)
    text, kept, reports = session.run(lambda: _contents(settings))
    if path is None:
        output.json_line(text)
    else:
        _write(path, f"{text}\n")
    where = "stdout" if path is None else file
    output.note(
        f"Exported to {where}: {say_count(kept, 'measurement')}, {say_count(reports, 'report')}."
    )


async def _contents(settings: Settings) -> tuple[str, int, int]:
    """The document, and how many measurements and reports are in it."""
    async with session.client(settings) as client:
        contents = await session.archive_of(client).contents()
    reports = sum(kept.report is not None for kept in contents.measurements)
    return dump_contents(contents), len(contents.measurements), reports


def _check(path: Path, *, force: bool) -> None:
    """Nothing is replaced unasked, and a folder never."""
    if path.is_dir():
        raise LMStrixError(f"{str(path)!r} is a folder", hint="Name a file in it.")
    if path.is_file() and not force:
        raise LMStrixError(
            f"{str(path)!r} is there already", hint="Give another name, or replace it with --force."
        )


def _write(path: Path, text: str) -> None:
    """All of it or nothing: whoever reads meanwhile finds the old file or the new one.

    A pipe or a device takes the text as it is: in its place no file may be put.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            target = Path(os.path.realpath(path))  # a link stays one
            replace_file(target, text.encode(), like=target)
    except OSError as error:
        raise LMStrixError(
            f"{str(path)!r} cannot be written: {error.strerror or error}",
            hint="Give another file; its folder must be there.",
        ) from error
