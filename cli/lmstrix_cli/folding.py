"""Long lines on a terminal: broken between words, and never inside of a command to copy."""

from __future__ import annotations

import os
import re
import textwrap
from typing import TextIO

from rich.cells import cell_len

__all__ = ["fold", "terminal_width"]

_USUAL = 80
_NARROWEST = 20
_WHOLE = re.compile(r"`[^`\n]*`|(?:(?<=: )|^ +)lmstrix (?:(?!\. [A-Z`]).)*")
"""What somebody may copy: between backticks, or a command behind a colon or alone in its line."""
_GLUE = "\ue000"
"""Stands for a blank at which no line is broken; no text of ours holds it."""


def terminal_width(stream: TextIO | None) -> int | None:
    """How many cells a line of the terminal behind `stream` has; None where it is no terminal."""
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
