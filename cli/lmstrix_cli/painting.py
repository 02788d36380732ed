"""The one place that knows what is coloured. Commands print plain text.

`paint` adds escape codes to it at the very end, when every untrusted character has been escaped,
and nothing but escape codes: without them the text is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

__all__ = ["paint"]

_BOLD, _RED, _GREEN, _YELLOW = 1, 31, 32, 33
_WORDS: Mapping[str, int] = {
    **dict.fromkeys(("pass", "passed", "ok", "fine", "yes"), _GREEN),
    **dict.fromkeys(
        ("fail", "failed", "problem", "too large", "gibberish", "forgets", "crashed on fill"), _RED
    ),
    **dict.fromkeys(
        ("all correct", "undecided", "warning", "not tested", "partial", "interrupted"),
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
    r"^(?:declared|loadable|true|usable)(?: +(?:[0-9]+\+?|-|unknown)(?=\s|$))+", re.MULTILINE
)
"""The numbers that a report is about."""


def paint(text: str) -> str:
    """`text` with bold heads and numbers, and coloured verdicts."""
    text = _HEADS.sub(_in(lambda _: _BOLD), text)
    text = _NUMBERS.sub(_in(lambda _: _BOLD), text)
    return _VERDICT.sub(_in(_WORDS.__getitem__), text)


def _in(style: Callable[[str], int]) -> Callable[[re.Match[str]], str]:
    return lambda match: f"\x1b[{style(match[0])}m{match[0]}\x1b[0m"
