"""Prints text: everything untrusted is escaped here, and nothing is given to rich as markup."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TextIO

import click
from rich.cells import cell_len

from lmstrix.reports.words import REPLY_KEEPS, escape_controls

__all__ = [
    "REPLY_KEEPS",
    "error",
    "fold",
    "json_line",
    "label",
    "note",
    "note_as_it_is",
    "out",
    "paint",
    "terminal_width",
]

_USUAL = 80
_NARROWEST = 20
_WHOLE = re.compile(r"`[^`\n]*`|(?:(?<=: )|^ +)lmstrix (?:(?!\. [A-Z`]).)*")
"""What somebody may copy: between backticks, or a command behind a colon or alone in its line."""
_GLUE = "\ue000"
"""Stands for a blank at which no line is broken; no text of ours holds it."""


def terminal_width(stream: TextIO | None) -> int | None:
    """Width of the terminal behind `stream`, in cells; None if it is not a terminal."""
    if stream is None or not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    if told.isascii() and told.isdigit() and int(told):
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or _USUAL
    except (OSError, ValueError):
        return _USUAL


def fold(text: str, width: int | None, indent: int = 2) -> str:
    """`text` with lines of at most `width` cells, as far as words and commands allow it.

    What is broken off goes on behind `indent` blanks. A `width` of None changes nothing.
    """
    if width is None:
        return text
    return "\n".join(_folded(line, max(width, _NARROWEST), indent) for line in text.split("\n"))


def _folded(line: str, width: int, indent: int) -> str:
    if cell_len(line) <= width:
        return line
    glued = _WHOLE.sub(lambda match: match[0].replace(" ", _GLUE), line)
    glued = glued[:indent].replace(" ", _GLUE) + glued[indent:]  # what stands in front stays there
    pieces = textwrap.wrap(
        glued,
        width,
        subsequent_indent=" " * min(indent, width // 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(pieces).replace(_GLUE, " ")


_BOLD, _RED, _GREEN, _YELLOW = 1, 31, 32, 33
_WORDS: Mapping[str, int] = {
    **dict.fromkeys(("pass", "passed", "ok", "fine", "yes"), _GREEN),
    **dict.fromkeys(
        ("fail", "failed", "problem", "too large", "gibberish", "forgets", "crashed on fill"), _RED
    ),
    **dict.fromkeys(
        ("undecided", "warning", "not tested", "partial", "interrupted"),
        _YELLOW,
    ),
}
"""Verdicts. Only a word that stands alone in its column is one."""

_VERDICT = re.compile(
    rf"(?:(?<=\s\s)|(?<=: )|^)({'|'.join(map(re.escape, _WORDS))})(?=\s\s|[.,]|$)", re.MULTILINE
)
_HEADS = re.compile(
    r"^(?:"
    r"[A-Z][A-Z0-9%/ .-]*(?:  [A-Z0-9%/. -]+)+"  # MODEL  FORMAT  SIZE
    r"| *length  .*"  # the table of lengths, in a report and in a benchmark
    r"|  region  +part of the window  .*"
    r")$",
    re.MULTILINE,
)
_NUMBERS = re.compile(
    r"^(?:declared|loadable|true|usable)(?: +(?:(?:at least )?[0-9,]+\+?|-|unknown)(?=\s|$))+",
    re.MULTILINE,
)
"""The numbers that a report is about."""


def paint(text: str) -> str:
    """`text` with bold heads and numbers, and coloured verdicts."""
    text = _HEADS.sub(_in(lambda _: _BOLD), text)
    text = _NUMBERS.sub(_in(lambda _: _BOLD), text)
    return _VERDICT.sub(_in(_WORDS.__getitem__), text)


def _in(style: Callable[[str], int]) -> Callable[[re.Match[str]], str]:
    return lambda match: f"\x1b[{style(match[0])}m{match[0]}\x1b[0m"


_BEYOND = re.compile("[^\x00-\x7e]")
_NOT_ASCII = re.compile("[^\x20-\x7e]")


def label(text: str, longest: int = 0) -> str:
    """`text` for one line: escaped, and cut in the middle if it is longer than `longest`."""
    text = escape_controls(text)
    if 0 < longest < len(text):
        kept = max(0, longest - 3)
        return f"{text[: kept - kept // 2]}...{text[len(text) - kept // 2 :]}"[:longest]
    return text


def out(text: str) -> None:
    """Print lines on stdout; the line breaks are ours, the rest is escaped.

    Heads and verdicts are painted; click takes the paint off again if none is wanted.
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
