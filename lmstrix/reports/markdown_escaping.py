"""Untrusted text made harmless inside Markdown (CommonMark, and GitHub's tables)."""

from __future__ import annotations

import re

from lmstrix.reports.escaping import escape_controls

__all__ = ["code_block", "code_span", "escape_markdown"]

_SPECIAL = re.compile(r"[\\`*_\[\]<>|~&$#@!]")
"""What begins emphasis, code, links, images, HTML, cells, entities, formulas or mentions."""
_AT_START = re.compile(r"^(\s*(?:\d+(?=[.)]))?)([-+=.)])")
"""What would begin a list or underline a heading at the beginning of a line."""
_LINK = re.compile(r"(?i)(://|\bwww\.)")
"""What GitHub makes a link of, without being asked."""


def escape_markdown(text: str) -> str:
    r"""`text` on one line so that it shows as it is; controls are written as ``\xNN``.

    >>> print(escape_markdown("a|b <i> *c*"))
    a\|b \<i\> \*c\*
    """
    text = _SPECIAL.sub(lambda match: "\\" + match[0], escape_controls(text))
    text = _LINK.sub(lambda match: match[0][:-1] + "\\" + match[0][-1], text)
    return _AT_START.sub(r"\1\\\2", text)


def code_span(text: str, *, in_table: bool = False) -> str:
    r"""`text` as code on one line: within it nothing means anything, but a pipe in a table.

    >>> print(code_span("a`b"))
    ``a`b``
    """
    text = escape_controls(text) or " "
    fence = "`" * (_longest_run(text) + 1)
    if in_table:
        text = text.replace("|", "\\|")
    padding = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def code_block(text: str) -> str:
    """`text` as a block of code."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}sh\n{escape_controls(text, keep=chr(10))}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
