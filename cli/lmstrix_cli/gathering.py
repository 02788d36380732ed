"""Results for `report` and `compare`: from the store, or from what was printed as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import click

from lmstrix.errors import LMStrixError, NotMeasured
from lmstrix.models import MAP_SCHEMA_VERSION, ContextMap, ContextReport, StoredReport
from lmstrix.names import reports_of
from lmstrix.serialize import FormatError, from_json, load_report
from lmstrix.stores.sqlite import is_store
from lmstrix_cli import safe_text, session
from lmstrix_cli.running import run_async
from lmstrix_cli.settings import Settings

__all__ = ["SOURCE", "all_of", "gather", "newest_of", "newest_of_each", "read_maps", "read_text"]

SOURCE = click.Path(exists=True, dir_okay=False, allow_dash=True)
MOST_BYTES = 1 << 30
"""Largest file that is read: a hundred thousand reports, or an export with all their trials."""
LARGEST = 2**63 - 1
_HINT = "Give what `lmstrix test --json` or `lmstrix list --json` printed."
_EXPORT_HEAD = '{"format": '
_STORE_HINT = "Name it before the command instead: lmstrix --store FILE COMMAND."
_MAP_HINT = "Give what `lmstrix map --json` printed."


def gather(settings: Settings, sources: Sequence[str]) -> Sequence[ContextReport]:
    """The reports in the files `sources` in their order, or else in the store, newest first.

    Raises `NotMeasured` if there is none, and `FormatError` for a file of something else.
    """
    if sources:
        found = [report for source in sources for report in _read_reports(source)]
        if not found:
            raise NotMeasured("the input has no report", hint=_HINT)
        return found
    reports = run_async(lambda: _stored(settings))
    if not reports:
        raise NotMeasured(
            "nothing was measured yet",
            hint="Measure a model first: lmstrix test MODEL. No model at hand: lmstrix demo.",
        )
    return [stored.report for stored in reports]


def newest_of(reports: Sequence[ContextReport], names: Sequence[str]) -> list[ContextReport]:
    """The newest report of each model in `names`, each once; raises what `all_of` raises."""
    newest = [_newest_first(all_of(reports, name))[0] for name in names]
    return list({id(report): report for report in newest}.values())


def all_of(reports: Sequence[ContextReport], name: str) -> list[ContextReport]:
    """Every report of the model that `name` means; raises `ModelNotFound` or `NotMeasured`."""
    return list(reports_of([StoredReport(id="", key="", report=r) for r in reports], name))


def newest_of_each(reports: Sequence[ContextReport]) -> list[ContextReport]:
    """The newest report of every model, the newest of all first."""
    newest: dict[str, ContextReport] = {}
    for report in _newest_first(reports):
        newest.setdefault(report.model.key, report)
    return list(newest.values())


def read_maps(sources: Sequence[str]) -> list[ContextMap]:
    """The maps in files that ``lmstrix map --json`` wrote; raises `FormatError`."""
    maps = [_map(text, s) for s in sources for text in _documents(s, _MAP_HINT)]
    for found in maps:
        if found.schema_version > MAP_SCHEMA_VERSION:
            raise FormatError("a map is of a newer version", hint="Update LMStrix to read it.")
        if not found.lengths or min(found.lengths) < 1:
            raise FormatError("a map has no lengths", hint=_MAP_HINT)
    return maps


def _newest_first(reports: Sequence[ContextReport]) -> list[ContextReport]:
    return sorted(reports, key=lambda report: report.finished_at, reverse=True)


async def _stored(settings: Settings) -> Sequence[StoredReport]:
    async with session.client(settings) as client:
        reports = await client.reports()
        for warning in client.store.warnings:
            safe_text.note(f"store: {safe_text.label(warning)}")
        return reports


def _read_reports(source: str) -> Iterator[ContextReport]:
    for number, text in enumerate(_documents(source, _HINT), start=1):
        try:
            yield load_report(text)
        except FormatError as error:
            if text.startswith(_EXPORT_HEAD):
                hint = "It is an export: add it to a store with `lmstrix import FILE`."
            else:
                hint = error.hint or _HINT
            raise FormatError(
                f"document {number} of {source!r} is not a report: {_first(error)}", hint=hint
            ) from error


def _map(text: str, source: str) -> ContextMap:
    try:
        return from_json(text, ContextMap)
    except FormatError as error:
        raise FormatError(f"{source!r} holds no map: {_first(error)}", hint=_MAP_HINT) from error


def _first(error: FormatError) -> str:
    """The first complaint, without the name of our class: something else has one about every
    key.
    """
    said = str(error).split("; ")[0]
    return safe_text.label(said.partition(": ")[2] if said.startswith("not a ") else said, 200)


def _documents(source: str, hint: str) -> Iterator[str]:
    """The JSON documents in a file, one on a line or not; ``-`` is stdin."""
    text = read_text(source, hint)
    decoder = json.JSONDecoder(parse_int=_count)
    start = _skip_space(text, 0)
    while start < len(text):
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{source!r} holds no sound JSON", hint=hint) from error
        yield text[start:end]
        start = _skip_space(text, end)


def _count(digits: str) -> int:
    """A whole number that a report may hold; with larger ones nobody can reckon."""
    number = int(digits)
    if abs(number) > LARGEST:
        raise ValueError("a number is impossibly large")
    return number


def _skip_space(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start


def read_text(source: str, hint: str, store_hint: str = _STORE_HINT) -> str:
    """The text of a file that the user named, or of stdin; `hint` describes the right one.

    Raises `FormatError`, or `LMStrixError` if it cannot be read.
    """
    try:
        with click.open_file(source, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise LMStrixError(f"{source!r} cannot be read: {error.strerror}", hint=hint) from error
    if len(data) > MOST_BYTES:
        raise FormatError(f"{source!r} is too large", hint=hint)
    if is_store(data):
        raise FormatError(f"{source!r} is a store", hint=store_hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{source!r} is not text in UTF-8", hint=hint) from error
