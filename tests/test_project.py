"""The project as a whole: names, documents, and what the release workflow relies on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import lmstrix
from lmstrix import errors, events, ports

ROOT = Path(__file__).parent.parent
SOURCES = sorted(p for top in ("lmstrix", "cli") for p in (ROOT / top).rglob("*.py"))
TEXTS = ("j2", "json", "jsonl", "md", "py", "txt")


def test_a_checkout_converts_no_line_ends() -> None:
    tops = ("cli", "lmstrix", "tests")  # on Windows, git does where .gitattributes is not heeded
    texts = [p for top in tops for ending in TEXTS for p in (ROOT / top).rglob(f"*.{ending}")]
    assert len(texts) > 200
    assert [p for p in texts if b"\r" in p.read_bytes()] == []


def test_the_changelog_knows_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{project['version']}]" in changelog


def test_no_advice_installs_the_other_program_of_this_name() -> None:
    """Until a release, the package index has an older program called lmstrix."""
    texts = [
        *SOURCES,
        *(p for top in ("docs", "examples") for p in (ROOT / top).rglob("*.*") if p.is_file()),
        ROOT / "README.md",
    ]
    for path in texts:
        if path.suffix not in {".md", ".py"} or path.name == "releasing.md":
            continue
        advice = r"""pip install (?:-\S+ )*["']?lmstrix(?:\[.*?\])?(?!>=2|\[)"""
        assert not re.findall(advice, path.read_text(encoding="utf-8")), path.name


def test_links_between_documents_lead_somewhere() -> None:
    pages = [p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts]
    assert len(pages) > 15
    for document in (*ROOT.glob("*.md"), *pages):
        text = document.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (document.parent / link).exists(), f"{link} in {document.name}"


# The public names: adding one is a decision, losing one breaks somebody.

PUBLIC = """
DEFAULT_ADAPTER DEFAULT_LEVELS DEFAULT_STRATEGY EMBEDDED_ADAPTER REPLY_TOKENS THIS_MACHINE
UNFINISHED Adapter Archive Ask Baseline BaselineMeasured BenchFinished BenchOptions BenchPoint
BenchSample BracketChanged Bracketing Cause ComparingValidator ConfigurationError ConnectionLost
ContextMap ContextOverflow ContextReport Cost CostModel CurvePoint DepthSource DepthTally Done
EngineCrashed
EngineTimeout EngineUnavailable Environment Event FixesContext Forecast FormatError GradedValidator
HasNotes InfrastructureError Interval InvalidModel Judgement LMStrix LMStrixError Layer Level
LevelReport
LoadError LoadFailed LoadFinished LoadHung LoadProgress LoadProgressed LoadRefused LoadStarted
LoadedInstance LoadedModel MapCell MapFinished MapOptions MeasureOptions MeasurementFinished
MeasurementStarted MemoryEstimate Merged Method ModelError ModelInUse ModelInfo ModelNotFound
NotMeasured Noted Observation Observer OutOfMemory Outcome OwnsEngine PassRule PhaseStarted
PluginNotFound PredictionError PredictionTooSlow PrefillProgress PrefillProgressed
ProbeFinished ProbeStarted Prompt PromptTruncated Proportion Question QuestionSource Region
RegionReport Reply ReplyChunk ReplyTimed ReportSummary RetryPolicy Retrying Reuse SearchProblem
SearchStrategy SettingsError SeveralSource SeveralValidator SizeCheck SpeedBench SqliteStore
Status StopReason Store StoreContents StoreError StoredMeasurement StoredReport TakesTurns Trial
TrialFinished UnsupportedModel Usable Validator Verdict WaitingForTurn check_of dump_contents
dump_report is_store judge_reply load_contents load_map load_report missing_at plugin_names
reports_of suggestion to_json
""".split()


def test_the_public_names() -> None:
    assert lmstrix.__all__ == PUBLIC


def defined_in(module: ModuleType) -> set[str]:
    """The public classes that a module defines."""
    return {
        name
        for name, value in vars(module).items()
        if isinstance(value, type)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def test_every_error_event_and_port_is_public() -> None:
    names = defined_in(errors)
    assert len(names) > 20
    assert names <= set(lmstrix.__all__)
    for name in names:
        assert issubclass(getattr(errors, name), lmstrix.LMStrixError)
    assert defined_in(events) | defined_in(ports) <= set(lmstrix.__all__)


# Releases.

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
def test_no_half_ready_release(changelog: str, tag: str, complaint: str, tmp_path: Path) -> None:
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
