"""Colours, --quiet, --log-file, and what a shell is offered."""

from __future__ import annotations

import ast
import logging
import re
from pathlib import Path

import pytest
from cli_shell import ScriptedAdapter, Shell, run_python
from click.shell_completion import BashComplete

from lmstrix.errors import PredictionError
from lmstrix.testing.samples import sample_model
from lmstrix.testing.simulated import SimulatedModel
from lmstrix_cli import main, settings

FINE = SimulatedModel(key="fine", declared=1024, true_context=10**6)
CODES = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("mode", "environment", "expected"),
    [
        ("auto", {}, None),
        ("auto", {"TERM": "dumb"}, False),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ("auto", {"FORCE_COLOR": "1", "TERM": "dumb"}, True),
        ("auto", {"FORCE_COLOR": "0", "NO_COLOR": ""}, None),
        ("always", {"NO_COLOR": "1"}, True),
        ("never", {"FORCE_COLOR": "1"}, False),
    ],
)
def test_who_decides_about_colours(
    mode: str, environment: dict[str, str], expected: bool | None
) -> None:
    assert settings.colours_wanted(mode, environment) is expected


def test_colours_change_nothing_but_colours(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    words = ("test", "fine", "--no-certify", "-q")
    plain = shell.run("--color", "never", *words).stdout
    painted = shell.run("--color", "always", *words).stdout
    assert "\x1b" not in plain
    assert "\x1b[1mtrue 1,024" in painted
    assert "\x1b[32mpassed\x1b[0m" in painted or "\x1b[33mundecided\x1b[0m" in painted
    changing = re.compile(r"[0-9,]+|-| +(?=\n)| +")  # times, and so widths, differ from run to run
    assert changing.sub("", CODES.sub("", painted)) == changing.sub("", plain)
    assert "\x1b" not in shell.run(*words).stdout  # no terminal
    assert "\x1b" not in shell.run("--color", "always", *words, "--json").stdout


def test_a_log_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    shell.adapter = ScriptedAdapter(SimulatedModel(key="fi\x1b\nne", declared=1024))
    assert shell.run("--log-file", str(path), "test", "fi\x1b\nne", "--no-certify").exit_code == 0
    shell.run("--log-file", str(path), "infer", "nosuch", "A secret prompt")
    logging.getLogger("lmstrix").info("after the command")
    text = path.read_text()
    stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|ERROR) lmstrix_cli\.\w+: ")
    assert all(stamp.match(line) for line in text.splitlines())
    for said in ("test started", "TrialFinished", r"'fi\x1b\nne'", "cause=", "infer ended"):
        assert said in text
    assert "ModelNotFound" in text
    assert "ModelNotFound, raised at" in text
    for unsaid in ("\x1b", "secret", "Read the text and remember", "after the command"):
        assert unsaid not in text


def test_what_a_server_says_is_shown_and_not_logged(shell: Shell, tmp_path: Path) -> None:
    """It may quote the prompt."""

    class Quoting(ScriptedAdapter):
        async def before_reply(self, prompt_tokens: int) -> None:
            said = "invalid input: A secret prompt"
            raise PredictionError(said) from ValueError(f"{prompt_tokens} tokens of {said}")

    shell.adapter = Quoting(FINE)
    path = tmp_path / "log.txt"
    result = shell.run("--log-file", str(path), "infer", "fine", "A secret prompt")
    assert "A secret prompt" in result.stderr
    text = path.read_text()
    assert "PredictionError, raised at" in text
    assert "ValueError, raised at" in text
    assert "secret" not in text


def complete(words: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash is offered behind `words`, each with its kind."""
    typed = words.split(" ")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(typed) - 1))
    return BashComplete(main.lmstrix, {}, "lmstrix", "_LMSTRIX_COMPLETE").complete().splitlines()


def test_completing(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("LMSTRIX_STORE", str(shell.store))
    assert complete("lmstrix test mod", monkeypatch) == ["file,mod"]
    assert not shell.store.exists()
    model = tmp_path / ".lmstudio" / "models" / "me" / "it.gguf"
    model.parent.mkdir(parents=True)
    model.touch()
    for key in ("model/a", "model$(evil)", "other"):
        shell.adapter = ScriptedAdapter(listing=[sample_model(key=key)])
        shell.adapter = ScriptedAdapter(SimulatedModel(key=key, declared=1024, knows=False))
        shell.run("test", key, "-q")
    assert complete("lmstrix test mod", monkeypatch) == ["plain,model/a"]
    assert complete("lmstrix infer ", monkeypatch) == [
        "plain,other",
        "plain,model/a",
        f"plain,{model}",
    ]
    assert complete("lmstrix --adapter llamacpp test me", monkeypatch) == ["plain,me/it"]
    assert complete("lmstrix --adapter llamac", monkeypatch) == ["plain,llamacpp"]
    assert complete("lmstrix test --strategy b", monkeypatch) == ["plain,bayes"]
    assert complete("lmstrix test --levels copy,co", monkeypatch) == [
        "plain,copy,coherence",
        "plain,copy,copy",
    ]
    assert complete("lmstrix sta", monkeypatch) == ["plain,status"]
    for words in ("export all", "import all", "report -o all", "infer m --file all"):
        assert complete(f"lmstrix {words}", monkeypatch) == ["file,all"]
    assert "plain,--log-file" in complete("lmstrix --l", monkeypatch)


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_what_a_shell_runs(shell: Shell, name: str) -> None:
    result = shell.run("completion", name)
    assert result.exit_code == 0
    assert f"_LMSTRIX_COMPLETE={name}_complete" in result.stdout


QUICK = "from lmstrix_cli.main import lmstrix; lmstrix([{!r}], standalone_mode=False)"


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        (QUICK.format("--help"), "lmstrix attrs logging importlib.metadata"),
        (QUICK.format("--version"), "lmstrix attrs logging"),
        ("import lmstrix, lmstrix.testing", "IPython jinja2 pytest hypothesis"),
    ],
)
def test_what_is_not_needed_is_not_imported(code: str, heavy: str) -> None:
    """What `--help` takes is mostly click; numpy takes longer than all the rest of `lmstrix`."""
    forbidden = {"numpy", "rich", "httpx", "lmstudio", *heavy.split()}
    done = run_python(f"import sys; {code}\nprint(sorted(sys.modules))")
    imported = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert imported >= {"sys"}
    assert imported & forbidden == set()
