"""The soak in its short form."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL and no fork")


def test_measurements_end_right_whatever_goes_wrong() -> None:
    command = [sys.executable, str(SOAK), "--seed", "595", "--count", "6"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    table = dict(line.rsplit(maxsplit=1) for line in ended.stdout.splitlines()[6:])
    assert table["measurements"] == "6"
    assert int(table["processes killed while measuring"]) >= 3
    assert int(table["trials acknowledged"]) > 100
