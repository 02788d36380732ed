"""What a notebook shows: tables, charts, and how far a measurement has come.

Reports, maps and lists of models show themselves as tables. `ContextReport.plot` and
`ContextMap.plot` draw charts with altair (extra ``notebook``), and `NotebookProgress` is an
observer that redraws its own output while a measurement runs. Importing `lmstrix` is enough;
neither IPython nor altair is imported before it is needed.
"""

from __future__ import annotations

from lmstrix.maps import ContextMap
from lmstrix.model_list import ModelList
from lmstrix.models import ContextReport
from lmstrix.notebook.charts import draw_map, draw_report
from lmstrix.notebook.progress import NotebookProgress
from lmstrix.notebook.tables import map_table, model_table, report_table
from lmstrix.showing import chart_of, html_of

__all__ = ["NotebookProgress", "register"]


def register() -> None:
    """Tell facts how they show themselves. `lmstrix` does it when it is imported."""
    html_of.register(ContextReport, report_table)
    html_of.register(ContextMap, map_table)
    html_of.register(ModelList, model_table)
    chart_of.register(ContextReport, draw_report)
    chart_of.register(ContextMap, draw_map)
