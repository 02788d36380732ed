"""The documents against the code: every key, cause and exit code, no other; every command."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
import shlex
from collections.abc import Iterator, Sequence
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
from lmstrix_cli.commands.completion import complete_parameters
from lmstrix_cli.errors import ExitCode

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = ROOT / "README.md"
FREE_KEYS = {"environment.versions", "environment.load_config", "model.load_config"}
"""Objects whose keys are names, not ours."""
ADDED_TO_STATUS = set(
    "store store_bytes store_reports store_warnings running unfinished go_on".split()
)


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


def test_every_key_and_cause_is_documented() -> None:
    a_map = json.loads(to_json(attrs.evolve(sample_map(), notes=("a note",))))
    a_map |= {"model": "as in a report", "environment": "as in a report"}
    found = {"Report": keys(json.loads(dump_report(sample_report()))), "Map": keys(a_map)}
    found |= {"Reply": names(Reply), "Status": names(Status) | ADDED_TO_STATUS}
    for heading, expected in found.items():
        documented = [key for row in table("json.md", heading) for key in row[0].split(", ")]
        assert len(documented) == len(set(documented))
        assert set(documented) == expected, heading
    causes = {row[0]: row[1] == "unfinished" for row in table("json.md", "Causes")}
    assert causes == {str(cause): cause in UNFINISHED for cause in Cause}


def test_every_exit_code_is_documented() -> None:
    assert {int(row[0]) for row in table("cli.md", "Exit codes")} == set(ExitCode)
    readme = README.read_text(encoding="utf-8")
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
    readme = README.read_text(encoding="utf-8")
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


# Commands.

DOCUMENTS = (README, *(p for p in sorted(DOCS.rglob("*.md")) if "_build" not in p.parts))
SHELLS = ("sh", "console", "yaml")
"""Blocks in which each line is a command; in others, those behind a prompt."""
ON_DISK = (click.Path, click.File)
# With the group's own settings: click keeps a command's help option once it was asked for.
GROUP = click.Context(main.lmstrix, info_name="lmstrix", **main.lmstrix.context_settings)


def commands_in_blocks(text: str) -> Iterator[str]:
    """The lines of code blocks that call `lmstrix`."""
    for language, block in re.findall(r"^ *```(\w+)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            called = re.search(r"(?<![\w-])lmstrix ", line)
            if called and (language in SHELLS or line.lstrip().startswith("$ ")):
                yield line


def commands_in_help(epilog: str | None) -> Iterator[str]:
    """The examples below a command's ``--help``."""
    lines = (epilog or "").splitlines()
    found = (line.strip() for line in lines if re.search(r"(^  |\()lmstrix ", line))
    yield from (re.sub(r"\s{3,}.*", "", line) for line in found)  # what it does stands beside it


def calls(line: str) -> Iterator[list[str]]:
    """The arguments of each call of `lmstrix` in a line of a shell."""
    unquoted = line.replace('"$(', "$( ").replace(')"', " )")
    words = shlex.shlex(re.sub(r"\d?>+ *\S+", "", unquoted), posix=True, punctuation_chars=True)
    words.whitespace_split = True
    called: list[str] | None = None
    for word in [*words, ";"]:
        if set(word) <= set("();<>|&$"):
            if called is not None:
                yield called
            called = None
        elif called is not None:
            called.append(word)
        elif word.rpartition("/")[2] == "lmstrix":
            called = []


def check(arguments: list[str]) -> None:
    """Raises a `click.UsageError` for what the command line would refuse; runs nothing."""
    rest = parse(main.lmstrix, GROUP, arguments)
    if not rest:
        return
    command = main.lmstrix.get_command(GROUP, rest[0])
    if command is None:
        raise click.UsageError(f"no command {rest[0]}")
    extra = parse(command, click.Context(command, parent=GROUP, info_name=rest[0]), rest[1:])
    if extra:
        raise click.UsageError(f"too many arguments: {extra}")


def parse(command: click.Command, context: click.Context, arguments: list[str]) -> list[str]:
    """Parse and convert everything but paths, which would have to exist."""
    values, rest, _ = command.make_parser(context).parse_args(list(arguments))
    for parameter in command.params:
        given = texts(values.get(parameter.name or ""))
        if isinstance(parameter, click.Argument) and parameter.required and not given:
            raise click.MissingParameter(ctx=context, param=parameter)
        for text in given if not isinstance(parameter.type, ON_DISK) else ():
            parameter.type.convert(text, parameter, context)
    return rest


def texts(given: object) -> list[str]:
    """What was typed; flags and what was left out are none."""
    several = cast("Sequence[object]", given) if isinstance(given, list | tuple) else [given]
    return [one for one in several if isinstance(one, str)]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_in_documents(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for line in commands_in_blocks(text):
        for arguments in calls(line):
            try:
                check(arguments)
            except click.UsageError as error:
                pytest.fail(f"{line}: {error.format_message()}")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for span in re.findall(r"`lmstrix (\w[^`]*)`", prose):
        name, *words = span.split()
        command = main.lmstrix.get_command(GROUP, name)
        assert command is not None or name == "COMMAND", span
        known = {o for p in command.params for o in p.opts} if command else {"--help"}
        assert {w for w in words if w.startswith("-") and w != "-"} <= known, span


def test_commands_in_help() -> None:
    found = 0
    for name in (None, *main.COMMANDS):
        command = main.lmstrix if name is None else main.lmstrix.get_command(GROUP, name)
        assert command is not None
        for line in commands_in_help(command.epilog):
            for arguments in calls(line):
                check(arguments)
                found += 1
    assert found > 30


def test_what_completes_a_file_does_not_hide_that_it_is_one() -> None:
    command = main.lmstrix.get_command(GROUP, "import")
    assert command is not None
    complete_parameters(command)  # as a shell's question does: the command keeps it
    assert isinstance(command.params[0].type, ON_DISK)
