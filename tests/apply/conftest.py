"""Copies of an LM Studio home as it looks after some months of use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data" / "home"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home in use: settings of two models, an index with a virtual model and a variant."""
    made = tmp_path.resolve() / "lm-studio"
    shutil.copytree(DATA, made)
    (made / "models").mkdir()
    return made
