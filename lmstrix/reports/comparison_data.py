"""A comparison for programs: JSON and CSV."""

from __future__ import annotations

import csv
import io
import json

from lmstrix.models import ContextReport
from lmstrix.reports.comparison import Comparison, point_at_limit, settings_of
from lmstrix.reports.escaping import escape_controls

__all__ = ["comparison_csv", "comparison_json", "csv_cell"]

_FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes a cell for a formula by."""


def comparison_json(compared: Comparison) -> str:
    """One line of JSON: ``results``, and ``differs`` and ``same`` by the name of a setting."""
    document = {
        "results": [
            _facts(report)
            | {"levels": {level.name: level.limit_tokens for level in report.levels}}
            | {"settings": dict(settings_of(report))}
            for report in compared.reports
        ],
        "differs": {row.label: list(row.values) for row in compared.differing},
        "same": dict(compared.same),
    }
    return json.dumps(document)


def comparison_csv(compared: Comparison) -> str:
    """A head, and one line for each result. What is not known is an empty cell.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    rows: list[dict[str, object]] = []
    for report in compared.reports:
        flat = _facts(report)
        flat |= {f"level {level.name}": level.limit_tokens for level in report.levels}
        flat |= {f"setting {name}": value for name, value in settings_of(report).items()}
        rows.append({str(csv_cell(name)): csv_cell(value) for name, value in flat.items()})
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _facts(report: ContextReport) -> dict[str, object]:
    low, high = report.bracket
    point = point_at_limit(report)
    return {
        "model": report.model.key,
        "declared_context": report.declared_context,
        "loadable_context": report.loadable_context,
        "true_context": report.true_context,
        "usable_context": report.usable.limit_tokens if report.usable else None,
        "cause": str(report.cause),
        "certified": report.certified,
        "bracket_low": low,
        "bracket_high": high,
        "passes": point.passes if point else None,
        "trials": point.trials if point else None,
        "tokens_per_second": point.tokens_per_second if point else None,
        "full_ttft_s": point.full_ttft_s if point else None,
        "prompt_tokens": report.cost.prompt_tokens,
        "seconds": report.cost.seconds,
        "finished_at": report.finished_at.isoformat(),
    }


def csv_cell(value: object) -> object:
    """A value for a cell of CSV: controls are escaped, and a text that a spreadsheet would take
    for a formula gets an apostrophe in front.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):
        return value
    text = escape_controls(value)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
