"""Several results side by side: for people, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC

import attrs

from lmstrix.models import ContextReport, CurvePoint
from lmstrix.reports.words import (
    escape_controls,
    say_bytes,
    say_interval,
    say_limit,
    say_loadable,
    say_reach,
    say_seconds,
    say_speed,
    say_summary,
    say_tokens,
    say_true,
)

NOT_KNOWN = "-"
OF_THE_MODEL = {"format", "architecture", "parameters", "quantization", "size", "content"}
"""The settings that are facts about the model itself."""
_MEASURED = "measured (UTC)"
"""The setting that holds the time of the measurement."""
_CONTENT = "content"
"""The setting that distinguishes files of the same name."""
_LAST = ("correct at true", "tokens/s at true", "first token at true", "tokens read", "time spent")
"""The facts that are shown after the limits of regions and levels."""
MOST_COLUMNS = 4
_IN_OVERVIEW = {"declared", "loadable", "true", "cause", "certified", "size"}
"""The facts that the overview of a page shows for each result."""
_FORMULA = re.compile(r"(?:^|[;\t|])\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
"""The beginning of a formula in a spreadsheet, which may part lines at other characters too."""


@attrs.frozen
class Row:
    """One fact about every result, in the order of the results."""

    label: str
    values: tuple[str, ...]


@attrs.frozen
class Comparison:
    """Several results. Texts in it are not escaped."""

    reports: tuple[ContextReport, ...]
    names: tuple[str, ...]
    found: tuple[Row, ...]
    differing: tuple[Row, ...]
    """Settings that are not the same in all, including the time of the measurement."""
    same: tuple[tuple[str, str], ...]

    @property
    def is_long(self) -> bool:
        """Whether there are too many results for a column each."""
        return len(self.names) > MOST_COLUMNS

    def table(self, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
        """Head and body of a table of some facts: a column for each result, or a row for each if
        there are many.
        """
        if not self.is_long:
            return ["", *self.names], [[row.label, *row.values] for row in rows]
        head = ["", *(row.label for row in rows)]
        return head, [
            [name, *(row.values[index] for row in rows)] for index, name in enumerate(self.names)
        ]

    def tables(self) -> list[tuple[str, list[str], list[list[str]]]]:
        """Caption, head and body of each table of a page below its overview. With a row for each
        result, the findings are parted so that they fit the page, without those of the overview.
        """
        parts = {"Findings": list(self.found), "Differences": list(self.differing)}
        if self.is_long:
            names = {row.label: "Evidence" for row in self.found}
            names |= dict.fromkeys(_LAST[1:], "Speed and cost")
            names |= {name: "Regions" for name in names if name.startswith("region ")}
            captions = ("Regions", "Evidence", "Speed and cost", "Differences")
            parts = {caption: list[Row]() for caption in captions}
            for row in (*self.found, *self.differing):
                if row.label not in _IN_OVERVIEW:
                    parts[names.get(row.label, "Differences")].append(row)
        return [(caption, *self.table(rows)) for caption, rows in parts.items() if rows]

    def distinction(self, index: int) -> str:
        """The settings that tell a result from others of its model; empty if it is the only one."""
        name = self.names[index]
        rivals = [i for i, other in enumerate(self.names) if other == name and i != index]
        if not rivals:
            return ""
        apart = [
            row for row in self.differing if any(row.values[i] != row.values[index] for i in rivals)
        ]
        shown = [row for row in apart if row.label != _MEASURED] or apart
        return ", ".join(f"{row.label} {row.values[index]}" for row in shown)


def compare(reports: Sequence[ContextReport]) -> Comparison:
    """The results in `reports`, of which there is at least one, in that order."""
    settings = [settings_of(report) for report in reports]
    contents = {(report.model.key, report.model.digest) for report in reports}
    if len(contents) == len({key for key, _ in contents}):  # no name stands for different files
        settings = [{k: v for k, v in each.items() if k != _CONTENT} for each in settings]
    labels = list(dict.fromkeys(label for each in settings for label in each))
    rows = [Row(label, tuple(each.get(label, NOT_KNOWN) for each in settings)) for label in labels]
    return Comparison(
        reports=tuple(reports),
        names=tuple(report.model.key for report in reports),
        found=_found(reports),
        differing=tuple(row for row in rows if len(set(row.values)) > 1),
        same=tuple((row.label, row.values[0]) for row in rows if len(set(row.values)) == 1),
    )


def settings_of(report: ContextReport) -> Mapping[str, str]:
    """The settings and versions a result may depend on, by name, as far as they are known."""
    model, method, where = report.model, report.method, report.environment
    pairs = [
        ("format", model.format),
        ("architecture", model.architecture),
        ("parameters", model.parameters),
        ("quantization", model.quantization),
        ("size", say_bytes(model.size_bytes)),
        (_CONTENT, model.digest),
        ("strategy", method.strategy),
        ("validator", method.validator),
        ("levels", ", ".join(method.levels) or "none"),
        ("tolerance", f"{method.tolerance:.6g}"),
        ("ratio", f"{method.ratio:.4g}{' absolute' if method.absolute else ''}"),
        ("pass rate", "averaged over the window" if method.average else ""),
        ("seed", str(method.seed)),
        ("max context", "as declared" if method.max_context is None else f"{method.max_context:,}"),
        ("adapter", where.adapter),
        ("engine", where.engine),
        *((f"version of {name}", value) for name, value in where.versions.items()),
        *((f"loaded with {name}", value) for name, value in where.load_config.items()),
        (_MEASURED, f"{report.finished_at.astimezone(UTC):%Y-%m-%d %H:%M}"),
    ]
    return {label: value for label, value in pairs if value}


def _point_at_limit(report: ContextReport) -> CurvePoint | None:
    """The point of the curve at the true context."""
    return next((p for p in report.curve if p.length_tokens == report.true_context), None)


def speed_there(report: ContextReport) -> float | None:
    """Tokens per second at the true context."""
    point = _point_at_limit(report)
    return point.tokens_per_second if point else None


def _found(reports: Sequence[ContextReport]) -> tuple[Row, ...]:
    facts = [_facts(report) for report in reports]
    labels = list(dict.fromkeys(label for each in facts for label in each))
    # Limits that only some results have stay together.
    labels.sort(key=lambda label: (_LAST.index(label) + 1) if label in _LAST else 0)
    rows = (Row(label, tuple(each.get(label, NOT_KNOWN) for each in facts)) for label in labels)
    return tuple(row for row in rows if set(row.values) != {NOT_KNOWN})


def _facts(report: ContextReport) -> dict[str, str]:
    """The findings by name, in the order in which they are shown."""
    low, high = report.bracket
    usable, cost, point = report.usable, report.cost, _point_at_limit(report)
    end = say_tokens(high, unknown="nothing failed")
    facts = {
        "declared": say_tokens(report.declared_context, unknown=NOT_KNOWN),
        "loadable": NOT_KNOWN if report.loadable_context is None else say_loadable(report),
        "true": say_true(report, unknown=NOT_KNOWN),
        "usable": NOT_KNOWN if usable is None else say_tokens(usable.limit_tokens, unknown="none"),
        "cause": say_limit(report),
        "certified": "yes" if report.certified else "no",
        "bracket": f"{low:,} to {end}" if high else f"{low:,}; {end}" if low else NOT_KNOWN,
        "interval": say_interval(report) if report.interval.level > 0 else NOT_KNOWN,
    }
    facts |= {f"region {one.region}": say_reach(one) for one in report.regions}
    facts |= {f"level {level.name}": say_reach(level) for level in report.levels}
    if point is not None:
        wait = point.full_ttft_s
        facts |= {
            "correct at true": f"{point.passes} of {point.trials}" if point.trials else NOT_KNOWN,
            "tokens/s at true": say_speed(point.tokens_per_second),
            "first token at true": NOT_KNOWN if wait is None else say_seconds(wait),
        }
    return facts | {
        "tokens read": say_tokens(cost.prompt_tokens) if cost.prompt_tokens else NOT_KNOWN,
        "time spent": say_seconds(cost.seconds) if cost.seconds or cost.loads else NOT_KNOWN,
    }


def comparison_json(compared: Comparison) -> str:
    """One line of JSON: ``results``, then ``differs`` and ``same`` by the name of a setting."""
    document = {
        "results": [
            _data(report) | _nested(report) | {"summary": say_summary(report)}
            for report in compared.reports
        ],
        "differs": {row.label: list(row.values) for row in compared.differing},
        "same": dict(compared.same),
    }
    return json.dumps(document)


def comparison_csv(compared: Comparison) -> str:
    """A head, and one line for each result; unknown values are empty cells. See `csv_cell`."""
    rows: list[dict[str, object]] = []
    for report in compared.reports:
        flat = _data(report)
        for group, values in _nested(report).items():
            flat |= {f"{group.removesuffix('s')} {name}": value for name, value in values.items()}
        rows.append({str(csv_cell(name)): csv_cell(value) for name, value in flat.items()})
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _data(report: ContextReport) -> dict[str, object]:
    low, high = report.bracket
    point = _point_at_limit(report)
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


def _nested(report: ContextReport) -> dict[str, Mapping[str, object]]:
    return {
        "regions": {str(one.region): one.limit_tokens for one in report.regions},
        "levels": {level.name: level.limit_tokens for level in report.levels},
        "settings": settings_of(report),
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
    return f"'{text}" if _FORMULA.search(text) else text
