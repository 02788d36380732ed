"""What the release workflow relies on."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "release_notes.py"
PYPROJECT = '[project]\nversion = "2.0.0a1"\n'
DATED = "# Changelog\n\n## [2.0.0a1] - 2026-11-23\n\nNews.\n\n## [1.0] - 2025-01-01\n\nOld.\n"


def notes(folder: Path, changelog: str, tag: str) -> tuple[int, str, str]:
    """Run the script in a small project: exit code, stdout, stderr."""
    (folder / ".ci").mkdir()
    script = folder / ".ci" / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "CHANGELOG.md").write_text(changelog)
    done = subprocess.run(
        [sys.executable, str(script), tag], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_the_notes_are_the_section_of_the_version(tmp_path: Path) -> None:
    assert notes(tmp_path, DATED, "v2.0.0a1") == (0, "News.\n", "")


@pytest.mark.parametrize(
    ("changelog", "tag", "complaint"),
    [
        (DATED, "v2.0.0", "pyproject.toml says version 2.0.0a1"),
        (DATED.replace("2.0.0a1", "2.0.0"), "v2.0.0a1", "no section"),
        (DATED.replace("2026-11-23", "unreleased"), "v2.0.0a1", "no date"),
        (DATED.replace("News.", ""), "v2.0.0a1", "empty"),
    ],
    ids=["other tag", "no section", "unreleased", "empty"],
)
def test_nothing_half_ready_is_released(
    changelog: str, tag: str, complaint: str, tmp_path: Path
) -> None:
    code, printed, error = notes(tmp_path, changelog, tag)
    assert (code, printed) == (1, "")
    assert complaint in error


def test_every_action_is_pinned_to_a_commit_with_its_version_beside_it() -> None:
    for workflow in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = workflow.read_text(encoding="utf-8")
        for used in re.findall(r"uses: (.+)", text):
            assert re.fullmatch(r"\./.+|\S+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


def test_the_workflow_tests_every_promised_python() -> None:
    promised = re.findall(
        r"Python :: (3\.\d+)\"", (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    )
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    tested = re.findall(r"^        python: \[(.+)\]$", workflow, flags=re.MULTILINE)
    assert promised in [re.findall(r"[\d.]+", versions) for versions in tested]
    assert f'python: "{promised[0]}"' in workflow  # with the oldest packages, too
