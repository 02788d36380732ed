"""Results for `report`, `compare` and `import`: read from the store or from files, and written."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import click

from lmstrix import (
    UNFINISHED,
    Cause,
    ContextMap,
    ContextReport,
    FormatError,
    LMStrixError,
    NotMeasured,
    ReportSummary,
    StoredReport,
    is_store,
    load_map,
    load_report,
    reports_of,
)
from lmstrix.files import replace_file
from lmstrix.json_values import as_object
from lmstrix.plugins import is_model_file
from lmstrix.reports.words import say_count
from lmstrix_cli import output, session
from lmstrix_cli.options import Decorator, chain, force_option
from lmstrix_cli.settings import PATH, Settings

# Read

SOURCE = click.Path(exists=True, dir_okay=False, allow_dash=True)
MOST_BYTES = 1 << 30
"""Largest file that is read: a hundred thousand reports, or an export with all their trials."""
_HINT = "Give the output of `lmstrix test --json` or `lmstrix list --json`."
_EXPORT_HEAD = '{"format": '
_STORE_HINT = "Use it as the store instead: lmstrix --store FILE COMMAND."
_MAP_HINT = "Give the output of `lmstrix map --json`."


def target_options(default: str) -> Decorator:
    """``--output`` as `target`, ``--from`` and ``--force``; `default` is the HTML page's name."""
    return chain(
        click.option(
            "-o",
            "--output",
            "target",
            type=PATH,
            metavar="FILE",
            help="The file to write; - is stdout."
            f" Default for html: {default} in this folder; else stdout.",
        ),
        click.option(
            "--from",
            "sources",
            type=SOURCE,
            multiple=True,
            metavar="FILE",
            help="Read the output of `lmstrix test --json` instead of the store; - is stdin.",
        ),
        force_option("Replace FILE even if it is not an LMStrix report."),
    )


def gather(settings: Settings, sources: Sequence[str]) -> Sequence[ContextReport]:
    """The reports in the files `sources` in their order, or else in the store, newest first; those
    of one adapter if it was named.

    Raises `NotMeasured` if there is none, and `FormatError` for a file of something else.
    """
    if sources:
        found = [report for source in sources for report in _read_reports(source)]
        if not found:
            raise NotMeasured("the input has no report", hint=_HINT)
        kept = [report for report in found if is_of(settings, report.environment.adapter)]
        if not kept:
            raise _none_of(settings, len(found))
        return kept
    reports = stored(settings)
    if not reports:
        raise NotMeasured(
            "nothing has been measured yet",
            hint="Measure a model first: lmstrix test MODEL. No model at hand: lmstrix demo.",
        )
    return [one.report for one in reports]


def newest_of(reports: Sequence[ContextReport], names: Sequence[str]) -> list[ContextReport]:
    """The newest report of each model in `names`, each once (see `_rank`); raises what `all_of`
    raises.
    """
    newest = [max(all_of(reports, name), key=_rank) for name in names]
    return list({id(report): report for report in newest}.values())


def all_of(reports: Sequence[ContextReport], name: str) -> list[ContextReport]:
    """Every report of the model that `name` means; raises `ModelNotFound` or `NotMeasured`."""
    return list(reports_of([StoredReport(id="", key="", report=r) for r in reports], name))


def newest_of_each(reports: Sequence[ContextReport]) -> list[ContextReport]:
    """The newest report of every model, the newest of all first."""
    newest: dict[str, ContextReport] = {}
    for report in sorted(reports, key=_rank, reverse=True):
        newest.setdefault(name_of(report), report)
    return sorted(newest.values(), key=lambda report: report.finished_at, reverse=True)


def name_of(report: ContextReport) -> str:
    """The name that means this model only: two files may have the same key."""
    path = report.model.path
    return path if is_model_file(path) and Path(path).is_absolute() else report.model.key


def _rank(report: ContextReport) -> tuple[bool, bool, datetime]:
    """A measurement that ended goes before any that did not, a whole one before one that found
    nothing, was quick or was limited by ``--max-context``, then the newest.
    """
    part = report.method.quick or report.cause is Cause.MAX_CONTEXT
    whole = report.true_context is not None and not part
    return report.cause not in UNFINISHED, whole, report.finished_at


def is_of(settings: Settings, adapter: str) -> bool:
    """Whether a result was measured with the adapter that was named, if one was."""
    return settings.adapter in {None, adapter}


def newest_true(summaries: Sequence[ReportSummary], *, by: str) -> dict[str, ReportSummary]:
    """The newest finished true context of each model, by ``model_key`` or ``model_identity``;
    `summaries` are newest first. One that ``--max-context`` ended says nothing against a larger
    one.
    """
    known: dict[str, ReportSummary] = {}
    settled: set[str] = set()
    for summary in summaries:
        model: str = getattr(summary, by)
        if summary.true_context is None or summary.cause in UNFINISHED or model in settled:
            continue
        if summary.true_context > (known.setdefault(model, summary).true_context or 0):
            known[model] = summary
        if summary.cause is not Cause.MAX_CONTEXT:
            settled.add(model)
    return known


def read_maps(sources: Sequence[str]) -> list[ContextMap]:
    """The maps in files that ``lmstrix map --json`` wrote; raises `FormatError`."""
    return [_map(text, s) for s in sources for text in _documents(s, _MAP_HINT)]


def stored(settings: Settings) -> Sequence[StoredReport]:
    """Every report in the store, newest first; those of one adapter if it was named."""

    async def read() -> Sequence[StoredReport]:
        async with session.client(settings) as client:
            return await client.reports()

    found = session.run(read)
    kept = [one for one in found if is_of(settings, one.report.environment.adapter)]
    if found and not kept:
        raise _none_of(settings, len(found))
    return kept


def _none_of(settings: Settings, count: int) -> NotMeasured:
    return NotMeasured(
        f"no result of the adapter {settings.adapter!r} among {say_count(count, 'result')}",
        hint="--adapter or LMSTRIX_ADAPTER names it. Name another one, or none.",
    )


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
    decode = json.JSONDecoder().raw_decode
    start = 0
    while start < len(text):
        if text[start].isspace():
            start += 1
            continue
        try:
            _, end = decode(text, start)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{source!r} is not valid JSON", hint=hint) from error
        yield text[start:end]
        start = end


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
        raise FormatError(f"{source!r} is larger than {MOST_BYTES:,} bytes", hint=hint)
    if is_store(data):
        raise FormatError(f"{source!r} is a store", hint=store_hint)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data.startswith(b"\x1f\x8b"):
            hint = "It is compressed: decompress it first, as with gunzip."
        raise FormatError(f"{source!r} is not text in UTF-8", hint=hint) from error


# Write

STDOUT = "-"
MARKERS = {
    "html": (b'<meta name="generator" content="LMStrix',),
    "md": (b"<!-- LMStrix -->",),
    "txt": (b"\n\nClaims ", b"\n\nDeclares no context length", b"\n\nNot measured. "),
    "csv": (b"model,declared_context,loadable_context,",),
}
"""What stands near the beginning of each kind of file of ours; JSON is read instead."""
_JSON_KEYS = ({"true_context", "cause", "bracket"}, {"results", "differs", "same"})
"""Keys of a report and of a comparison; a map or an export has others."""
_KINDS = {"htm": "html", "jsonl": "json"}
"""The format of files whose name does not end in its own."""
_HEAD_BYTES = 1024


def choose_format(
    wanted: str | None, target: str | None, default: str, kinds: Collection[str]
) -> str:
    """The format that was asked for, or that the output's name ends with, or `default`.

    A usage error if the name ends like none of `kinds`: a file should hold what its name says.
    """
    ending = "" if target in {None, STDOUT} else Path(target or "").suffix.lower()[1:]
    if wanted is not None or not ending:
        return wanted or default
    kind = _KINDS.get(ending, ending)
    if kind not in kinds:
        endings = " or ".join(f".{name}" for name in kinds)
        raise click.UsageError(f"{target!r} does not end in {endings}: add --format.")
    return kind


def write_report(target: str, text: str, kind: str, *, force: bool) -> None:
    """Write `text` into the file `target` and say so; ``-`` is stdout.

    A file is replaced only if it is a report of ours, or empty, or with `force`. Raises
    `LMStrixError` if it is neither, or cannot be written.
    """
    if target != STDOUT:
        if not force and not _is_ours(Path(target), kind):
            raise LMStrixError(
                f"{target!r} already exists and is not an LMStrix report in this format",
                hint="Give another name with --output, or replace it with --force.",
            )
        write_file(Path(target), text)
        output.note(f"Written: {target}")
    elif kind == "json":
        # Names may hold other line separators than this one.
        for line in text.removesuffix("\n").split("\n"):
            output.json_line(line)
    else:
        click.echo(text.rstrip("\n"))


def write_file(path: Path, text: str) -> None:
    """All of it or nothing: whoever reads meanwhile finds the old file or the new one.

    A pipe or a device takes the text as it is: in its place no file may be put. Raises
    `LMStrixError`.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            path.write_text(text, encoding="utf-8", newline="\n")
        else:
            target = Path(os.path.realpath(path))  # a link stays one
            replace_file(target, text.encode(), like=target)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise LMStrixError(
            f"{str(path)!r} cannot be written: {error.strerror or error}",
            hint="Name another file, in a folder that exists." if missing else "Name another file.",
        ) from error


def _is_ours(path: Path, kind: str) -> bool:
    """Whether nothing would be lost: no regular file (a pipe), an empty one, or ours."""
    if not os.path.isfile(path):
        return True
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        if kind == "json":
            first = next(iter(_documents(str(path), _HINT)), "{}") if head.strip() else "{}"
            keys = as_object(json.loads(first)).keys()
            return not head or any(wanted <= keys for wanted in _JSON_KEYS)
    except (OSError, ValueError):  # not known to be ours
        return False
    return not head or any(marker in head for marker in MARKERS[kind])
