"""Every `lmstrix` command in the README, the documentation and the help, against the real ones."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import click
import pytest

from lmstrix_cli import main
from lmstrix_cli.commands.completion import complete_parameters

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = (ROOT / "README.md", *(p for p in PAGES if "_build" not in p.parts))
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
    """Parse and convert, but for what would have to be there on the disk."""
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


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_commands_in_running_text(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
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
