"""One run of a measurement in a process of its own, so that it can be killed.

Run as a process it reads jobs, lines of JSON, and forks for each one: everything is imported
before. The fork runs ``lmstrix test MODEL --json``; what it prints goes to ``out`` and ``errors``
in the job's folder. The process prints the process id of the fork, and later its exit status.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import attrs

from lmstrix import LMStrix, MeasureOptions, Observer, RetryPolicy
from lmstrix.locks import FOLDER_VARIABLE
from lmstrix.models import ContextReport, ModelInfo, Trial
from lmstrix.stores.sqlite import SqliteStore
from lmstrix_cli import session
from lmstrix_cli.main import main as lmstrix
from lmstrix_cli.settings import Settings

FINISHED = "finished"
"""In place of a trial: the report is stored."""
IMPORTED = (
    "lmstrix_cli.commands.test",
    "lmstrix.adapters.lmstudio.adapter",
    "lmstrix.search.bayes",
    "lmstrix.validators.recall",
    "lmstrix.validators.coherence",
)
"""What each fork would import else: it takes as long as some measurements."""
BROKEN = 70
"""Exit status after an exception that nobody caught."""
RETRY = RetryPolicy(attempts=10, first_wait_s=0.05, longest_wait_s=0.5)
"""With 1 % malformed frames two loads of three are lost: sizing a text takes a hundred calls."""
TTL_S = 3
"""What a killed process leaves, the server unloads after so many idle seconds."""
SHORT = {"connect_s": 2.0, "call_s": 1.0, "stall_s": 1.5, "load_s": 2.0, "ttl_s": TTL_S}
"""Deadlines. Everything is simulated: what takes longer was lost."""


@attrs.frozen(kw_only=True)
class Job:
    """What to measure, and where to leave what comes of it."""

    host: str
    model: str
    store: str
    folder: str
    seed: int
    certify: bool
    slow_s: float
    hurried: bool = True
    """With short deadlines: a run that is unlucky is started again."""
    again: bool = False
    """As a user would who was told that an earlier run died while it loaded."""

    def file(self, name: str) -> Path:
        """A file of this measurement."""
        return Path(self.folder, name)


def ack(measurement_id: str, trial: Trial) -> str:
    """What names a trial, on one line."""
    name = (trial.level, trial.phase, trial.length_tokens, trial.seed, trial.region, trial.index)
    return json.dumps((measurement_id, *name))


class LoggingStore(SqliteStore):
    """A store on a slow disk, which notes each trial once it is said to be stored."""

    def __init__(self, job: Job) -> None:
        super().__init__(Path(job.store))
        self._slow_s = job.slow_s
        flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
        self._acks = os.open(job.file("acks"), flags, 0o600)

    async def append_trials(self, measurement_id: str, trials: Sequence[Trial]) -> Sequence[Trial]:
        """Remember the trials of one request, slowly."""
        await anyio.sleep(self._slow_s)
        counted = await super().append_trials(measurement_id, trials)
        lines = "".join(f"{ack(measurement_id, trial)}\n" for trial in trials)
        os.write(self._acks, lines.encode())
        return counted

    async def finish(self, measurement_id: str, report: ContextReport) -> None:
        """Keep the report."""
        await super().finish(measurement_id, report)
        os.write(self._acks, f"{FINISHED}\n".encode())


class PatientClient(LMStrix):
    """Tries more often than the command line does."""

    async def find_true_context(
        self,
        model: str | ModelInfo,
        options: MeasureOptions | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> ContextReport:
        """Measure `model`."""
        options = attrs.evolve(options or MeasureOptions(), retry=RETRY)
        return await super().find_true_context(model, options, observers=observers)


def run(job: Job) -> int:
    """The exit status of ``lmstrix test``."""
    settings = {"host": job.host, **(SHORT if job.hurried else {})}

    def open_client(_: Settings, **parts: Any) -> LMStrix:  # noqa: ANN401 - those of the client
        return PatientClient(
            adapter="lmstudio", adapter_settings=settings, store=LoggingStore(job), **parts
        )

    session.open_client = open_client
    options = ["--seed", str(job.seed)]
    options += [] if job.certify else ["--no-certify"]
    options += ["--force"] if job.again else []
    shared = ["--adapter", "lmstudio", "--host", job.host, "--store", job.store]
    sys.argv = ["lmstrix", *shared, "test", job.model, "--json", *options]
    try:
        lmstrix()
    except SystemExit as ended:
        return int(ended.code or 0)
    except BaseException:  # noqa: BLE001 - it is the end of this process
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return BROKEN


def main() -> None:
    """Fork for each line of the input, one after the other."""
    for name in IMPORTED:
        import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            job = Job(**json.loads(line))
            for name, stream in (("out", sys.stdout), ("errors", sys.stderr)):
                flags = os.O_CREAT | os.O_APPEND | os.O_WRONLY
                os.dup2(os.open(job.file(name), flags, 0o600), stream.fileno())
            # Nothing is encrypted here: no connection has to read all certificates first.
            os.environ["SSL_CERT_DIR"] = job.folder
            os.environ.setdefault(FOLDER_VARIABLE, job.folder)
            faulthandler.register(signal.SIGUSR1)  # where it hangs
            os._exit(run(job))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        with suppress(BrokenPipeError):  # whoever asked is gone
            print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
