"""Measure models one after another: what ``test`` and ``demo`` share."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Sequence

import click

from lmstrix import LMStrix, Measurement, MeasureOptions
from lmstrix.converter import dump_report
from lmstrix.errors import ConfigurationError, LMStrixError, StoreError
from lmstrix.models import Cause, ContextReport, ModelInfo
from lmstrix.reports.text import render_text
from lmstrix_cli import safe_text
from lmstrix_cli.exit_codes import ExitCode, code_of_report, worst
from lmstrix_cli.failures import explain_known
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
            run_async(body)
        except Interrupted:
            self._report_interruption()
        return worst(self._codes)

    def record(self, code: ExitCode) -> None:
        """Count something other than a measurement."""
        self._codes.append(code)

    async def measure(self, client: LMStrix, models: Sequence[str | ModelInfo]) -> None:
        """Measure `models`; one that cannot be measured does not keep the next from it."""
        for model in models:
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
            report = await measurement.run()
        self._current = None
        return report

    def _record(self, report: ContextReport, *, shown: bool) -> None:
        """Print `report`; as text only where the error has not said it all (`shown`)."""
        self._current = None
        self._codes.append(code_of_report(report))
        if self._as_json:
            safe_text.json_line(dump_report(report))
        elif shown:
            if self._printed:
                click.echo()
            width = min(WIDEST_REPORT, shutil.get_terminal_size().columns)
            safe_text.out(render_text(report, width=width))
        self._printed += 1
        if report.cause is Cause.BUDGET_SPENT:
            safe_text.note(f"The budget is spent. To go on: {self._again}")

    def _report_interruption(self) -> None:
        self._codes.append(ExitCode.PARTIAL)
        if self._current is not None:
            self._record(self._current.partial_report(Cause.INTERRUPTED), shown=True)
        safe_text.note(f"Interrupted. To go on where it was: {self._again}")
