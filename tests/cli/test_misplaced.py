"""Words that stand where they are not taken, and what is said then."""

from __future__ import annotations

import pytest

from lmstrix_cli.testing import Shell


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--json list", "--json is an option of list and belongs after it"),
        ("--store x --json list", "lmstrix list --json ..."),
        ("tets", "No such command 'tets'. Did you mean \"test\"?"),
        ("help nosuch", "No such command 'nosuch'."),
        ("a/model.gguf", "To measure a model: lmstrix test a/model.gguf"),
        ("a/\x1b[2J", "No such command 'a/\\x1b[2J'.\n"),
        ("list --nam x", "Did you mean '--name'?"),
        ("--nosuch list", "No such option '--nosuch'."),
    ],
)
def test_what_may_have_been_meant(shell: Shell, typed: str, said: str) -> None:
    result = shell.run(*typed.split(" "))
    assert result.exit_code == 2
    assert said in result.stderr
    assert "\x1b" not in result.stderr
