"""Measure models one after another: what ``test`` and ``demo`` share."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence

import click

from lmstrix import LMStrix, Measurement, MeasureOptions
from lmstrix.checks import check_of
from lmstrix.converter import dump_report, to_json
from lmstrix.errors import ConfigurationError, LMStrixError, StoreError
from lmstrix.models import Cause, ContextReport, ModelInfo
from lmstrix.reports.text import render_text
from lmstrix_cli import safe_text
from lmstrix_cli.exit_codes import ExitCode, code_of_report, worst
from lmstrix_cli.failures import explain_known
from lmstrix_cli.folding import fold
from lmstrix_cli.one_size import check_lines, code_of_check
from lmstrix_cli.progress import Progress
from lmstrix_cli.running import Interrupted, run_async

__all__ = ["Batch"]

WIDEST_REPORT = 100


class Batch:
    """Measures, prints each result as soon as it is there, and remembers the exit codes."""

    def __init__(
        self, *, options: MeasureOptions, progress: Progress, as_json: bool, again: str
    ) -> None:
        self._options = options
        self._progress = progress
        self._as_json = as_json
        self._again = again
        self._codes: list[ExitCode] = []
        self._current: Measurement | None = None
        self._printed = 0

    def run(self, body: Callable[[], Awaitable[None]]) -> ExitCode:
        """Run `body`, which calls `measure`, and give the exit code of the whole batch."""
        try:
            run_async(body, self._give_up_load)
        except Interrupted:
            self._report_interruption()
        return worst(self._codes)

    def record(self, code: ExitCode) -> None:
        """Count something other than a measurement."""
        self._codes.append(code)

    async def measure(
        self,
        client: LMStrix,
        models: Sequence[str | ModelInfo],
        known: Mapping[str, ContextReport] | None = None,
    ) -> None:
        """Measure `models`; one that cannot be measured does not keep the next from it.

        Those in `known`, by their key, are skipped: their report is what is printed.
        """
        for model in models:
            if isinstance(model, ModelInfo) and known and model.key in known:
                self._skip(known[model.key])
                continue
            try:
                report = await self._measure_one(client, model)
            except (ConfigurationError, StoreError):
                raise  # not about this model: the next would meet the same
            except LMStrixError as error:
                explain_known(error)
                name = model if isinstance(model, str) else model.key
                report = client.unmeasured(name, error, self._options)
                self._record(report, shown=False)
            else:
                self._record(report, shown=True)

    async def _measure_one(self, client: LMStrix, model: str | ModelInfo) -> ContextReport:
        measurement = await client.measurement(model, self._options, observers=[self._progress])
        self._current = measurement
        with self._progress:
            return await measurement.run()

    async def _give_up_load(self) -> None:
        """So that a second Ctrl-C, while a load is being broken off, blames no size for it."""
        if self._current is not None:
            await self._current.give_up_load()

    def _skip(self, report: ContextReport) -> None:
        """Say that nothing has changed; the report itself is in the store, and in the JSON."""
        found = "not measurable" if report.true_context is None else f"true {report.true_context}"
        name = safe_text.label(report.model.key)
        safe_text.note(f"known already: {name} ({found}); --fresh measures it again")
        self._codes.append(code_of_report(report))
        if self._as_json:
            safe_text.json_line(dump_report(report))

    def _record(self, report: ContextReport, *, shown: bool) -> None:
        """Print `report`; as text only where the error has not said it all (`shown`)."""
        measurement, self._current = self._current, None
        code, document, text = self._told(report)
        self._codes.append(code)
        if self._as_json:
            safe_text.json_line(document)
        elif shown:
            if self._printed:
                click.echo()
            safe_text.out(text)
            self._printed += 1
        if measurement is not None and measurement.store_error is not None:
            explain_known(measurement.store_error)
            safe_text.note("This result was not kept: save what is printed.")
            self._codes.append(ExitCode.OTHER)
        if report.cause is Cause.BUDGET_SPENT:
            safe_text.note(f"The budget is spent. {self._go_on('To go on')}")

    def _told(self, report: ContextReport) -> tuple[ExitCode, str, str]:
        """Exit code, JSON and text: of the report, or of what it says about one length."""
        width = min(WIDEST_REPORT, shutil.get_terminal_size().columns)
        if self._options.only_at is not None:
            check = check_of(report, self._options.only_at)
            text = fold("\n".join(check_lines(check)), width)
            return code_of_check(check, report), to_json(check), text
        return code_of_report(report), dump_report(report), render_text(report, width=width)

    def _report_interruption(self) -> None:
        self._codes.append(ExitCode.PARTIAL)
        if self._current is not None:
            self._record(self._current.partial_report(Cause.INTERRUPTED), shown=True)
        safe_text.note(f"Interrupted. {self._go_on('To go on where it was')}")

    def _go_on(self, words: str) -> str:
        """What can be done with what was found so far; one length alone is kept nowhere."""
        kept = self._options.only_at is None
        return f"{words}: {self._again}" if kept else "Nothing was kept."
