"""One measurement after the other, with its faults, until each one has its report."""

from __future__ import annotations

import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import anyio
import attrs
from checking import died_at_load, kept_in, lost_or_doubled, wrong
from drawing import STORE_FAULTS, Draw, Fault, FaultKind, draw
from measuring import FINISHED, TTL_S, Job
from processes import Engine, Measurer

from lmstrix.models import ContextReport
from lmstrix.serialize import FormatError, load_report
from lmstrix.stores.export import KeptMeasurement
from lmstrix.stores.sqlite import SqliteStore
from lmstrix_cli.errors import ExitCode

MOST_RUNS = 40
"""After so many runs a measurement does not come to an end."""
STILL_S = 120.0
"""A run that stores nothing for so long hangs, also on a busy machine."""
AWAY_S = 0.3
"""How long a server that is restarted is away."""
CRASHED = ("Traceback", "This is a bug")
"""In what no run may print."""
OPENED_S = 5.0
"""A run that has not opened its store by then may be over."""
GROUP = 20
"""Measurements that share a server."""
GONE_S = 2.0
"""How much longer than its time to live an instance may stay."""


@attrs.define(kw_only=True)
class Outcome:
    """What became of one measurement."""

    number: int
    kills: int = 0
    engine_kills: int = 0
    restarts: int = 0
    sockets_dropped: int = 0
    malformed: int = 0
    slow_writes: int = 0
    freezes: int = 0
    floods: int = 0
    stores_gone: int = 0
    """Stores that were deleted, replaced or moved away in a run."""
    printed: int = 0
    """Results that only stdout has, with exit code 1: their store was gone."""
    runs: int = 0
    errors: int = 0
    """Runs that ended with an error of LMStrix, as they should when the server stays away."""
    marked: int = 0
    """Answers below a load at which a process was killed, asked for again with --force."""
    orphans: int = 0
    """Instances that killed processes left, and the server removed after its time to live."""
    trials: int = 0
    seconds: float = 0.0
    wrong: list[str] = attrs.field(factory=list[str])
    trouble: list[str] = attrs.field(factory=list[str])
    """Trials that were lost or counted twice."""
    crashes: int = 0
    """Runs that printed a traceback or ended with a defect's message."""
    left: int = 0
    touched: int = 0

    @property
    def failed(self) -> bool:
        """Whether anything is not as it must be."""
        return bool(self.wrong or self.trouble or self.crashes or self.left or self.touched)


@attrs.define(kw_only=True)
class _One:
    """One measurement on its way."""

    drawn: Draw
    job: Job
    engine: Engine
    measurer: Measurer
    outcome: Outcome
    faults: deque[Fault]
    marked_here: int = 0
    """`Outcome.marked`, as far as the store that is there now has them."""
    gone: int | None = None
    """How many trials were acknowledged when the store was last taken away."""
    gone_in_run: bool = False

    @property
    def _store(self) -> Path:
        return Path(self.job.store)

    async def run(self) -> None:
        """Run it until there is a report, and check everything."""
        before = await self.engine.state()
        await self.engine.malform(self.drawn.malformed, self.drawn.number)
        report = await self._until_report()
        await self.engine.malform(0.0, 0)
        kept = await kept_in(self._store) if self._store.exists() else ()
        if report is not None and (text := wrong(self.drawn, report)):
            self.outcome.wrong.append(text)
        self._check_trials(kept)
        await self._check_instances()
        after = await self.engine.state()
        self.outcome.malformed = after.malformed - before.malformed
        self.outcome.touched = int(before.untouched and not after.untouched)

    async def _until_report(self) -> ContextReport | None:
        while self.outcome.runs < MOST_RUNS:
            acknowledged = len(self._acks())
            self.gone_in_run = False
            status = await self._run_once()
            if self._crashed(status):
                return None
            report = await self._result(status, began=len(self._acks()) > acknowledged)
            if report is None:
                continue
            if not died_at_load(report) or self.job.again:
                return report
            self.outcome.marked += 1
            self.marked_here += not self.gone_in_run
            self.job = attrs.evolve(self.job, again=True)
        self.outcome.wrong.append(f"no report after {self.outcome.runs} runs")
        return None

    def _crashed(self, status: int | None) -> bool:
        """Whether the run ended in a way that no fault excuses."""
        errors = self.job.file("errors").read_text(errors="replace")
        told = {ExitCode.MEASURED, ExitCode.UNREACHABLE, -signal.SIGKILL}
        told |= {ExitCode.OTHER} if self.gone_in_run else set()
        if status in told and not any(text in errors for text in CRASHED):
            return False
        self.outcome.crashes += 1
        self.outcome.wrong.append(f"a run ended with {status}")
        return True

    async def _result(self, status: int | None, *, began: bool) -> ContextReport | None:
        """The report of a run, or None if it has to be continued."""
        printed = self._printed()
        if status == ExitCode.OTHER:  # the store was gone: stdout must have everything
            self.outcome.printed += printed is not None
            if printed is None and began:
                self.outcome.trouble.append("exit code 1, and no report was printed")
            return printed
        self.outcome.errors += status == ExitCode.UNREACHABLE
        kept = await kept_in(self._store) if self._store.exists() else ()
        reports = [m.report for m in kept if m.report is not None and not m.report.resumable]
        if status == ExitCode.MEASURED:
            if printed is None:
                self.outcome.trouble.append("exit code 0, and no report was printed")
            elif self._acks()[-1:] == [FINISHED] and self.gone_in_run and not reports:
                return printed  # the store went away after everything was in it
            elif printed not in reports:
                self.outcome.trouble.append("exit code 0, and the report is not in the store")
            return printed
        # A kill may come when all is done: then there is nothing to go on with.
        return reports[-1] if len(reports) > self.marked_here else None

    def _printed(self) -> ContextReport | None:
        """What the last run wrote to stdout, if that is a whole result."""
        out = self.job.file("out").read_text(errors="replace")
        self.job.file("out").unlink()
        try:
            report = load_report(out)
        except FormatError:
            return None
        return None if report.resumable else report

    async def _run_once(self) -> int | None:
        """The exit status of one run, with faults on its way."""
        self.outcome.runs += 1
        self._store.parent.mkdir(exist_ok=True)
        status: int | None = None
        await self.measurer.start(self.job)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._inject)
            while (status := await self._ended()) is None:
                pass
            tasks.cancel_scope.cancel()
        return status

    async def _ended(self) -> int | None:
        """The exit status, or None where it goes on. A run that does not is ended."""
        before = len(self._acks())
        try:
            return await self.measurer.ended(STILL_S)
        except TimeoutError:
            if len(self._acks()) > before:
                return None
        self.outcome.wrong.append(f"a run hangs: {STILL_S:.0f} s")
        self.measurer.kill(signal.SIGUSR1)  # says where
        await anyio.sleep(1)
        self.measurer.kill()
        return await self.measurer.ended(STILL_S)

    def _acks(self) -> Sequence[str]:
        acks = self.job.file("acks")
        return acks.read_text().splitlines() if acks.exists() else []

    async def _inject(self) -> None:
        while self.faults:
            await anyio.sleep(self.faults[0].after_s)
            fault = self.faults.popleft()
            if fault.kind is FaultKind.KILL:
                self.outcome.kills += self.measurer.kill()
                return  # the next fault is the next run's
            with anyio.CancelScope(shield=True):
                if fault.kind in STORE_FAULTS:
                    await self._take_store(fault.kind)
                elif fault.kind is FaultKind.FLOOD:
                    await self._flood(fault.lasts_s)
                elif fault.kind in {FaultKind.FREEZE, FaultKind.FREEZE_AND_KILL}:
                    await self._freeze(fault)
                else:
                    await self._trouble_server(fault.kind)

    async def _take_store(self, kind: FaultKind) -> None:
        """Take the store away while a run uses it."""
        other = self.job.file("other")
        if kind is FaultKind.REPLACE_STORE:
            await _create_store(other)
        with anyio.move_on_after(OPENED_S):
            while not self._store.exists():  # noqa: ASYNC110 - the run opens it when it begins
                await anyio.sleep(0.05)
        if not self._store.exists():
            return
        if kind is FaultKind.DELETE_STORE:
            self._store.unlink()
        elif kind is FaultKind.REPLACE_STORE:
            other.replace(self._store)
        else:
            self._store.parent.rename(self.job.file(f"moved-{self.outcome.stores_gone}"))
        self.gone = len(self._acks())
        self.gone_in_run, self.marked_here = True, 0
        self.outcome.stores_gone += 1

    async def _flood(self, lasts_s: float) -> None:
        await self.engine.flood(on=True)
        await anyio.sleep(lasts_s)
        await self.engine.flood(on=False)
        self.outcome.floods += 1

    async def _freeze(self, fault: Fault) -> None:
        await self.engine.freeze()
        await anyio.sleep(fault.lasts_s)
        self.outcome.freezes += 1
        if fault.kind is FaultKind.FREEZE:
            self.engine.thaw()
        else:
            await self._trouble_server(FaultKind.KILL_ENGINE)

    async def _trouble_server(self, kind: FaultKind) -> None:
        if kind is FaultKind.KILL_ENGINE:
            await self.engine.kill()
            self.outcome.engine_kills += 1
        elif kind is FaultKind.RESTART:
            await self.engine.restart(AWAY_S)
            self.outcome.restarts += 1
        else:
            self.outcome.sockets_dropped += await self.engine.drop()

    def _check_trials(self, kept: Sequence[KeptMeasurement]) -> None:
        outcome = self.outcome
        lines = [line for line in self._acks() if line != FINISHED]
        outcome.trials = len(lines)
        outcome.slow_writes = len(lines) if self.drawn.slow_s else 0
        interrupted = outcome.kills + outcome.errors + outcome.stores_gone
        # One more may have been on its way into the store when that was taken away.
        gone = 0 if self.gone is None else self.gone + 1
        outcome.trouble.extend(lost_or_doubled(kept, lines, gone=gone, interrupted=interrupted))
        if len(kept) != 1 + outcome.marked and self.gone is None:
            outcome.trouble.append(
                f"{len(kept)} measurements were begun instead of {1 + outcome.marked}"
            )

    async def _check_instances(self) -> None:
        """Nothing of ours is left, at the latest when its time to live is over."""
        left = (await self.engine.state()).left
        self.outcome.orphans = len(left)
        with anyio.move_on_after(TTL_S + GONE_S):
            while left:
                await anyio.sleep(0.1)
                left = (await self.engine.state()).left
        self.outcome.left = len(left)


async def _create_store(path: Path) -> None:
    store = SqliteStore(path)
    await store.reports()
    await store.aclose()


async def soak(
    seed: int,
    numbers: Sequence[int],
    *,
    workers: int,
    folder: Path,
    tell: Callable[[Outcome], None],
) -> list[Outcome]:
    """The outcomes of these measurements, in the order in which they ended."""
    outcomes: list[Outcome] = []

    def done(outcome: Outcome) -> None:
        outcomes.append(outcome)
        tell(outcome)

    async with anyio.create_task_group() as tasks:
        for worker in range(workers):
            tasks.start_soon(partial(_work, seed, numbers[worker::workers], folder, done))
    return outcomes


async def _work(
    seed: int, numbers: Sequence[int], folder: Path, done: Callable[[Outcome], None]
) -> None:
    async with Measurer.running() as measurer:
        for first in range(0, len(numbers), GROUP):
            group = numbers[first : first + GROUP]
            async with Engine.running(seed, group) as engine:
                for number in group:
                    done(await _one(draw(seed, number), engine, measurer, folder / str(number)))


async def _one(drawn: Draw, engine: Engine, measurer: Measurer, folder: Path) -> Outcome:
    folder.mkdir()  # noqa: ASYNC240 - nothing waits for it
    outcome = Outcome(number=drawn.number)
    job = Job(
        host=engine.host,
        model=drawn.model.key,
        store=str(folder / "kept" / "store.sqlite3"),
        folder=str(folder),
        seed=1 + drawn.number,
        certify=drawn.certify,
        slow_s=drawn.slow_s,
    )
    started = time.monotonic()
    await _One(
        drawn=drawn,
        job=job,
        engine=engine,
        measurer=measurer,
        outcome=outcome,
        faults=deque(drawn.faults),
    ).run()
    outcome.seconds = time.monotonic() - started
    if not outcome.failed:
        shutil.rmtree(folder)
    return outcome
