"""Prints the release notes of a tag, from CHANGELOG.md: ``python .ci/release_notes.py v2.0.0a1``.

Ends with an error where the tag is not ``v`` and the version in pyproject.toml, or where the
changelog has no dated section with something in it for that version.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def release_notes(tag: str, version: str, changelog: str) -> str:
    """The text below the version's heading; `ValueError` where there is nothing to release."""
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, but pyproject.toml says version {version}")
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    heading, _, body = next(
        (section.partition("\n") for section in sections if section.startswith(f"[{version}]")),
        ("", "", ""),
    )
    if not heading:
        raise ValueError(f"CHANGELOG.md has no section for {version}")
    if not re.fullmatch(rf"\[{re.escape(version)}\] - \d{{4}}-\d{{2}}-\d{{2}}", heading.strip()):
        raise ValueError(f"the section of {version} in CHANGELOG.md bears no date: {heading}")
    if not body.strip():
        raise ValueError(f"the section of {version} in CHANGELOG.md is empty")
    return body.strip() + "\n"


def main() -> int:
    """The notes on stdout, or what is wrong on stderr; the exit code says which."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    try:
        notes = release_notes(sys.argv[1], project["version"], changelog)
    except (IndexError, ValueError) as error:
        sys.stderr.write(f"{error if isinstance(error, ValueError) else __doc__}\n")
        return 1
    sys.stdout.write(notes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
