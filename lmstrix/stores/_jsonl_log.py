"""What the lines of a `JsonlStore` say: followed as they are added, trials and reports unread."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from lmstrix.converter import FormatError
from lmstrix.errors import StoreError
from lmstrix.models import ContextReport, ModelInfo, StoredMeasurement, StoredReport, Trial
from lmstrix.stores._book import Book, Page
from lmstrix.stores._jsonl_file import LineFile, Span
from lmstrix.stores._jsonl_lines import (
    BeginLine,
    CostLine,
    FailureLine,
    ImportedLine,
    Line,
    LoadLine,
    OrderLine,
    ReportLine,
    TornLine,
    TrialLine,
    decode,
    lazy,
    to_bytes,
)
from lmstrix.stores._jsonl_merge import lines_of
from lmstrix.stores.archive import ImportedResult, KeptMeasurement, Merged, StoreContents
from lmstrix.stores.exchange import check_id, check_length
from lmstrix.stores.merging import Finished, Known, plan_merge

__all__ = ["Log"]

_Page = Page[Span, Span]


class Log:
    """All that is in the file. Every call holds the lock and comes after `catch_up`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = LineFile(path)
        self._book = Book[Span, Span]()
        self._skipped = set[Span]()
        self.imported: dict[ImportedResult, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that the user should read."""
        notes = tuple(self._file.notes)
        if not self._skipped:
            return notes
        count = len(self._skipped)
        what = "1 line was" if count == 1 else f"{count} lines were"
        return (*notes, f"{what} left out: unreadable in {self._path}.")

    def forget(self) -> None:
        """Read all of the file again at the next `catch_up`."""
        notes = self._file.notes
        self._file = LineFile(self._path)
        self._file.notes.extend(notes)

    def catch_up(self) -> None:
        """Follow what was added since, by this process or another one."""
        if not self._file.prepare():
            self._book = Book[Span, Span]()
            self._skipped.clear()
            self.imported.clear()
        for span, line in self._file.new_lines():
            try:
                self._follow(span, line)
            except FormatError:
                self._skipped.add(span)

    def add(self, *lines: Line) -> None:
        """Write lines, and follow them. All of them or none; raises `StoreError`, `OSError`."""
        self._file.append(to_bytes(*lines))
        self.catch_up()

    def find(self, measurement_id: str) -> _Page:
        """The measurement of that id; raises `StoreError`."""
        page = self._book.pages.get(measurement_id)
        if page is None:
            raise StoreError(f"There is no such measurement in the store {self._path}.")
        return page

    def unfinished(self, key: str) -> StoredMeasurement | None:
        """The measurement under `key` that would go on."""
        page = self._book.offered(key)
        if page is None:
            return None
        return StoredMeasurement(
            id=page.id,
            key=page.key,
            started_at=page.started_at,
            trials=self._trials(page),
            failures=tuple(page.failures),
            cost=page.cost,
            trying=page.trying,
        )

    def unfinished_models(self) -> tuple[ModelInfo, ...]:
        """Models with a measurement that would go on, newest first, each once."""
        return tuple(dict.fromkeys(page.model for page in self._book.offered_pages()))

    def reports(self) -> tuple[StoredReport, ...]:
        """The newest report of each key that can be read, newest first."""
        newest: dict[str, StoredReport] = {}
        for page in reversed(list(self._book.finished_pages())):
            report = None if page.key in newest else self._report(page)
            if report is not None:
                newest[page.key] = StoredReport(id=page.id, key=page.key, report=report)
        return tuple(newest.values())

    def contents(self) -> StoreContents:
        """Everything that can be read."""
        return StoreContents(
            measurements=tuple(self._kept(page) for page in self._book.all_pages()),
            imported=tuple(self.imported),
        )

    def merge(self, contents: StoreContents) -> Merged:
        """Add what is not here yet."""
        pages = self._book.pages
        known = Known(
            kept=lambda identity: self._kept(pages[identity]) if identity in pages else None,
            offered={page.key for page in self._book.offered_pages()},
            finished=list(self._finished()),
            imported=self.imported,
        )
        plan = plan_merge(known, contents)
        lines = lines_of(plan)
        if lines:
            self.add(*lines)
        return plan.merged

    def _follow(self, span: Span, line: bytes) -> None:
        """Take up one line; raises `FormatError`."""
        known = lazy(line)
        if known is not None:
            kind, identity = known
            page = self._page(identity)
            if kind == "trial":
                page.trials.append(span)
            else:
                self._book.finish(page, span)
            return
        self._take(span, decode(line))

    def _take(self, span: Span, line: Line) -> None:
        match line:
            case BeginLine():
                self._begin(line)
            case TrialLine():
                self._page(line.measurement).trials.append(span)
            case FailureLine():
                self._page(line.measurement).failures.append(line.failure)
            case CostLine():
                self._page(line.measurement).cost = line.cost
            case LoadLine():
                self._page(line.measurement).trying = check_length(line.context_length)
            case ReportLine():
                self._book.finish(self._page(line.measurement), span)
            case OrderLine():
                self._book.reorder(line.measurements)
            case ImportedLine():
                self.imported[line.imported] = None
            case TornLine():
                pass  # Nothing before it: what it speaks of was never taken up.

    def _begin(self, begun: BeginLine) -> None:
        if begun.measurement in self._book.pages:
            raise FormatError("a measurement that was begun before")
        page = _Page(
            id=check_id(begun.measurement),
            key=begun.key,
            model=begun.model,
            started_at=begun.started_at,
            replaced=begun.replaced,
        )
        self._book.begin(page, offered=begun.offered)

    def _page(self, identity: str) -> _Page:
        page = self._book.pages.get(identity)
        if page is None:
            raise FormatError("a measurement that was never begun")
        return page

    def _finished(self) -> Iterator[Finished]:
        for page in self._book.finished_pages():
            report = self._report(page)
            yield page.id, report.finished_at if report else page.started_at

    def _kept(self, page: _Page) -> KeptMeasurement:
        report = self._report(page)
        return KeptMeasurement(
            id=page.id,
            key=page.key,
            model=page.model,
            started_at=page.started_at,
            trials=self._trials(page),
            failures=tuple(page.failures),
            cost=page.cost,
            trying=page.trying,
            # Finished, but with a report that cannot be read, it is not to be gone on with.
            replaced=page.replaced or (page.report is not None and report is None),
            report=report,
        )

    def _trials(self, page: _Page) -> tuple[Trial, ...]:
        found = self._decoded(page.trials)
        return tuple(line.trial for line in found if isinstance(line, TrialLine))

    def _report(self, page: _Page) -> ContextReport | None:
        found = self._decoded([] if page.report is None else [page.report])
        return next((line.report for line in found if isinstance(line, ReportLine)), None)

    def _decoded(self, spans: Iterable[Span]) -> Iterator[Line]:
        for span, line in self._file.read(list(spans)):
            try:
                yield decode(line)
            except FormatError:
                self._skipped.add(span)
