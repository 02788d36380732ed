"""``lmstrix export``: the whole store as one JSON document."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import click

from lmstrix.errors import LMStrixError
from lmstrix.reports.quantities import say_count
from lmstrix.stores.exchange import dump_contents
from lmstrix_cli import safe_text, session
from lmstrix_cli.running import run_async
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix export results.json
  lmstrix export | gzip > results.json.gz
  lmstrix --store results.jsonl export | lmstrix import -
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
    if file != STDOUT and not force and Path(file).exists():
        raise LMStrixError(
            f"{file!r} is there already", hint="Give another name, or replace it with --force."
        )
    text, kept, reports = run_async(lambda: _contents(settings))
    if file == STDOUT:
        safe_text.json_line(text)
    else:
        _write(Path(file), f"{text}\n")
    where = "stdout" if file == STDOUT else safe_text.label(file)
    safe_text.note(
        f"Exported to {where}: {say_count(kept, 'measurement')}, {say_count(reports, 'report')}."
    )


async def _contents(settings: Settings) -> tuple[str, int, int]:
    """The document, and how many measurements and reports are in it."""
    async with session.client(settings) as client:
        contents = await session.archive_of(client).contents()
    reports = sum(kept.report is not None for kept in contents.measurements)
    return dump_contents(contents), len(contents.measurements), reports


def _write(path: Path, text: str) -> None:
    """All of it or nothing: whoever reads meanwhile finds the old file or the new one."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".lmstrix-", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise LMStrixError(
            f"{str(path)!r} cannot be written: {error.strerror or error}",
            hint="Give another file; its folder must be there.",
        ) from error
