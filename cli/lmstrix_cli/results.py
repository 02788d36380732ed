"""Results for `report`, `compare` and `import`: read from the store or from files, and written."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import click

from lmstrix import (
    ContextMap,
    ContextReport,
    FormatError,
    LMStrixError,
    NotMeasured,
    StoredReport,
    is_store,
    load_map,
    load_report,
    reports_of,
)
from lmstrix_cli import output, session
from lmstrix_cli.settings import Settings

__all__ = [
    "MARKERS",
    "SOURCE",
    "STDOUT",
    "all_of",
    "choose_format",
    "gather",
    "newest_of",
    "newest_of_each",
    "read_maps",
    "read_text",
    "source_option",
    "write_report",
]

# Read

SOURCE = click.Path(exists=True, dir_okay=False, allow_dash=True)
MOST_BYTES = 1 << 30
"""Largest file that is read: a hundred thousand reports, or an export with all their trials."""
LARGEST = 2**63 - 1
"""Largest whole number that a report may hold."""
_HINT = "Give the output of `lmstrix test --json` or `lmstrix list --json`."
_EXPORT_HEAD = '{"format": '
_STORE_HINT = "Use it as the store instead: lmstrix --store FILE COMMAND."
_MAP_HINT = "Give the output of `lmstrix map --json`."

source_option = click.option(
    "--from",
    "sources",
    type=SOURCE,
    multiple=True,
    metavar="FILE",
    help="Read the output of `lmstrix test --json` instead of the store; - is stdin.",
)


def gather(settings: Settings, sources: Sequence[str]) -> Sequence[ContextReport]:
    """The reports in the files `sources` in their order, or else in the store, newest first.

    Raises `NotMeasured` if there is none, and `FormatError` for a file of something else.
    """
    if sources:
        found = [report for source in sources for report in _read_reports(source)]
        if not found:
            raise NotMeasured("the input has no report", hint=_HINT)
        return found
    reports = session.run(lambda: _stored(settings))
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
    return [_map(text, s) for s in sources for text in _documents(s, _MAP_HINT)]


def _newest_first(reports: Sequence[ContextReport]) -> list[ContextReport]:
    return sorted(reports, key=lambda report: report.finished_at, reverse=True)


async def _stored(settings: Settings) -> Sequence[StoredReport]:
    async with session.client(settings) as client:
        return await client.reports()


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
        return load_map(text)
    except FormatError as error:
        hint = error.hint or _MAP_HINT
        raise FormatError(f"{source!r} does not hold a map: {_first(error)}", hint=hint) from error


def _first(error: FormatError) -> str:
    """The first complaint, without the name of our class: something else has one about every
    key.
    """
    said = str(error).split("; ")[0]
    return output.label(said.partition(": ")[2] if said.startswith("not a ") else said, 200)


def _documents(source: str, hint: str) -> Iterator[str]:
    """The JSON documents in a file, one on a line or not; ``-`` is stdin."""
    text = read_text(source, hint)
    decoder = json.JSONDecoder(parse_int=_count)
    start = _skip_space(text, 0)
    while start < len(text):
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{source!r} is not valid JSON", hint=hint) from error
        yield text[start:end]
        start = _skip_space(text, end)


def _count(digits: str) -> int:
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


# Write

STDOUT = "-"
MARKERS = {
    "html": (b'<meta name="generator" content="LMStrix',),
    "md": (b"<!-- LMStrix -->",),
    "json": (b'{"model": {"key": ', b'{"results": [{"model": '),
    "csv": (b"model,declared_context,loadable_context,",),
}
"""What stands near the beginning of each kind of file of ours."""
_SUFFIXES = {
    ".html": "html",
    ".htm": "html",
    ".md": "md",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
}
_HEAD_BYTES = 1024


def choose_format(
    wanted: str | None, target: str | None, default: str, kinds: Collection[str]
) -> str:
    """The format that was asked for, or that the output's name ends with, or `default`.

    A usage error if the name ends like none of `kinds`: a file should hold what its name says.
    """
    suffix = "" if target in {None, STDOUT} else Path(target or "").suffix.lower()
    if wanted is not None or not suffix:
        return wanted or default
    kind = _SUFFIXES.get(suffix, "")
    if kind not in kinds:
        endings = " or ".join(f".{name}" for name in kinds)
        raise click.UsageError(f"{target!r} does not end in {endings}: say --format as well.")
    return kind


def write_report(target: str, text: str, kind: str, *, force: bool) -> None:
    """Write `text` into the file `target` and say so; ``-`` is stdout.

    A file is replaced only if it is a report of ours, or empty, or with `force`. Raises
    `LMStrixError` if it is neither, or cannot be written.
    """
    if target == STDOUT:
        _print(text, kind)
        return
    path = Path(target)
    try:
        if not force and not _is_ours(path, kind):
            raise LMStrixError(
                f"{target!r} already exists and is not an LMStrix report in this format",
                hint="Give another name with --output, or replace it with --force.",
            )
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise LMStrixError(
            f"{target!r} cannot be written: {error.strerror or error}",
            hint="Give another file with --output; its folder must exist.",
        ) from error
    output.note(f"Written: {target}")


def _print(text: str, kind: str) -> None:
    if kind == "json":
        for line in text.splitlines():
            output.json_line(line)
    else:
        click.echo(text.rstrip("\n"))


def _is_ours(path: Path, kind: str) -> bool:
    """Whether nothing would be lost: no file, no regular one (a pipe), an empty one, or ours."""
    if not path.exists() or not (path.is_file() or path.is_dir()):
        return True
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return not head or any(marker in head for marker in MARKERS[kind])
