"""What a merge has to do: pure, and the same for every store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime

import attrs

from lmstrix.errors import StoreError
from lmstrix.models import ContextReport, Cost, Observation, Trial
from lmstrix.stores.archive import ImportedResult, KeptMeasurement, Merged, StoreContents

__all__ = ["Extension", "Finished", "Known", "MergePlan", "newest_imported", "plan_merge"]

Finished = tuple[str, datetime]
"""The id of a finished measurement, and when it finished."""


@attrs.frozen(kw_only=True)
class Known:
    """What a store says of itself before a merge."""

    kept: Callable[[str], KeptMeasurement | None]
    """The measurement of that id, or None."""
    offered: Collection[str]
    """Keys with an unfinished measurement."""
    finished: Sequence[Finished]
    """The oldest first."""
    imported: Collection[ImportedResult]


@attrs.frozen(kw_only=True)
class Extension:
    """What a measurement that both sides have still lacks here."""

    id: str
    trials: tuple[Trial, ...] = ()
    failures: tuple[Observation, ...] = ()
    cost: Cost | None = None
    report: ContextReport | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is lacking."""
        return not (self.trials or self.failures or self.cost or self.report)


@attrs.frozen(kw_only=True)
class MergePlan:
    """Everything that is to be added, in order."""

    new: tuple[KeptMeasurement, ...]
    """`KeptMeasurement.replaced` is already what it is to be here."""
    extensions: tuple[Extension, ...]
    order: tuple[str, ...]
    """Ids of all finished measurements, the oldest first; empty where no report is added."""
    imported: tuple[ImportedResult, ...]

    @property
    def merged(self) -> Merged:
        """The same in numbers."""
        return Merged(
            measurements=len(self.new),
            trials=sum(len(item.trials) for item in (*self.new, *self.extensions)),
            reports=sum(item.report is not None for item in (*self.new, *self.extensions)),
            imported=len(self.imported),
        )


def plan_merge(known: Known, contents: StoreContents) -> MergePlan:
    """What of `contents` is not known yet.

    Raises `StoreError` where a measurement of the same id is about something else.
    """
    new = list[KeptMeasurement]()
    extensions = list[Extension]()
    added = list[Finished]()
    offered = set(known.offered)
    # The newest unfinished one of a key comes last, and is the one to go on with.
    for kept in reversed(contents.measurements):
        here = known.kept(kept.id)
        if here is None:
            new.append(_as_new(kept, offered))
            reports = kept.report
        else:
            extension = _extension(here, kept)
            if not extension.is_empty:
                extensions.append(extension)
            reports = extension.report
        if reports is not None:
            added.append((kept.id, reports.finished_at))
    return MergePlan(
        new=tuple(reversed(new)),
        extensions=tuple(reversed(extensions)),
        order=_order(known.finished, added[::-1]) if added else (),
        imported=tuple(
            result for result in dict.fromkeys(contents.imported) if result not in known.imported
        ),
    )


def _as_new(kept: KeptMeasurement, offered: set[str]) -> KeptMeasurement:
    """The measurement without doubles; offered only where no other of its key is."""
    is_open = kept.report is None and not kept.replaced
    replaced = kept.replaced or (is_open and kept.key in offered)
    if is_open and not replaced:
        offered.add(kept.key)
    return attrs.evolve(
        kept,
        trials=_missing((), kept.trials),
        failures=tuple(dict.fromkeys(kept.failures)),
        replaced=replaced,
    )


def _extension(here: KeptMeasurement, there: KeptMeasurement) -> Extension:
    if here.key != there.key:
        raise StoreError(
            "A measurement to be merged has the id of another one in this store.",
            hint="The file was changed by hand, or is damaged; nothing of it was merged.",
        )
    failures = tuple(dict.fromkeys(f for f in there.failures if f not in here.failures))
    return Extension(
        id=here.id,
        trials=_missing(here.trials, there.trials),
        failures=failures,
        cost=there.cost if there.cost.seconds > here.cost.seconds else None,
        report=there.report if here.report is None else None,
    )


def _missing(here: Iterable[Trial], there: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials whose names are not here, each once."""
    names = {_name(trial) for trial in here}
    missing = list[Trial]()
    for trial in there:
        name = _name(trial)
        if name not in names:
            names.add(name)
            missing.append(trial)
    return tuple(missing)


def _name(trial: Trial) -> tuple[str, str, int, int, int]:
    return trial.level, trial.phase, trial.length_tokens, trial.seed, trial.index


def _order(here: Sequence[Finished], added: Sequence[Finished]) -> tuple[str, ...]:
    """Both in one order: each side's own is kept, the times decide between the sides."""
    order = list[str]()
    rest = list(reversed(added))
    for identity, moment in here:
        while rest and rest[-1][1] < moment:
            order.append(rest.pop()[0])
        order.append(identity)
    order.extend(identity for identity, _ in reversed(rest))
    return tuple(order)


def newest_imported(results: Iterable[ImportedResult]) -> tuple[ImportedResult, ...]:
    """Each model's newest, sorted by model key; the one added last where the times are equal."""
    newest = dict[str, ImportedResult]()
    for result in results:
        before = newest.get(result.model_key)
        if before is None or not _is_newer(before, result):
            newest[result.model_key] = result
    return tuple(newest[key] for key in sorted(newest))


def _is_newer(one: ImportedResult, other: ImportedResult) -> bool:
    if one.tested_at is None or other.tested_at is None:
        return one.tested_at is not None
    return one.tested_at > other.tested_at
