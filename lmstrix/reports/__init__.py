"""Reports for people: pure functions from a `ContextReport` to text."""

from lmstrix.reports.escaping import escape_controls
from lmstrix.reports.text import render_text

__all__ = ["escape_controls", "render_text"]
