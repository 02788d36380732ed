"""The options of every command, aliases, and what reaches stderr."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_shell import DRIVER, SOURCES, ScriptedAdapter, Shell, run_python

from lmstrix.testing.simulated import SimulatedModel

LOGS = DRIVER.format(
    adapter="""
class Chatty(SimulatedAdapter):
    async def list_models(self):
        logging.getLogger("PredictionEndpoint").error('{"event": "a frame with a secret"}')
        return await super().list_models()

adapter = Chatty()
"""
)
FINE = SimulatedModel(key="fine", declared=1024, true_context=10**6)


def test_log_lines_of_other_packages_are_shown_only_when_asked(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert run_python(LOGS, "--store", "memory", "scan").stderr == ""
    assert "a frame" in run_python(LOGS, "--store", "memory", "scan", "--verbose").stderr
    assert run_python(LOGS, "--store", "memory", "scan", "--log-file", str(log)).stderr == ""
    assert "a frame" in log.read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_log_file_that_is_full_is_said_once(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    result = shell.run("--log-file", "/dev/full", "test", "fine", "--no-certify")
    assert result.exit_code == 0
    assert result.stderr.count("/dev/full") == 1
    assert "No space left" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("content", [b"SQLite format 3\0", b"\x89PNG\r\n", b"years of work\n"])
def test_a_log_is_not_appended_to_another_file(
    shell: Shell, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    result = shell.run("--log-file", str(path), "list")
    assert result.exit_code == 2
    assert "is not a log of LMStrix" in result.stderr
    assert path.read_bytes() == content


def test_a_log_goes_on(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.touch()
    for _ in range(2):
        assert shell.run("list", "--log-file", str(path)).exit_code == 0
    assert path.read_text().count("list started") == 2


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
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_IMPORT, "list"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | SOURCES,
    ) as process:
        assert process.stderr is not None
        assert "importing" in process.stderr.readline()
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        said = process.stderr.read()
        assert process.wait(timeout=30) == 5
    assert said == "Interrupted.\n"


def test_a_store_in_a_folder_that_does_not_exist_is_refused(shell: Shell, tmp_path: Path) -> None:
    result = shell.run("--store", str(tmp_path / "no" / "such" / "x"), "list")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_shared_options_stand_before_or_after_the_command(shell: Shell, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    words = ["--adapter", "lmstudio", "--host", "h:1", "--store", store]
    before = ["--host", "a:1", "list", *words]
    for typed in (["list", *words], [*words, "list"], [*words[:2], "list", *words[2:]], before):
        assert shell.run(*typed).exit_code == 0
        settings = shell.settings
        assert settings is not None
        assert (settings.adapter, settings.host, settings.store) == ("lmstudio", "h:1", store)


def test_quiet_prints_the_result_only(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE, reply_seconds=3600)
    result = shell.run("test", "fine", "-q", "--budget", "1s", "--json")
    assert (result.exit_code, result.stderr) == (5, "")
    assert len(result.stdout.splitlines()) == 1
    assert shell.run("test", "nosuch", "-q").stderr.startswith("Error: ")


def test_aliases(shell: Shell) -> None:
    assert shell.run("ls", "--json").stdout == shell.run("list", "--json").stdout
    assert "Commands:" in shell.run("help").stdout
    assert shell.run("help", "test").stdout == shell.run("test", "--help").stdout
    assert shell.run("help", "ls").exit_code == 0


def test_without_the_command_line_the_library_says_how_to_install_it() -> None:
    code = (
        "import sys, runpy; sys.modules['lmstrix_cli'] = None;"
        "runpy.run_module('lmstrix', run_name='__main__')"
    )
    done = run_python(code)
    assert done.returncode == 1
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_how_to_repeat_names_the_server_and_the_store(shell: Shell, tmp_path: Path) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    store = str(tmp_path / "my store")
    words = ("--host", "far:1234", "--store", store, "test", "fine", "--no-certify")
    repeat = shell.run(*words).stdout.splitlines()[-1]
    assert repeat.startswith(f"repeat: lmstrix --host far:1234 --store '{store}' --adapter ")


def test_how_to_repeat_names_your_own_build_of_the_server(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    words = ("--binary", "build/llama-server", "--server-args", "-ngl 9", "--declared", "1k")
    repeat = shell.run(*words, "test", "fine", "--no-certify").stdout.splitlines()[-1]
    given = "--binary build/llama-server --server-args '-ngl 9' --declared 1024"
    assert repeat.startswith(f"repeat: lmstrix {given} --adapter ")


def test_the_default_stores_folder_is_created(tmp_path: Path) -> None:
    code = "from lmstrix_cli.main import main; main()"
    home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "LMSTRIX_STORE": ""}
    assert run_python(code, "list", **home).returncode == 0
