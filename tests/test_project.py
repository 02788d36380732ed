"""What holds for the project as a whole: names, imports, and what its documents say."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

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
