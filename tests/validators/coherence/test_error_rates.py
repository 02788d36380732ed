"""False alarms and misses on the half of the data that set no threshold."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def benchmark_module() -> ModuleType:
    path = ROOT / "benchmarks" / "coherence.py"
    spec = importlib.util.spec_from_file_location("coherence_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["coherence_benchmark"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("half", ["calibration", "evaluation"])
def test_few_errors(benchmark_module: ModuleType, half: str) -> None:
    rows = {row.name: row for row in benchmark_module.table(half)}
    assert [str(row) for row in rows.values() if row.is_bad] == []
    assert rows["all fine"].n >= 150
    assert sum(r.n for name, r in rows.items() if name.startswith("all")) >= 300


def test_the_halves_share_no_text(benchmark_module: ModuleType) -> None:
    files = ("good", "bad", "model", "short_good", "short_bad")
    samples = [s for name in files for s in benchmark_module.samples(name)]
    halves: dict[str, set[str]] = {}
    for sample in samples:
        halves.setdefault(sample.group, set()).add(sample.half)
    assert all(len(half) == 1 for half in halves.values())
    good = sum(s.kind == "fine" for s in samples)
    assert good >= 300
    assert len(samples) - good >= 300


def test_plain_wrong_answers_are_never_broken(benchmark_module: ModuleType) -> None:
    wrong = benchmark_module.samples("short_good")
    assert len(wrong) >= 300
    assert [s.text for s in wrong if benchmark_module.looks_broken(s.text)] == []
