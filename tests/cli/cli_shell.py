"""Runs the command line in this process, over any adapter, and in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import attrs
from click.testing import CliRunner, Result
from processes import SOURCES

from lmstrix import Adapter, ContextReport, LMStrix, ModelInfo, Status
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix_cli import session
from lmstrix_cli.main import lmstrix
from lmstrix_cli.session import observers
from lmstrix_cli.settings import Settings

NOBODY = "127.0.0.1:9"
"""The port of the discard service: nothing of ours listens there."""
REAL = session.open_client
"""What `Shell.open_client` stands for."""
FINE = SimulatedModel(key="fine", declared=2048, true_context=10**6)
CLUELESS = SimulatedModel(key="clueless", declared=2048, knows=False)
DRIVER = """
import logging, sys, anyio
from contextlib import asynccontextmanager
from pathlib import Path
from lmstrix import LMStrix
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix.testing.simulated import SimulatedAdapter, SimulatedModel
from lmstrix_cli import session
from lmstrix_cli.main import main

{adapter}

session.open_client = lambda settings, **parts: LMStrix(
    adapter=adapter, store=Path(settings.store) if "/" in settings.store else "memory", **parts)
main()
"""
"""The command line over an adapter; `adapter` is the code that makes it."""


def run_python(code: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` to its end, with these words as its arguments."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | SOURCES | environment,
    )


class ScriptedAdapter(SimulatedAdapter):
    """Simulated models whose listing and status can be said in advance."""

    def __init__(
        self,
        *models: SimulatedModel,
        listing: Sequence[ModelInfo] | None = None,
        status: Status | None = None,
        listing_error: Exception | None = None,
        reply_seconds: float = 0.0,
    ) -> None:
        super().__init__(*models, reply_seconds=reply_seconds)
        self._listing = listing
        self._status = status
        self._listing_error = listing_error

    async def list_models(self) -> Sequence[ModelInfo]:
        """The scripted error, the scripted listing, or the simulated models."""
        if self._listing_error is not None:
            raise self._listing_error
        return await super().list_models() if self._listing is None else self._listing

    async def find_model(self, name: str) -> ModelInfo:
        """The scripted error, or a simulated model."""
        if self._listing_error is not None:
            raise self._listing_error
        return await super().find_model(name)

    async def status(self) -> Status:
        """The scripted status, or that of the simulation."""
        return self._status or await super().status()


def made(key: str, day: int = 1, **changes: Any) -> ContextReport:
    """A report of the model `key`, measured on that day."""
    finished = datetime(2026, 1, day, tzinfo=UTC)
    return sample_report(model=sample_model(key=key, path=key), finished_at=finished, **changes)


def invoked(*arguments: str, typed: str | bytes | None = None, code: int | None = None) -> Result:
    """What ``lmstrix`` prints with these arguments. It has to end with `code`; None: with any."""
    result = CliRunner().invoke(lmstrix, list(arguments), input=typed)
    assert code in (None, result.exit_code), result.stderr
    return result


@attrs.define
class Shell:
    """Runs ``lmstrix`` with `adapter` and the store in the file `store`.

    Put `open_client` in the place of `lmstrix_cli.session.open_client` first. `settings` are
    the ones that the last command came with.
    """

    store: Path
    adapter: Adapter = attrs.field(factory=ScriptedAdapter)
    settings: Settings | None = None

    def open_client(self, settings: Settings, **parts: Any) -> LMStrix:
        """A client over `adapter`, whatever the options say."""
        self.settings = settings
        return LMStrix(
            adapter=self.adapter, store=self.store, observers=observers(settings), **parts
        )

    def remember(self, *reports: ContextReport) -> None:
        """Put reports into the store, each under a key of its own, the oldest first."""

        async def keep() -> None:
            async with LMStrix(adapter=self.adapter, store=self.store) as client:
                for report in reports:
                    begun = await client.store.begin(uuid.uuid4().hex, report.model)
                    await client.store.finish(begun.id, report)

        anyio.run(keep)

    def run(
        self, *arguments: str, typed: str | bytes | None = None, code: int | None = None
    ) -> Result:
        """What a command prints, and its exit code; `typed` stands on its stdin."""
        return invoked(*arguments, typed=typed, code=code)

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        """What a command with ``--json`` prints, parsed."""
        return [json.loads(line) for line in self.run(*arguments).stdout.splitlines()]
