"""The examples as a user runs them: real engine, real model, real notebook kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
DEADLINE_S = 240
JUPYTER_FOLDERS = ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
"""What Jupyter would otherwise write to the user's home."""

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """Bind us and the programs we start to one core, where the system can.

    The engine then runs one thread. Two wait for each other in a busy loop at every step: where
    other work shares the cores, that has taken ten times as long as one alone.
    """
    if sys.platform != "linux":
        yield
        return
    cores = os.sched_getaffinity(0)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    os.sched_setaffinity(0, {sorted(cores)[worker % len(cores)]})
    yield
    os.sched_setaffinity(0, cores)


def run(*command: str | Path, **environment: str) -> str:
    """The stdout of a program that ends well."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_measuring_on_either_event_loop(loop: str, demo_model: Path) -> None:
    printed = run(EXAMPLES / f"find_true_context_{loop}.py", demo_model, "--quick").splitlines()
    assert printed[-3:] == ["declared 8192", "loadable 512", "true 512 (max_context)"]


def test_watching_progress(demo_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    printed = run(EXAMPLES / "watch_progress.py", demo_model, "--quick", "--report", file)
    assert "loaded with 512 tokens" in printed
    assert "reading 512: " in printed
    assert printed.splitlines()[-1] == "true 512 (max_context)"
    report: dict[str, Any] = json.loads(file.read_text())
    assert (report["schema_version"], report["true_context"]) == (1, 512)
    assert report["cost"]["cached_tokens"] > report["cost"]["prompt_tokens"]


def test_the_notebook_in_a_real_kernel(demo_model: Path, tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.ipynb"
    run("-m", "jupytext", "--to", "ipynb", "--output", notebook, EXAMPLES / "notebook.py")
    run(
        "-m",
        "jupyter",
        "execute",
        "--inplace",
        notebook,
        LMSTRIX_EXAMPLE_GGUF=str(demo_model),
        LMSTRIX_EXAMPLE_QUICK="1",
        **{name: str(tmp_path / name) for name in JUPYTER_FOLDERS},
    )
    cells: list[dict[str, Any]] = json.loads(notebook.read_text())["cells"]
    printed = "".join(
        "".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", [])
    )
    assert "declared 8192\nloadable 640\ntrue 640 (max_context)\n" in printed
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    progress, table, chart = (output["data"] for output in outputs if "data" in output)
    assert "true context 640: max context" in "".join(progress["text/plain"])
    assert "reliable to at least 640" in "".join(table["text/html"])
    assert "<svg" in "".join(chart["text/html"])
