"""``lmstrix import``: results from another machine or another store."""

from __future__ import annotations

from collections.abc import Mapping

import click

from lmstrix import Archive, SqliteStore, StoreContents, StoreError, load_contents
from lmstrix.reports.words import say_count
from lmstrix_cli import output, session
from lmstrix_cli.results import SOURCE, read_text
from lmstrix_cli.settings import Settings, pass_settings

EPILOG = """\b
Examples:
  lmstrix import results.json
  lmstrix import results.json --dry-run
  lmstrix --store other.sqlite3 export | lmstrix import -
"""

STDIN = "-"
_HINT = "Give the output of `lmstrix export`."
_STORE_HINT = "Export it first: `lmstrix --store FILE export | lmstrix import -`."
_REPORTS_HINT = "It holds reports: `lmstrix report --from FILE` shows them."
_EXPORT_HEAD = '"lmstrix-store"'
_HEAD_CHARACTERS = 200
"""An export says within them what it is."""
_REPORT_HEAD = '{"model": {"key": '
"""How a line of ``lmstrix list --json`` begins."""


@click.command(name="import", epilog=EPILOG)
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=SOURCE)
@click.option("--dry-run", is_flag=True, help="Only show what would be added.")
@pass_settings
def command(settings: Settings, files: tuple[str, ...], *, dry_run: bool) -> None:
    """Add the contents of exported FILEs to the store; - is stdin.

    Nothing that is in the store is changed, and a file with an error in it adds nothing.
    """
    if files.count(STDIN) > 1:
        raise click.UsageError("stdin (-) can be read only once.")
    # All are read before any is merged: a mistyped name adds nothing.
    found = {"stdin" if file == STDIN else file: _read(file) for file in files}
    session.run(lambda: _merge(settings, found, dry_run=dry_run))


def _read(source: str) -> StoreContents:
    text = read_text(source, _HINT, _STORE_HINT)
    if _EXPORT_HEAD not in text[:_HEAD_CHARACTERS]:
        hint = _REPORTS_HINT if text.startswith(_REPORT_HEAD) else _HINT
        raise StoreError(f"{source!r} is not an LMStrix export", hint=hint)
    try:
        return load_contents(text)
    except StoreError as error:
        said = str(error).replace("This is", f"{source!r} is", 1)
        raise StoreError(f"{said} Nothing was added.", hint=error.hint) from error


async def _merge(settings: Settings, found: Mapping[str, StoreContents], *, dry_run: bool) -> None:
    """One after the other, each shown at once: a later failure does not hide what was added."""
    async with session.client(settings) as client:
        archive: Archive = session.archive_of(client)
        if dry_run:
            copy = SqliteStore.in_memory()
            await copy.merge(await archive.contents())
            archive = copy
        for source, contents in found.items():
            merged = await archive.merge(contents)
            known = len(contents.measurements) - merged.measurements
            output.out(
                f"{source}: {'would add' if dry_run else 'added'}"
                f" {say_count(merged.measurements, 'measurement')}"
                f" with {say_count(merged.trials, 'trial')},"
                f" {say_count(merged.reports, 'report')}; {known:,} already in the store."
            )
