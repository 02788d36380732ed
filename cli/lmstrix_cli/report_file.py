"""Where a report goes: stdout, or a file that is ours to replace."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from lmstrix.errors import LMStrixError
from lmstrix_cli import safe_text

__all__ = ["MARKERS", "STDOUT", "choose_format", "write_report"]

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
    wanted: str | None, output: str | None, default: str, kinds: Collection[str]
) -> str:
    """The format that was asked for, or that the output's name ends with, or `default`.

    A usage error if the name ends like none of `kinds`: what is in a file should be what its
    name says.
    """
    suffix = "" if output in {None, STDOUT} else Path(output or "").suffix.lower()
    if wanted is not None or not suffix:
        return wanted or default
    kind = _SUFFIXES.get(suffix, "")
    if kind not in kinds:
        endings = " or ".join(f".{name}" for name in kinds)
        raise click.UsageError(f"{output!r} does not end in {endings}: say --format as well.")
    return kind


def write_report(output: str, text: str, kind: str, *, force: bool) -> None:
    """Write `text` into the file `output` and say so; ``-`` is stdout.

    What is there already is replaced only if it is a report of ours, or empty, or with
    `force`. Raises `LMStrixError` if that is not so, or it cannot be written.
    """
    if output == STDOUT:
        _print(text, kind)
        return
    path = Path(output)
    try:
        if not force and not _is_ours(path, kind):
            raise LMStrixError(
                f"{output!r} already exists and is not an LMStrix report in this format",
                hint="Give another name with --output, or replace it with --force.",
            )
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise LMStrixError(
            f"{output!r} cannot be written: {error.strerror or error}",
            hint="Give another file with --output; its folder must be there.",
        ) from error
    safe_text.note(f"Written: {safe_text.label(output)}")


def _print(text: str, kind: str) -> None:
    if kind == "json":
        for line in text.splitlines():
            safe_text.json_line(line)
    else:
        click.echo(text.rstrip("\n"))


def _is_ours(path: Path, kind: str) -> bool:
    """Whether nothing would be lost: no file, no regular one (a pipe), an empty one, or ours."""
    if not path.exists() or not (path.is_file() or path.is_dir()):
        return True
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return not head or any(marker in head for marker in MARKERS[kind])
