"""`infer` and its templates, and `demo`."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import platformdirs
import pytest
from cli_shell import ScriptedAdapter, Shell

import lmstrix.demo
from lmstrix.errors import ConfigurationError
from lmstrix.models import ModelInfo, Prompt, Reply, ReplyChunk, Status, StopReason
from lmstrix.testing.simulated import SimulatedModel
from lmstrix_cli.prompts import (
    MAX_FILE_BYTES,
    MAX_TEXT_BYTES,
    choose_template,
    parse_templates,
    read_templates,
    user_templates,
)

REPLY = Reply(
    text="blue\x1b[31m\r sky",
    reasoning="hm\x07m",
    prompt_tokens=12,
    cached_tokens=3,
    generated_tokens=4,
    ttft_s=0.25,
    tokens_per_second=50.0,
    stop_reason=StopReason.END,
)
TEMPLATES = """
[short]
description = "In few words"
system = "You write {style}."
user = "In {words} words, as {{json}}: {prompt}"
max_tokens = 9

[fixed]
user = "Tell a joke."
"""
CHUNKS = (
    ReplyChunk(text="hm\x07m", is_reasoning=True),
    ReplyChunk(text="blue\x1b[3"),
    ReplyChunk(text="1m\r sky"),
)


class Talker(ScriptedAdapter):
    """An adapter whose one model says what it was told to say."""

    def __init__(self, *pieces: ReplyChunk | Reply) -> None:
        super().__init__(SimulatedModel(key="m"))
        self._pieces = pieces
        self.heard: list[tuple[Prompt, int]] = []

    @asynccontextmanager
    async def load(self, model: ModelInfo, context_length: int, **_: Any) -> AsyncGenerator[Any]:
        yield _Loaded(self._pieces, self.heard, context_length)


@attrs.define(eq=False)
class _Loaded:
    pieces: Sequence[ReplyChunk | Reply]
    heard: list[tuple[Prompt, int]]
    effective_context: int

    async def count_prompt_tokens(self, prompt: Prompt) -> int:
        return 1

    async def stream(
        self, prompt: Prompt, *, max_tokens: int, stop: Sequence[str] = ()
    ) -> AsyncGenerator[ReplyChunk | Reply]:
        self.heard.append((prompt, max_tokens))
        for piece in self.pieces:
            yield piece


def test_the_answer_goes_to_stdout_and_the_rest_to_stderr(shell: Shell) -> None:
    shell.adapter = Talker(*CHUNKS, REPLY)
    result = shell.run("infer", "m", "Why?", code=0)
    assert result.stdout == "blue\\x1b[31m\\x0d sky\n"
    thought, statistics = result.stderr.splitlines()
    assert thought == "hm\\x07m"
    assert statistics == (
        "[12 prompt tokens (3 cached), 4 generated, first token after 0.25 s, 50.0 tok/s,"
        " stopped: end]"
    )
    result = shell.run("infer", "m", "Why?", "--json")
    assert (json.loads(result.stdout)["text"], result.stderr) == (REPLY.text, "")


def test_a_pipe_needs_no_dash_and_files_stand_in_front(shell: Shell, tmp_path: Path) -> None:
    adapter = shell.adapter = Talker(REPLY)
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"\xef\xbb\xbfOne\r\n")
    two.write_text("Two")
    shell.run("infer", "m", "--system", "Be kind.", typed="piped")
    shell.run("infer", "m", "--file", str(one), "-f", str(two), "Why?", typed="")
    shell.run("infer", "m", "-f", str(two), "-", typed="piped")
    shell.run("infer", "m", "What is missing?", typed="a text")
    shell.run("infer", "m", "-f", str(one), "-f", str(two), "Why?", typed="piped")
    assert [prompt for prompt, _ in adapter.heard] == [
        Prompt(user="piped", system="Be kind."),
        Prompt(user="One\r\n\n\nTwo\n\nWhy?"),
        Prompt(user="Two\n\npiped"),
        Prompt(user="a text\n\nWhat is missing?"),
        Prompt(user="One\r\n\n\nTwo\n\npiped\n\nWhy?"),
    ]


def test_unusable_prompts_are_wrong_usage(shell: Shell, tmp_path: Path) -> None:
    adapter = shell.adapter = Talker(REPLY)
    for typed in ("", "  \n", b"\xff\xfe", b"a\0b"):
        shell.run("infer", "m", "-", typed=typed, code=2)
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(MAX_TEXT_BYTES + 1)
    for words, said in (
        (("-f", str(tmp_path / "away")), "cannot be read"),
        (("-f", str(tmp_path)), "cannot be read"),
        (("-f", str(large)), "larger than"),
        (("\udcff",), "not text in UTF-8"),
        (("x", "--var", "a=b"), "--var is for templates"),
    ):
        result = shell.run("infer", "m", *words)
        assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert not adapter.heard


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own templates."""

    def folder(_: str) -> Path:
        return tmp_path

    monkeypatch.setattr(platformdirs, "user_config_path", folder)
    path = tmp_path / "prompts.toml"
    path.write_text(TEMPLATES)
    return path


def test_a_template_is_filled(shell: Shell, templates: Path) -> None:
    adapter = shell.adapter = Talker(REPLY)
    words = ("infer", "m", "--template", "short", "--var", "words=5", "--var", "style={words}=b")
    shell.run(*words, typed="{text}", code=0)
    shell.run(*words, "Why?", "--system", "No.", "--max-tokens", "3", code=0)
    only = ("--template-file", str(templates), "--template", "fixed")
    shell.run("infer", "m", *only, typed="not read", code=0)
    assert adapter.heard == [
        (Prompt(user="In 5 words, as {json}: {text}", system="You write {words}=b."), 9),
        (Prompt(user="In 5 words, as {json}: Why?", system="No."), 3),
        (Prompt(user="Tell a joke."), 512),
    ]
    assert shell.run("infer", "--list-templates").stdout.splitlines() == [
        "fixed",
        "short  {style} {words} {prompt}  In few words",
    ]


@pytest.mark.usefixtures("templates")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--template", "nosuch"), ": 'fixed', 'short'."),
        (("--template", "short", "x"), "needs a value for 'style', 'words'"),
        (("--template", "short", "x"), "Hint: Add --var style=... --var words=...."),
        (("--template", "fixed", "x"), "takes no text"),
        (("--template", "fixed", "--var", "a=b"), "has no variable 'a'"),
        (("--template", "short", "--var", "prompt=x", "y"), "are the same"),
        (("--template", "fixed", "--var", "a"), "is not NAME=VALUE"),
        (("--template", "fixed", "--var", "a=1", "--var", "a=2"), "is given twice"),
    ],
)
def test_wrong_templates_are_wrong_usage(shell: Shell, words: tuple[str, ...], said: str) -> None:
    adapter = shell.adapter = Talker(REPLY)
    result = shell.run("infer", "m", *words)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr
    assert not adapter.heard


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


def test_templates_that_cannot_be_read(tmp_path: Path) -> None:
    bad, large = tmp_path / "bad.toml", tmp_path / "large.toml"
    bad.write_bytes(b"[t]\nuser = '\xff'")
    large.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    unread = dict.fromkeys((tmp_path / "away.toml", tmp_path, Path("a\0b")), "cannot be read")
    for path, said in {bad: "UTF-8", large: "larger than", **unread}.items():
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


def test_a_prompt_that_does_not_fit_is_told_before_anything_is_asked(shell: Shell) -> None:
    adapter = shell.adapter = ScriptedAdapter(SimulatedModel(key="m", declared=1024))
    result = shell.run("infer", "m", "word " * 100, "--context", "110", "--max-tokens", "8")
    assert (result.exit_code, result.stdout, adapter.counters.replies) == (1, "", 0)
    error, hint = result.stderr.splitlines()
    assert re.search(r"prompt is 1\d\d tokens long", error)
    assert "tested: not yet, declared: 1,024" in error
    assert "reply of at most" in hint
    assert re.search(r"reply of at most \d tokens \(--max-tokens\)", hint)
    assert re.search(r"at least (11\d) \(--context \1\)", hint)
    assert "lmstrix test" in hint
    too_long = shell.run("infer", "m", "word " * 2000)
    assert too_long.stderr.splitlines()[1].startswith("Hint: Shorten the prompt. ")


def test_more_than_what_is_tested_is_asked_with_a_note(shell: Shell) -> None:
    adapter = shell.adapter = ScriptedAdapter(
        SimulatedModel(key="m", declared=4096, true_context=700)
    )
    words = ("infer", "m", "--context", "4k", "--max-tokens", "8", "--json")
    assert "Note:" not in shell.run(*words, "word " * 1000).stderr  # nothing is tested yet
    shell.run("test", "m", "--no-certify", "-q", code=0)
    replies = adapter.counters.replies
    result = shell.run(*words, "word " * 1000)
    assert (result.exit_code, adapter.counters.replies) == (0, replies + 1)
    assert re.fullmatch(
        r"Note: Prompt and reply may need 1,\d{3} tokens; .* wrong\.\n", result.stderr
    )
    assert json.loads(result.stdout)["prompt_tokens"] > 1000
    assert shell.run(*words, "Why?").stderr == ""


def test_demo_is_measured(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "my models" / "demo.gguf"

    async def fetch(*, announce: Callable[[str], None]) -> Path:
        announce("Downloading \x1b[1m")
        return path

    monkeypatch.setattr(lmstrix.demo, "fetch_demo_model", fetch)
    shell.adapter = ScriptedAdapter(
        SimulatedModel(key=str(path), declared=1024, true_context=10**6)
    )
    result = shell.run("--adapter", "lmstudio", "--host", "h:1", "demo", code=0)
    assert "true      1,024" in result.stdout
    assert "Downloading \\x1b[1m" in result.stderr
    before, _, after = result.stderr.partition("Downloading")
    assert "5 to 25 minutes" in before
    assert "93 MB" in before
    for explained in ("Loading the model", "short text", "go wrong", "fresh text"):
        assert explained in after
    assert str(path.parent) not in result.stderr.partition("What next")[0]
    assert f"lmstrix infer '{path}'" in result.stderr
    assert shell.settings is not None
    assert (shell.settings.adapter, shell.settings.host) == ("llamacpp", None)
    quick = shell.lines("demo", "--quick", "--json")[0]["method"]["quick"]
    full = shell.lines("demo", "--json")[0]["method"]["quick"]
    assert (quick, full) == (True, False)


def test_demo_needs_an_engine(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fetch(**_: object) -> Path:
        raise AssertionError("downloaded")

    monkeypatch.setattr(lmstrix.demo, "fetch_demo_model", fetch)
    shell.adapter = ScriptedAdapter(
        status=Status(adapter="x", engine="y", available=False, detail="none", hint="Install it.")
    )
    result = shell.run("demo", code=3)
    assert result.stderr == "Error: none\nHint: Install it.\n"
