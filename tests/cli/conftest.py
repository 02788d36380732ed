"""The command line over simulated models: everything real but the engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_shell import Shell

from lmstrix_cli import session


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A command line of its own: no environment, an empty store, one simulated model."""
    for name in ("LMSTRIX_ADAPTER", "LMSTRIX_HOST", "LMSTRIX_STORE", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    made = Shell(tmp_path / "store.sqlite3")
    monkeypatch.setattr(session, "open_client", made.open_client)
    return made
