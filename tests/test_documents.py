"""The reference pages against the code: every key, cause, option and exit code, no other."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
from pathlib import Path
from typing import cast

import attrs
import click
import pytest

import lmstrix
from lmstrix import Cause, LMStrix, dump_report
from lmstrix.models import UNFINISHED, Reply, Status
from lmstrix.serialize import to_json
from lmstrix.testing.samples import sample_map, sample_report
from lmstrix_cli import main
from lmstrix_cli.errors import ExitCode

DOCS = Path(__file__).parent.parent / "docs"
FREE_KEYS = {"environment.versions", "environment.load_config"}
"""Objects whose keys are names, not ours."""
ADDED_TO_STATUS = {
    "store",
    "store_bytes",
    "store_reports",
    "store_warnings",
    "running",
    "unfinished",
    "go_on",
}


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head; code marks are dropped."""
    text = (DOCS / page).read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    section = re.split(r"^#+ ", section, flags=re.MULTILINE)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[c.strip().replace("`", "") for c in line.strip("|").split("|")] for line in lines[2:]]


def keys(value: object, path: str = "") -> set[str]:
    """Dotted keys of a JSON value; the items of an array of objects share ``[]``. What an
    empty array holds is unknown, so the sample has to fill each array once.
    """
    if isinstance(value, dict) and path not in FREE_KEYS:
        pairs = cast("dict[str, object]", value).items()
        return set[str]().union(*(keys(v, f"{path}.{k}" if path else k) for k, v in pairs))
    if isinstance(value, list):
        items = cast("list[object]", value)
        if not items or any(isinstance(item, dict) for item in items):
            return set[str]().union(*(keys(item, f"{path}[]") for item in items))
    return {path}


def names(kind: type) -> set[str]:
    """The fields of an attrs class."""
    return {field.name for field in attrs.fields(kind)}


def test_every_key_of_a_report_is_documented() -> None:
    documented = [row[0] for row in table("json.md", "Report")]
    assert len(documented) == len(set(documented))
    assert set(documented) == keys(json.loads(dump_report(sample_report())))


def test_every_cause_is_documented() -> None:
    documented = {row[0]: row[1] == "unfinished" for row in table("json.md", "Causes")}
    assert documented == {str(cause): cause in UNFINISHED for cause in Cause}


def test_the_other_objects_are_documented() -> None:
    assert {row[0] for row in table("json.md", "Reply")} == names(Reply)
    assert {row[0] for row in table("json.md", "Status")} == names(Status) | ADDED_TO_STATUS


def test_every_key_of_a_map_is_documented() -> None:
    documented = [key for row in table("json.md", "Map") for key in row[0].split(", ")]
    assert len(documented) == len(set(documented))
    found = json.loads(to_json(attrs.evolve(sample_map(), notes=("a note",))))
    found |= {"model": "as in a report", "environment": "as in a report"}
    assert set(documented) == keys(found)


def test_every_exit_code_is_documented() -> None:
    assert {int(row[0]) for row in table("cli.md", "Exit codes")} == set(ExitCode)
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert all(re.search(rf"\b{int(code)}\s+for", readme) for code in ExitCode)


def test_the_reference_of_commands_is_made_from_all_of_them() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert ".. click:: lmstrix_cli.main:lmstrix\n" in page
    assert ":nested: full" in page
    context = click.Context(main.lmstrix)
    for command in (main.lmstrix, *(main.lmstrix.get_command(context, n) for n in main.COMMANDS)):
        assert command is not None
        assert command.help
        options = [p for p in command.params if isinstance(p, click.Option)]
        assert not [o.name for o in options if not o.help]


def test_every_command_is_in_the_readme() -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert all(f"| `lmstrix {name}" in readme for name in main.COMMANDS)


def test_every_public_name_is_in_the_api_page() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"automodule:: (lmstrix\.\S+)", page))
    for name in lmstrix.__all__:
        found = getattr(lmstrix, name)
        module = getattr(found, "__module__", "")
        assert isinstance(found, str) or module in modules or f"{name}\n" in page
    assert LMStrix.__module__ not in modules


MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(lmstrix.__path__, f"{lmstrix.__name__}.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", [lmstrix.__name__, *MODULES])
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
