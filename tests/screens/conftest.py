"""What a command shows on a screen, kept as text files beside the tests.

``LMSTRIX_UPDATE_SCREENS=1 pytest tests/screens`` writes the files anew: read what changed.
"""

from __future__ import annotations

import difflib
import importlib
import io
import logging
import os
import re
import sys
from collections.abc import Generator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from lmstrix.testing.lmstudio import LMStudioServer
from lmstrix.testing.simulated import SimulatedAdapter
from lmstrix_cli import session
from lmstrix_cli.main import lmstrix
from lmstrix_cli.testing import Shell

EXPECTED = Path(__file__).with_name("expected")
UPDATE = "LMSTRIX_UPDATE_SCREENS"
REAL = session.open_client
ENVIRONMENT = ("ADAPTER", "HOST", "STORE")

_ESCAPE = re.compile(r"\x1b\[")
_ADDRESS = re.compile(r"127\.0\.0\.1:\d\d+")  # port 9 is ours
_MOVING: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\b20(?!26-01-)\d\d-\d\d-\d\d[T ][\d:.]+(?:\+00:00| UTC)"), "<time>"),
    (re.compile(r"\b(\d\.\d\d|\d\d\.\d) s\b"), "#.## s"),  # as wide as it was
    (re.compile(r"(reports?), [\d.]+ kB"), r"\1, <size>"),
    (re.compile(r'("store_bytes": )\d+'), r"\1<size>"),
    (re.compile(r"lmstrix-\d+T\d+-(\w+)-[0-9a-f]+\.bak"), r"lmstrix-<time>-\1-<digest>.bak"),
    (re.compile(r"\bSDK [\d.]+"), "SDK <version>"),
)
"""What differs from run to run, and what stands for it. Samples are of January 2026."""


class Output(io.TextIOWrapper):
    """A stream in memory that may say that it is a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        self.flush()
        self.seek(0)
        return self.read()


@attrs.define
class Screens:
    """Runs commands, and compares all they print with the file of that name."""

    shell: Shell
    folder: Path
    patch: pytest.MonkeyPatch

    def run(
        self, *words: str, width: int = 80, terminal: bool = False, typed: str = ""
    ) -> tuple[str, int]:
        """What appears (stdout, then stderr behind a rule) and the exit code."""
        self.patch.setenv("COLUMNS", str(width))
        given = io.TextIOWrapper(io.BytesIO(typed.encode()), encoding="utf-8")
        self.patch.setattr(sys, "stdin", given)
        out, err = Output(terminal=terminal), Output(terminal=False)
        code = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                lmstrix(list(words), prog_name="lmstrix")
            except SystemExit as end:
                code = int(end.code or 0)
        note = err.text()
        return self._stable(out.text() + (f"-- stderr\n{note}" if note else "")), code

    def check(
        self, name: str, commands: Sequence[str], *, width: int = 80, terminal: bool = False
    ) -> None:
        """Run `commands` (words apart by blanks) and compare with ``expected/NAME.txt``."""
        blocks: list[str] = []
        for command in commands:
            words = [word.replace("<tmp>", str(self.folder)) for word in command.split()]
            text, code = self.run(*words, width=width, terminal=terminal)
            blocks.append(f"$ lmstrix {self._stable(command)}\n{text}-- exit code {code}\n")
        compare(EXPECTED / f"{name}.txt", "\n".join(blocks))

    def _stable(self, text: str) -> str:
        """The text without what differs from run to run."""
        text = _ESCAPE.sub(r"\\e[", text)
        for path in (self.folder.resolve(), self.folder):
            text = text.replace(str(path), "<tmp>")
        text = _ADDRESS.sub("<address>", text)
        for pattern, mark in _MOVING:
            text = pattern.sub(mark, text)
        return text


def compare(path: Path, found: str) -> None:
    """Fail with the difference; or write the file, where that is wished."""
    if os.environ.get(UPDATE):
        path.write_text(found, encoding="utf-8")
        return
    kept = path.read_text(encoding="utf-8") if path.exists() else ""
    if kept == found:
        return
    lines = difflib.unified_diff(
        kept.splitlines(), found.splitlines(), f"expected/{path.name}", "found", lineterm=""
    )
    pytest.fail("\n".join([*lines, f"{UPDATE}=1 keeps what was found."]), pytrace=False)


class JanuaryTenth(datetime):
    """The day on which ages are told."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2026, 1, 10, tzinfo=tz)


@pytest.fixture
def screens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Screens:
    """An empty store, one simulated model, a home and a working folder without anything."""
    for name in (*(f"LMSTRIX_{end}" for end in ENVIRONMENT), "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.chdir(tmp_path)
    # A difference stands alone: no tracebacks of errors that are part of a screen.
    monkeypatch.setattr(logging.getLogger("lmstrix_cli.errors"), "disabled", True)
    shell = Shell(tmp_path / "store.sqlite3")
    monkeypatch.setattr(session, "open_client", shell.open_client)
    monkeypatch.setattr(
        importlib.import_module("lmstrix_cli.commands.list"), "datetime", JanuaryTenth
    )
    return Screens(shell, tmp_path, monkeypatch)


@pytest.fixture
def live(screens: Screens) -> Screens:
    """The same with the real client: what answers is what the options name."""
    screens.patch.setattr(session, "open_client", REAL)
    screens.patch.setenv("LMSTRIX_STORE", str(screens.shell.store))
    return screens


@pytest.fixture
def stand_in() -> Generator[str]:
    """Address of a stand-in LM Studio on an event loop of its own: commands bring theirs."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(LMStudioServer(SimulatedAdapter())) as server,
    ):
        yield server.host
