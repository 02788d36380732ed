"""``lmstrix import``: what another machine, or an earlier LMStrix, found out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import attrs
import click

from lmstrix.adapters.lmstudio_home import existing_home
from lmstrix.errors import StoreError
from lmstrix.json_values import parse_object
from lmstrix.reports.quantities import say_count
from lmstrix.stores.archive import Archive, Merged, StoreContents
from lmstrix.stores.exchange import (
    EXPORT_FORMAT,
    MAX_DOCUMENT_BYTES,
    load_contents,
    read_document,
)
from lmstrix.stores.memory import MemoryStore
from lmstrix.stores.peeking import foreign, peek
from lmstrix.stores.registry import REGISTRY_NAME, Registry, parse_registry
from lmstrix_cli import safe_text, session
from lmstrix_cli.gathering import SOURCE
from lmstrix_cli.running import run_async
from lmstrix_cli.settings import Settings, pass_settings

__all__ = ["command"]

EPILOG = """\b
Examples:
  lmstrix import results.json
  lmstrix --store results.jsonl export | lmstrix import -
  lmstrix import --registry --dry-run
"""

STDIN = "-"
_WHAT = "what `lmstrix export` has written, or the lmstrix.json of an earlier LMStrix"
_STORE_HINT = "It is a store: `lmstrix --store FILE export | lmstrix import -`."
_REPORTS_HINT = "It holds reports: `lmstrix report --from FILE` shows them."
_REPORT_HEAD = '{"model": {"key": '
"""How a line of ``lmstrix list --json`` begins."""


@attrs.frozen(kw_only=True)
class _Found:
    """What one source holds."""

    source: str
    contents: StoreContents
    registry: Registry | None = None


@click.command(name="import", epilog=EPILOG)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=SOURCE)
@click.option(
    "--registry",
    is_flag=True,
    help=f"Take the {REGISTRY_NAME} that earlier versions keep in LM Studio's home.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="LM Studio's home, for --registry. Default: where LM Studio says it is.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be new.")
@pass_settings
def command(
    settings: Settings,
    files: tuple[str, ...],
    *,
    registry: bool,
    home: Path | None,
    dry_run: bool,
) -> None:
    """Add to the store what FILEs hold and it does not; - is stdin.

    A FILE is an export, or the registry of an earlier LMStrix; which one is seen from its
    contents. Nothing that is in the store is changed, and a file that is not sound adds
    nothing. What earlier versions tested is shown apart by `lmstrix list`: they did not fill
    the window, so their number is no true context.
    """
    if not files and not registry:
        raise click.UsageError("name one or more files, or say --registry.")
    if home is not None and not registry:
        raise click.UsageError("--home says where --registry looks; say --registry too.")
    if files.count(STDIN) > 1:
        raise click.UsageError("stdin (-) can be read only once.")
    sources = [*files, *([str(existing_home(home) / REGISTRY_NAME)] if registry else [])]
    # All are read before any is merged: a mistyped name adds nothing.
    found = [_read(source) for source in sources]
    run_async(lambda: _merge(settings, found, dry_run=dry_run))


def _read(source: str) -> _Found:
    text = _stdin() if source == STDIN else _file(Path(source))
    name = "stdin" if source == STDIN else source
    head = parse_object(text) or {}
    if "llms" in head:  # models as earlier versions kept them
        registry = parse_registry(text)
        contents = StoreContents(imported=registry.results)
        return _Found(source=name, contents=contents, registry=registry)
    if head.get("format") != EXPORT_FORMAT:
        hint = _REPORTS_HINT if text.startswith(_REPORT_HEAD) else f"Give {_WHAT}."
        raise StoreError(f"{name!r} is no export.", hint=hint)
    return _Found(source=name, contents=load_contents(text))


def _file(path: Path) -> str:
    # Not by its first bytes alone: the hint must not lead to a database of another program.
    if path.is_file() and peek(path).kind and not foreign(path):
        raise StoreError(f"{str(path)!r} is no export.", hint=_STORE_HINT)
    return read_document(path, _WHAT)


def _stdin() -> str:
    data = sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise StoreError("What stands on stdin is too large.", hint=f"Give {_WHAT}.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(
            "What stands on stdin is not text in UTF-8.", hint=f"Give {_WHAT}."
        ) from error


async def _merge(settings: Settings, found: Sequence[_Found], *, dry_run: bool) -> None:
    """One after the other, each said at once: what failed later does not hide what was added."""
    async with session.client(settings) as client:
        archive: Archive = session.archive_of(client)
        if dry_run:
            trial = MemoryStore()
            await trial.merge(await archive.contents())
            archive = trial
        for one in found:
            safe_text.out(_say(one, await archive.merge(one.contents), dry_run=dry_run))


def _say(found: _Found, merged: Merged, *, dry_run: bool) -> str:
    """One line on what was new, and what was there or left out."""
    verb = "would add" if dry_run else "added"
    name = safe_text.label(found.source)
    if found.registry is not None:
        known = len(found.registry.results) - merged.imported
        left_out = found.registry.skipped + found.registry.untested
        return (
            f"{name}: {verb} {say_count(merged.imported, 'result')} of an earlier LMStrix;"
            f" {known} known already, {left_out} left out (unreadable, or never tested)."
        )
    known = len(found.contents.measurements) - merged.measurements
    older = ""
    if found.contents.imported:
        older = f", {say_count(merged.imported, 'result')} of earlier versions"
    return (
        f"{name}: {verb} {say_count(merged.measurements, 'measurement')} with"
        f" {say_count(merged.trials, 'trial')}, {say_count(merged.reports, 'report')}{older};"
        f" {known} known already."
    )
