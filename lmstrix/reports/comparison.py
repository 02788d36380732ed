"""Results side by side: what was found, what differs in how it was found, and what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from lmstrix.models import ContextReport, CurvePoint
from lmstrix.reports.quantities import say_bytes, say_seconds, say_tokens
from lmstrix.reports.sentences import say_interval, say_reach

__all__ = ["NOT_KNOWN", "Comparison", "Row", "compare", "point_at_limit", "settings_of"]

NOT_KNOWN = "-"
MEASURED = "measured"
"""The setting that says when."""
CONTENT = "content"
"""The setting that tells one file from another of the same name."""


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
    """Settings that are not the same in all, the time of measuring among them."""
    same: tuple[tuple[str, str], ...]

    def distinction(self, index: int) -> str:
        """What tells a result from others of the same model; empty where its name does."""
        name = self.names[index]
        rivals = [i for i, other in enumerate(self.names) if other == name and i != index]
        if not rivals:
            return ""
        apart = [
            row for row in self.differing if any(row.values[i] != row.values[index] for i in rivals)
        ]
        told = [row for row in apart if row.label != MEASURED] or apart
        return ", ".join(f"{row.label} {row.values[index]}" for row in told)


def compare(reports: Sequence[ContextReport]) -> Comparison:
    """The results in `reports`, of which there is at least one, in that order."""
    settings = [settings_of(report) for report in reports]
    if not _contents_matter(reports):
        settings = [{k: v for k, v in each.items() if k != CONTENT} for each in settings]
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
    """What a result may depend on, by its name; what is not known is missing."""
    model, method, where = report.model, report.method, report.environment
    pairs = [
        ("format", model.format),
        ("architecture", model.architecture),
        ("parameters", model.parameters),
        ("quantization", model.quantization),
        ("size", say_bytes(model.size_bytes)),
        (CONTENT, model.digest),
        ("strategy", method.strategy),
        ("validator", method.validator),
        ("levels", ", ".join(method.levels) or "none"),
        ("tolerance", f"{method.tolerance:.6g}"),
        ("ratio", f"{method.ratio:.4g}{' absolute' if method.absolute else ''}"),
        ("pass rate", "averaged over the window" if method.average else ""),
        ("seed", str(method.seed)),
        ("max context", say_tokens(method.max_context, unknown="as declared")),
        ("adapter", where.adapter),
        ("engine", where.engine),
        *((f"version of {name}", value) for name, value in where.versions.items()),
        *((f"loaded with {name}", value) for name, value in where.load_config.items()),
        (MEASURED, report.finished_at.isoformat(sep=" ", timespec="minutes")[:16]),
    ]
    return {label: value for label, value in pairs if value}


def _contents_matter(reports: Sequence[ContextReport]) -> bool:
    """Whether one name stands for different files. Of different models they always differ."""
    contents = {(report.model.key, report.model.digest) for report in reports}
    return len(contents) > len({key for key, _ in contents})


def point_at_limit(report: ContextReport) -> CurvePoint | None:
    """What is known at the true context itself."""
    return next((p for p in report.curve if p.length_tokens == report.true_context), None)


def _found(reports: Sequence[ContextReport]) -> tuple[Row, ...]:
    facts = [_facts(report) for report in reports]
    labels = list(dict.fromkeys(label for each in facts for label in each))
    # Kinds of use that only some results asked for stay together.
    labels.sort(key=lambda label: (_LAST.index(label) + 1) if label in _LAST else 0)
    rows = (Row(label, tuple(each.get(label, NOT_KNOWN) for each in facts)) for label in labels)
    return tuple(row for row in rows if set(row.values) != {NOT_KNOWN})


_LAST = ("right there", "tokens/s there", "first token there", "tokens read", "time spent")


def _facts(report: ContextReport) -> dict[str, str]:
    """What was found, by its name, in the order in which it is shown."""
    low, high = report.bracket
    usable = report.usable
    facts = {
        "declared": say_tokens(report.declared_context, unknown=NOT_KNOWN),
        "loadable": say_tokens(report.loadable_context, unknown=NOT_KNOWN),
        "true": say_tokens(report.true_context, unknown=NOT_KNOWN),
        "usable": NOT_KNOWN if usable is None else str(usable.limit_tokens or 0),
        "cause": report.cause.replace("_", " "),
        "certified": "yes" if report.certified else "no",
        "bracket": f"{low} to {'?' if high is None else high}" if low or high else NOT_KNOWN,
        "interval": say_interval(report) if report.interval.level > 0 else NOT_KNOWN,
    }
    facts |= {f"level {level.name}": say_reach(level) for level in report.levels}
    return facts | _at_limit(report)


def _at_limit(report: ContextReport) -> dict[str, str]:
    point, cost = point_at_limit(report), report.cost
    facts = {
        "tokens read": str(cost.prompt_tokens) if cost.prompt_tokens else NOT_KNOWN,
        "time spent": say_seconds(cost.seconds) if cost.seconds or cost.loads else NOT_KNOWN,
    }
    if point is None:
        return facts
    wait, speed = point.full_ttft_s, point.tokens_per_second
    return facts | {
        "right there": f"{point.passes} of {point.trials}" if point.trials else NOT_KNOWN,
        "tokens/s there": NOT_KNOWN if speed is None else f"{speed:.1f}",
        "first token there": NOT_KNOWN if wait is None else say_seconds(wait),
    }
