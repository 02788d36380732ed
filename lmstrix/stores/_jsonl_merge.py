"""What a merge adds to a `JsonlStore`, as lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lmstrix.models import Cost, Observation, Trial
from lmstrix.stores._jsonl_lines import (
    BeginLine,
    CostLine,
    FailureLine,
    ImportedLine,
    Line,
    LoadLine,
    OrderLine,
    ReportLine,
    TrialLine,
)
from lmstrix.stores.archive import KeptMeasurement
from lmstrix.stores.merging import Extension, MergePlan

__all__ = ["lines_of"]


def lines_of(plan: MergePlan) -> list[Line]:
    """The lines that carry a plan out."""
    lines = list[Line]()
    for new in plan.new:
        lines.extend(_new(new))
    for more in plan.extensions:
        lines.extend(_more(more))
    if plan.order:
        lines.append(OrderLine(measurements=plan.order))
    lines.extend(ImportedLine(imported=result) for result in plan.imported)
    return lines


def _new(new: KeptMeasurement) -> Iterator[Line]:
    yield BeginLine(
        measurement=new.id,
        key=new.key,
        model=new.model,
        started_at=new.started_at,
        replaced=new.replaced,
        offered=new.report is None,
    )
    yield from _facts(new.id, new.trials, new.failures)
    if new.cost != Cost():
        yield CostLine(measurement=new.id, cost=new.cost)
    if new.trying is not None:
        yield LoadLine(measurement=new.id, context_length=new.trying)
    if new.report is not None:
        yield ReportLine(measurement=new.id, report=new.report)


def _more(more: Extension) -> Iterator[Line]:
    yield from _facts(more.id, more.trials, more.failures)
    if more.cost is not None:
        yield CostLine(measurement=more.id, cost=more.cost)
    if more.report is not None:
        yield ReportLine(measurement=more.id, report=more.report)


def _facts(
    identity: str, trials: Iterable[Trial], failures: Iterable[Observation]
) -> Iterator[Line]:
    for trial in trials:
        yield TrialLine(measurement=identity, trial=trial)
    for failure in failures:
        yield FailureLine(measurement=identity, failure=failure)
