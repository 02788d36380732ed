"""Prompt templates: what is one, what is refused, and what stands in the places."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmstrix.errors import ConfigurationError
from lmstrix_cli.prompts import (
    MAX_FILE_BYTES,
    choose_template,
    fill,
    parse_templates,
    read_templates,
    user_templates,
)

SUMMARY = """
[summary]
description = "In a few words"
system = "You write {style}."
user = "In {words} words, as {{json}}:\\n{prompt}"
max_tokens = 400
"""


def test_values_stand_in_their_places_and_are_not_looked_at_again() -> None:
    template = parse_templates(SUMMARY, "x")["summary"]
    assert template.variables == ("style", "words", "prompt")
    filled = fill(template, {"style": "{words}", "words": "{{5}}", "prompt": "{x.__class__}"})
    assert filled.system == "You write {words}."
    assert filled.user == "In {{5}} words, as {json}:\n{x.__class__}"
    assert (filled.max_tokens, filled.description) == (400, "In a few words")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[t", "not TOML"),
        ("a = " + "[" * 20_000, "not TOML"),
        ("a = " + "9" * 10_000, "not TOML"),
        ("t = 'hello'", "not a table"),
        ("[[t]]\nuser = 'x'", "not a table"),
        ("['a b']\nuser = 'x'", "not a name"),
        ("['\\u001b[2J']\nuser = 'x'", "not a name"),
        ("[t]\nsystem = 'x'", "no `user`"),
        ("[t]\nuser = ' '", "no `user`"),
        ("[t]\nuser = 7", "`user` is not a text"),
        ("[t]\nuser = 'x'\nsystem = ['x']", "`system` is not a text"),
        ("[t]\nuser = 'x'\nmodel = 'x'", "unknown key 'model'"),
        ("[t]\nuser = 'x'\nmax_tokens = true", "`max_tokens`"),
        ("[t]\nuser = 'x'\nmax_tokens = 0", "`max_tokens`"),
        ("[t]\nuser = 'x'\nmax_tokens = 99999999999", "`max_tokens`"),
        ('[t]\nuser = "\\u001b[2J"', "control character '\\\\x1b'"),
        ('[t]\nuser = "x"\ndescription = "\\u202e"', "control character '\\\\u202e'"),
        ("[t]\nuser = '''x\n{a.b}'''", "line 2: a single '{'"),
        ("[t]\nuser = 'a } b'", "a single '}'"),
        ("[t]\nuser = '{}'", "a single '{'"),
        ("[t]\nuser = '{a!r}'", "a single '{'"),
        ("[t]\nuser = '{0}'", "a single '{'"),
    ],
)
def test_what_is_no_template(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        parse_templates(text, "x")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    bad, large = tmp_path / "bad.toml", tmp_path / "large.toml"
    bad.write_bytes(b"[t]\nuser = '\xff'")
    large.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    away = tmp_path / "away.toml"
    nul = Path("a\0b")
    for path, said in (
        (bad, "UTF-8"),
        (large, "larger than"),
        (away, "cannot be read"),
        (tmp_path, "cannot be read"),
        (nul, "cannot be read"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            read_templates(path)


def test_the_users_own_stand_in_one_file_or_several(tmp_path: Path) -> None:
    assert user_templates(tmp_path) == {}
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts.toml").write_text("[b]\nuser = 'x'")
    (tmp_path / "prompts" / "more.toml").write_text("[a]\nuser = 'x'\n[c]\nuser = 'x'")
    (tmp_path / "prompts" / "note.txt").write_text("no template")
    assert list(user_templates(tmp_path)) == ["a", "b", "c"]
    (tmp_path / "prompts" / "again.toml").write_text("[b]\nuser = 'y'")
    with pytest.raises(ConfigurationError, match="two templates 'b'"):
        user_templates(tmp_path)


def test_a_file_with_one_template_needs_no_name(tmp_path: Path) -> None:
    file = tmp_path / "p.toml"
    file.write_text("[a]\nuser = 'x'")
    assert choose_template(None, file).name == "a"
    file.write_text("[a]\nuser = 'x'\n[b]\nuser = 'x'")
    assert choose_template("b", file).name == "b"
    for name in (None, "c"):
        with pytest.raises(ConfigurationError) as caught:
            choose_template(name, file)
        assert "'a', 'b'" in caught.value.hint
