"""apply: a measured context into LM Studio's settings, and back; and as text for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_shell import Shell

from lmstrix.models import Cause, Environment
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix_cli.commands import apply

FOLDER = Path(".internal", "user-concrete-model-default-config")
KEY = "google/gemma-3-4b"
OLD = """{
  "preset": "mine",
  "load": {
    "fields": [
      {
        "key": "llm.load.contextLength",
        "value": 4096
      }
    ]
  }
}"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path.resolve() / "lms"
    (made / FOLDER / "google").mkdir(parents=True)
    (made / FOLDER / f"{KEY}.json").write_text(OLD)
    return made


def remember(shell: Shell, key: str = KEY, path: str = KEY, **changes: Any) -> None:
    environment = Environment(adapter=changes.pop("adapter", "lmstudio"))
    model = sample_model(key=key, path=path)
    shell.remember(sample_report(model=model, environment=environment, **changes))


def test_it_shows_writes_and_can_be_undone(shell: Shell, home: Path) -> None:
    remember(shell)
    result = shell.run("apply", KEY, "--home", str(home), "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    path = home / FOLDER / f"{KEY}.json"
    assert path.read_text() == OLD.replace("4096", "6144")
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        f"{KEY}: true context 6,144, measured on 2026-01-02",
        str(path),
        "  llm.load.contextLength: 4,096 -> 6,144",
    ]
    assert '-        "value": 4096' in lines
    assert '+        "value": 6144' in lines
    [backup] = path.parent.glob("*.bak")
    assert f"Written. Backup: {backup}" in result.stdout
    assert "keeps its context until it is loaded again" in result.stdout
    assert "LM Studio may then fit it to the memory" in result.stdout
    assert lines[-1] == f"To undo: lmstrix apply --undo --home {home} {KEY}"
    result = shell.run("apply", KEY, "--home", str(home), "--undo", "--yes", code=0)
    assert "llm.load.contextLength: 6,144 -> 4,096" in result.stdout
    assert path.read_text() == OLD
    result = shell.run("apply", KEY, "--home", str(home), "--undo", "--yes", code=1)
    assert "nothing to undo" in result.stderr


def test_all_that_lm_studio_knows_is_applied(shell: Shell, home: Path) -> None:
    remember(shell)
    remember(shell, key="publisher/other", path="publisher/other")
    remember(shell, key="unfinished", path="unfinished", true_context=512, cause=Cause.INTERRUPTED)
    remember(shell, key="file.gguf", path=str(home / "elsewhere" / "file.gguf"))
    result = shell.run("apply", "--all", "--home", str(home), "--dry-run", "--json", code=0)
    told = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["model"], one["outcome"]) for one in told] == [
        ("publisher/other", "dry_run"),
        (KEY, "dry_run"),
    ]
    assert "left out: 'unfinished' " in result.stderr
    assert "file.gguf' is not" in result.stderr
    shell.run("apply", "--all", "--home", str(home), code=2)  # no terminal to ask on
    shell.run("apply", "--all", "--home", str(home), "--yes", code=0)
    for key in (KEY, "publisher/other"):
        assert "6144" in (home / FOLDER / f"{key}.json").read_text()
    shell.run("apply", "--all", "--for", "llama-server", code=2)


@pytest.mark.parametrize("adapters", [("lmstudio", "llamacpp"), ("llamacpp", "lmstudio")])
def test_all_changes_a_settings_file_once(
    shell: Shell, home: Path, adapters: tuple[str, str]
) -> None:
    """With LM Studio's own result of the file, whichever is newer."""
    (home / "models").mkdir()
    for adapter in adapters:
        if adapter == "lmstudio":
            remember(shell, key="tiny", path="a/b/tiny.gguf", true_context=4096)
        else:
            file = str(home / "models" / "a" / "b" / "tiny.gguf")
            remember(shell, key=file, path=file, adapter=adapter, true_context=8192)
    [told] = shell.lines("apply", "--all", "--home", str(home), "--yes", "--json")
    assert (told["model"], told["context"]) == ("tiny", 4096)


def test_how_to_take_it_back_names_the_store(shell: Shell, home: Path) -> None:
    remember(shell, key="gemma")
    store = str(shell.store)
    result = shell.run("--store", store, "apply", "gemma", "--home", str(home), "--yes")
    assert f"lmstrix --store {store} apply --undo --home {home} gemma\n" in result.stdout
    shell.store = home / "other.sqlite3"  # a name that it does not know is no file of its own
    result = shell.run("apply", "gemma", "--home", str(home), "--undo", "--yes", code=1)
    assert "index does not say" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "contexts", "said"),
    [
        ((), 2, "4,096 -> 6,144", "no terminal to ask on"),
        (("--dry-run", "--percent", "50"), 0, "4,096 -> 3,072", "nothing was written"),
    ],
)
def test_nothing_is_written_unasked(
    shell: Shell, home: Path, words: tuple[str, ...], code: int, contexts: str, said: str
) -> None:
    remember(shell)
    result = shell.run("apply", KEY, "--home", str(home), *words, typed="y\n", code=code)
    assert contexts in result.stdout
    assert said in result.output
    assert ("--yes" in result.stderr) is bool(code)
    [file] = (home / FOLDER / "google").iterdir()
    assert file.read_text() == OLD


@pytest.mark.parametrize(
    ("typed", "code", "value"), [("y\n", 0, "6144"), ("n\n", 1, "4096"), ("", 1, "4096")]
)
def test_on_a_terminal_it_asks(
    shell: Shell, home: Path, monkeypatch: pytest.MonkeyPatch, typed: str, code: int, value: str
) -> None:
    monkeypatch.setattr(apply, "_somebody_is_there", lambda: True)
    remember(shell)
    result = shell.run("apply", KEY, "--home", str(home), typed=typed, code=code)
    assert "Write this? [y/N]" in result.stderr
    assert ("\nError: nothing was written\n" in result.stderr) is bool(code)
    assert (home / FOLDER / f"{KEY}.json").read_text() == OLD.replace("4096", value)


def test_json_is_the_only_thing_on_stdout(shell: Shell, home: Path) -> None:
    remember(shell, certified=False)
    [told] = shell.lines("apply", KEY, "--home", str(home), "--yes", "--json")
    path = home / FOLDER / f"{KEY}.json"
    assert Path(told.pop("backup")).read_text() == OLD
    [note] = told.pop("notes")
    assert "Not certified" in note
    assert told == {
        "model": KEY,
        "for": "lmstudio",
        "true_context": 6144,
        "certified": False,
        "context": 6144,
        "before": 4096,
        "path": str(path),
        "outcome": "written",
    }
    [told] = shell.lines("apply", KEY, "--home", str(home), "--yes", "--json", "--undo")
    assert (told["outcome"], told["before"], told["context"]) == ("undone", 6144, 4096)
    result = shell.run("apply", KEY, "--home", str(home), "--json")
    assert json.loads(result.stdout)["outcome"] == "refused"
    assert "4,096 -> 6,144" in result.stderr


def test_what_was_not_measured_is_refused(shell: Shell, home: Path) -> None:
    remember(shell, key="half", path="half", cause=Cause.BUDGET_SPENT)
    for name, said in (("half", "budget spent"), ("other", "has not been measured yet")):
        result = shell.run("apply", name, "--home", str(home), "--yes", code=4)
        assert said in result.stderr
        assert "Hint: " in result.stderr


def test_the_home_is_found(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(shell)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "user"))
    result = shell.run("apply", KEY, "--yes")
    assert (result.exit_code, "--home" in result.stderr) == (1, True)
    (tmp_path / "user" / ".lmstudio" / ".internal").mkdir(parents=True)
    shell.run("apply", KEY, "--yes", code=0)
    written = tmp_path / "user" / ".lmstudio" / FOLDER / f"{KEY}.json"
    assert '"value": 6144' in written.read_text()


def test_names_can_neither_steer_the_terminal_nor_leave_the_home(shell: Shell, home: Path) -> None:
    evil = "../../evil\x1b]0;title\x07\u202e"
    remember(shell, key=evil, path=evil, certified=False)
    for arguments in (("--yes",), ("--dry-run",), ("--for", "ollama"), ("--yes", "--json")):
        place = () if "--for" in arguments else ("--home", str(home))
        result = shell.run("apply", evil, *place, *arguments)
        assert result.exit_code == (0 if "--for" in arguments else 1)
        assert not set("\x1b\x07\u202e") & set(result.output)
    assert not list(home.parent.rglob("evil*"))
    assert sum(1 for _ in home.rglob("*")) == 4


def test_llama_server_gets_two_words_on_stdout(shell: Shell) -> None:
    remember(shell)
    result = shell.run("apply", KEY, "--for", "llama-server", "--percent", "90")
    assert (result.exit_code, result.stdout) == (0, "-c 5376\n")
    assert "llama-server -m MODEL.gguf -c 5376" in result.stderr
    [told] = shell.lines("apply", KEY, "--for", "llama-server", "--json")
    assert (told["setting"], told["context"], told["outcome"]) == ("-c 6144", 6144, "printed")


def test_ollamas_modelfile(shell: Shell) -> None:
    remember(shell, key="qwen3:8b", path="", adapter="ollama")
    result = shell.run("apply", "qwen3:8b", "--for", "ollama")
    assert result.stdout == "FROM qwen3:8b\nPARAMETER num_ctx 6144\n"
    assert "ollama create" in result.stderr


def test_another_engines_result_is_told(shell: Shell) -> None:
    for adapter, target, warned in (
        ("llama-server", "llama-server", False),
        ("llamacpp", "llama-server", False),
        ("ollama", "ollama", False),
        ("lmstudio", "ollama", True),
    ):
        remember(shell, key=f"on-{adapter}", adapter=adapter)
        [told] = shell.lines("apply", f"on-{adapter}", "--for", target, "--json")
        assert any("Measured with" in note for note in told["notes"]) is warned


@pytest.mark.parametrize(
    ("adapter", "advice"),
    [
        ("ollama", "lmstrix apply --for ollama m"),
        ("openai", "set it where its server starts"),
        ("a-plug-in", "set it where its server starts"),
    ],
)
def test_what_to_do_with_another_servers_result(
    shell: Shell, home: Path, adapter: str, advice: str
) -> None:
    remember(shell, key="m", path="", adapter=adapter)
    assert advice in shell.run("apply", "m", "--home", str(home), "--yes").stderr


def test_what_another_server_measured_is_not_written(shell: Shell, home: Path) -> None:
    remember(shell, key="org/model", path="", adapter="openai")
    result = shell.run("apply", "org/model", "--home", str(home), "--yes", code=1)
    assert "measured with openai, not in LM Studio" in result.stderr
    assert "left out: 'org/model'" in shell.run("apply", "--all", "--home", str(home)).stderr
    assert not (home / FOLDER / "org").exists()


def test_a_result_of_the_program_itself_goes_first(shell: Shell) -> None:
    remember(shell, key="m", path="", adapter="ollama", true_context=6144)
    remember(shell, key="m", path="", adapter="lmstudio", true_context=4096)
    assert "num_ctx 6144" in shell.run("apply", "m", "--for", "ollama").stdout
    named = shell.run("--adapter", "lmstudio", "apply", "m", "--for", "ollama")
    assert "num_ctx 4096" in named.stdout
    assert "Measured with lmstudio" in named.stderr
