"""The only way out for text: everything untrusted is escaped here.

Nothing is ever handed to rich as markup: `lmstrix_cli.progress.live` builds `rich.text.Text`.
"""

from __future__ import annotations

import json
import re
import sys

import click

from lmstrix.reports.escaping import REPLY_KEEPS, escape_controls

__all__ = ["REPLY_KEEPS", "error", "json_line", "label", "note", "out"]

_STEERING = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_NOT_ASCII = re.compile("[^\x20-\x7e]")


def label(text: str, longest: int = 0) -> str:
    """`text` for one line: escaped, and cut in the middle where it is longer than `longest`."""
    text = escape_controls(text)
    if 0 < longest < len(text):
        half = (longest - 3) // 2
        return f"{text[: longest - 3 - half]}...{text[-half:]}"
    return text


def out(text: str) -> None:
    """Print lines on stdout; the line breaks are ours, the rest is escaped."""
    click.echo(escape_controls(text, keep="\n"))


def note(text: str) -> None:
    """Print lines on stderr; the line breaks are ours, the rest is escaped."""
    click.echo(escape_controls(text, keep="\n"), err=True)


def error(message: str, hint: str = "") -> None:
    """Print ``Error:`` and ``Hint:`` lines on stderr."""
    click.echo(f"Error: {escape_controls(message)}", err=True)
    if hint:
        click.echo(f"Hint: {escape_controls(hint)}", err=True)


def json_line(document: str) -> None:
    """Print one line of JSON that means exactly `document`.

    Inside JSON strings, characters that could steer a terminal, and on a terminal or pipe
    that is not UTF-8 every one beyond ASCII, become JSON's own escapes.
    """
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    unsafe = _STEERING if encoding == "utf8" else _NOT_ASCII
    click.echo(unsafe.sub(lambda match: json.dumps(match[0])[1:-1], document))
