"""Which measurements there are, which are offered, which finished when: the rules, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Generic, TypeVar

import attrs

from lmstrix.models import Cost, ModelInfo, Observation

__all__ = ["Book", "Page"]

TrialT = TypeVar("TrialT")
ReportT = TypeVar("ReportT")


@attrs.define(kw_only=True)
class Page(Generic[TrialT, ReportT]):
    """One measurement. Trials and report may be the facts, or where they are to be found."""

    id: str
    key: str
    model: ModelInfo
    started_at: datetime
    trials: list[TrialT] = attrs.field(factory=list[TrialT])
    failures: list[Observation] = attrs.field(factory=list[Observation])
    cost: Cost = attrs.field(factory=Cost)
    deaths: tuple[int, ...] = ()
    replaced: bool = False
    report: ReportT | None = None


class Book(Generic[TrialT, ReportT]):
    """All pages of a store, and the order of those that are finished."""

    def __init__(self) -> None:
        self.pages: dict[str, Page[TrialT, ReportT]] = {}
        self._offered: dict[str, str] = {}
        self._finished: list[str] = []

    def begin(self, page: Page[TrialT, ReportT], *, offered: bool = True) -> None:
        """A new page; one that is unfinished is offered in the place of another of its key."""
        self.pages[page.id] = page
        if page.report is not None:
            self._finished.append(page.id)
        if page.report is not None or page.replaced or not offered:
            return
        before = self._offered.pop(page.key, None)
        if before is not None:
            self.pages[before].replaced = True
        self._offered[page.key] = page.id

    def finish(self, page: Page[TrialT, ReportT], report: ReportT) -> None:
        """The page has its report; finished again, the newer report counts."""
        if page.report is not None:
            self._finished.remove(page.id)
        page.report = report
        self._finished.append(page.id)
        if self._offered.get(page.key) == page.id:
            del self._offered[page.key]

    def reorder(self, order: Iterable[str]) -> None:
        """Finished pages in this order, the oldest first; those not named come last."""
        finished = set(self._finished)
        named = dict.fromkeys(identity for identity in order if identity in finished)
        self._finished = [*named, *(i for i in self._finished if i not in named)]

    def offered(self, key: str) -> Page[TrialT, ReportT] | None:
        """The page under `key` that would go on, or None."""
        found = self._offered.get(key)
        return None if found is None else self.pages[found]

    def offered_pages(self) -> Iterator[Page[TrialT, ReportT]]:
        """Pages that would go on, those begun last first."""
        return (self.pages[found] for found in reversed(self._offered.values()))

    def finished_pages(self) -> Iterator[Page[TrialT, ReportT]]:
        """Finished pages, the oldest first."""
        return (self.pages[found] for found in self._finished)

    def all_pages(self) -> Iterator[Page[TrialT, ReportT]]:
        """The finished ones as they finished, then the others as they were begun."""
        yield from self.finished_pages()
        yield from (page for page in self.pages.values() if page.report is None)
