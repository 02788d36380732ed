"""The options of every command, logs, colours, and what a shell is offered."""

from __future__ import annotations

import ast
import logging
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_shell import DRIVER, ScriptedAdapter, Shell, run_python
from click.shell_completion import BashComplete
from processes import started

from lmstrix.errors import PredictionError
from lmstrix.testing.samples import sample_model
from lmstrix.testing.simulated import SimulatedModel
from lmstrix_cli import main, settings

FINE = SimulatedModel(key="fine", declared=1024, true_context=10**6)
CODES = re.compile(r"\x1b\[[0-9;]*m")


def test_where_options_stand(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = str(tmp_path / "store")
    words = ["--adapter", "lmstudio", "--host", "h:1", "--store", store]
    before = ["--host", "a:1", "list", *words]
    for typed in (["list", *words], [*words, "list"], [*words[:2], "list", *words[2:]], before, []):
        if not typed:
            for option, value in zip(words[::2], words[1::2], strict=True):
                monkeypatch.setenv(f"LMSTRIX_{option[2:].upper()}", value)
        shell.run(*(typed or ["list"]), code=0)
        used = shell.settings
        assert used is not None
        assert (used.adapter, used.host, used.store) == ("lmstudio", "h:1", store)


def test_only_the_default_stores_folder_is_created(shell: Shell, tmp_path: Path) -> None:
    result = shell.run("--store", str(tmp_path / "no" / "such" / "x"), "list", code=2)
    assert "does not exist" in result.stderr
    for command in ("list", "report", "compare", "export"):
        said = shell.run("--store", str(tmp_path / "mistyped"), command).stderr
        assert "mistyped does not exist yet" in said
    for words in (["status"], ["scan"], ["test", "fine", "--dry-run"]):
        shell.run("--store", str(tmp_path / "mistyped"), *words)
    assert list(tmp_path.iterdir()) == []
    code = "from lmstrix_cli.main import main; main()"
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "LMSTRIX_STORE": ""}
    assert run_python(code, "list", **home).returncode == 0


def test_a_store_may_be_named_from_the_home_folder(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    shell.run("--store", "~/x.sqlite3", "list", code=0)
    assert "does not exist" in shell.run("--store", "~/no/x.sqlite3", "list", code=2).stderr


def test_quiet_prints_the_result_only(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE, reply_seconds=3600)
    result = shell.run("test", "fine", "-q", "--budget", "1s", "--json")
    assert (result.exit_code, result.stderr) == (5, "")
    assert len(result.stdout.splitlines()) == 1
    assert shell.run("test", "nosuch", "-q").stderr.startswith("Error: ")
    spent = shell.run("test", "fine", "--budget", "1s")
    assert "spent without a further answer. Give a larger one. To continue:" in spent.stderr


def test_how_to_repeat_names_server_and_store(shell: Shell, tmp_path: Path) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    store = str(tmp_path / "my store")
    words = ["--host", "far:1234", "--binary", "b", "--server-args", "-ngl 9", "--declared", "1k"]
    run = shell.run(*words, "--store", store, "test", "fine", "--no-certify")
    given = "--host far:1234 --binary b --server-args '-ngl 9' --declared 1024"
    repeat = run.stdout.splitlines()[-1]
    assert repeat.startswith(f"repeat: lmstrix {given} --store '{store}' --adapter ")


def test_without_the_command_line_the_library_says_how_to_install_it() -> None:
    code = (
        "import sys, runpy; sys.modules['lmstrix_cli'] = None;"
        "runpy.run_module('lmstrix', run_name='__main__')"
    )
    done = run_python(code)
    assert done.returncode == 1
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


SLOW_IMPORT = """
import sys, time
from lmstrix_cli import main
import lmstrix_cli.main as module

def slow(name):
    print("importing", file=sys.stderr, flush=True)
    time.sleep(30)

module.importlib = type("Slow", (), {"import_module": staticmethod(slow)})
main.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child on Windows")
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_before_anything_runs_ends_with_5(times: int) -> None:
    with started("-c", SLOW_IMPORT, "list", stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert "importing" in process.stderr.readline()
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        said = process.stderr.read()
        assert process.wait(timeout=30) == 5
    assert said == "Interrupted.\n"


# Logs.

LOGS = DRIVER.format(
    adapter="""
class Chatty(SimulatedAdapter):
    async def list_models(self):
        logging.getLogger("PredictionEndpoint").error('{"event": "a frame with a secret"}')
        return await super().list_models()

adapter = Chatty()
"""
)


def test_log_lines_of_other_packages_are_shown_only_when_asked(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert run_python(LOGS, "--store", "memory", "scan").stderr == ""
    assert "a frame" in run_python(LOGS, "--store", "memory", "scan", "--verbose").stderr
    assert run_python(LOGS, "--store", "memory", "scan", "--log-file", str(log)).stderr == ""
    assert "a frame" in log.read_text()


def test_a_log_goes_on(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.touch()
    shell.adapter = ScriptedAdapter(SimulatedModel(key="fi\x1b\nne", declared=1024))
    shell.run("--log-file", str(path), "test", "fi\x1b\nne", "--no-certify", code=0)
    shell.run("--log-file", str(path), "infer", "nosuch", "A secret prompt")
    logging.getLogger("lmstrix").info("after the command")
    text = path.read_text()
    stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|ERROR) lmstrix_cli\.\w+: ")
    assert all(stamp.match(line) for line in text.splitlines())
    for said in ("test started", "TrialFinished", r"'fi\x1b\nne'", "cause=", "infer ended"):
        assert said in text
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_log_file_that_is_full_is_said_once(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    result = shell.run("--log-file", "/dev/full", "test", "fine", "--no-certify", code=0)
    assert result.stderr.count("/dev/full") == 1
    assert "No space left" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("content", [b"SQLite format 3\0", b"\x89PNG\r\n", b"years of work\n"])
def test_a_log_is_appended_to_no_other_file(shell: Shell, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    result = shell.run("--log-file", str(path), "list", code=2)
    assert "is not an LMStrix log" in result.stderr
    assert path.read_bytes() == content


# Colours.


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
def test_colours_wanted(mode: str, environment: dict[str, str], expected: bool | None) -> None:
    assert settings.colours_wanted(mode, environment) is expected


def test_colours_change_nothing_but_colours(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    words = ("test", "fine", "--no-certify", "-q")
    plain = shell.run("--color", "never", *words).stdout
    painted = shell.run("--color", "always", *words).stdout
    assert "\x1b" not in plain
    assert "\x1b[1mtrue      1,024" in painted
    assert "\x1b[32mpassed\x1b[0m" in painted or "\x1b[33mundecided\x1b[0m" in painted
    changing = re.compile(r"[0-9,]+|-| +(?=\n)| +")  # times, and so widths, differ from run to run
    assert changing.sub("", CODES.sub("", painted)) == changing.sub("", plain)
    assert "\x1b" not in shell.run(*words).stdout  # no terminal
    assert "\x1b" not in shell.run("--color", "always", *words, "--json").stdout


# Shells.


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
    result = shell.run("completion", name, code=0)
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
