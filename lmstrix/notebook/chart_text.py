"""Untrusted text that may stand in a chart."""

from __future__ import annotations

from lmstrix.reports.escaping import escape_controls

__all__ = ["chart_text"]


def chart_text(text: str) -> str:
    """`text` for a chart. altair writes it into a script when it saves a page, unescaped, so no
    tag may begin in it.
    """
    return escape_controls(text).replace("<", "\u2039")
