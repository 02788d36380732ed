"""The only way out for text: everything untrusted is escaped here.

Nothing is ever handed to rich as markup: `lmstrix_cli.progress` builds `rich.text.Text`.
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress

import click

from lmstrix.reports.words import REPLY_KEEPS, escape_controls
from lmstrix_cli.folding import fold, terminal_width
from lmstrix_cli.painting import paint

__all__ = ["REPLY_KEEPS", "error", "json_line", "label", "note", "note_as_it_is", "out"]

_BEYOND = re.compile("[^\x00-\x7e]")
_NOT_ASCII = re.compile("[^\x20-\x7e]")


def label(text: str, longest: int = 0) -> str:
    """`text` for one line: escaped, and cut in the middle where it is longer than `longest`."""
    text = escape_controls(text)
    if 0 < longest < len(text):
        kept = max(0, longest - 3)
        return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"[:longest]
    return text


def out(text: str) -> None:
    """Print lines on stdout; the line breaks are ours, the rest is escaped.

    Heads and verdicts are painted; click takes the paint off again where none is wanted.
    """
    click.echo(paint(escape_controls(text, keep="\n")))


def note(text: str) -> None:
    """Print lines on stderr, on a terminal as long as it is wide. The line breaks are ours, the
    rest is escaped. Where stderr takes nothing, nobody is told, and the work goes on.
    """
    note_as_it_is(fold(escape_controls(text, keep="\n"), terminal_width(sys.stderr)))


def note_as_it_is(text: str) -> None:
    """`note` with lines as long as they are, as those of a difference are."""
    with suppress(OSError):
        click.echo(escape_controls(text, keep="\n"), err=True)


def error(message: str, hint: str = "") -> None:
    """Print ``Error:`` and ``Hint:`` lines on stderr, as `note` does."""
    note(f"Error: {escape_controls(message)}")
    if hint:
        note(f"Hint: {escape_controls(hint)}")


def json_line(document: str) -> None:
    """Print one line of JSON that means exactly `document`.

    Inside JSON strings, characters that could steer a terminal, and on a terminal or pipe
    that is not UTF-8 every one beyond ASCII, become JSON's own escapes.
    """
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    if encoding == "utf8":
        click.echo(_BEYOND.sub(lambda match: _shown(match[0]), document))
    else:
        click.echo(_NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], document))


def _shown(char: str) -> str:
    return char if escape_controls(char) == char else json.dumps(char)[1:-1]
