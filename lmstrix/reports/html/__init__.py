"""Reports as HTML: one file that loads nothing and runs nothing."""

from lmstrix.reports.html.page import render_comparison, render_fragment, render_html

__all__ = ["render_comparison", "render_fragment", "render_html"]
