"""`status`: what is loaded beside what was tested, how to go on; `doctor`: that all is well."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Awaitable
from pathlib import Path

import anyio
import attrs
import pytest
from cli_shell import NOBODY, ScriptedAdapter, Shell, made
from processes import started

from lmstrix.locks import FOLDER_VARIABLE
from lmstrix.models import Cause, Environment, LoadedInstance, MemoryEstimate, ModelInfo, Status
from lmstrix.testing.simulated import SimulatedModel
from lmstrix_cli.commands import doctor
from lmstrix_cli.commands.doctor import CHECKS, Check, Finding, Verdict, examine, ok
from lmstrix_cli.settings import Settings

HOLDS = """
import anyio
from lmstrix.locks import THIS_MACHINE, hold_turn

async def hold():
    async with hold_turn(THIS_MACHINE, "slow", lambda holder: None):
        print("holds", flush=True)
        await anyio.sleep(60)

anyio.run(hold)
"""
SLOW = SimulatedModel(key="slow", declared=4096, true_context=10**6)

X = Environment(adapter="x")


def loaded(key: str, context: int | None) -> LoadedInstance:
    return LoadedInstance(key=key, identifier=key, context_length=context)


def test_a_loaded_context_stands_beside_the_tested_one(shell: Shell) -> None:
    big, small = (made(key, true_context=7424, environment=X) for key in ("big", "small"))
    # Newer, and says nothing.
    unfinished = made("big", true_context=512, cause=Cause.BUDGET_SPENT, environment=X)
    shell.remember(big, unfinished, small)
    instances = loaded("big", 32768), loaded("small", 7424), loaded("new", 4096), loaded("x", None)
    status = Status(adapter="x", engine="llama.cpp", available=True, loaded=instances)
    shell.adapter = ScriptedAdapter(status=attrs.evolve(status, versions={"b": "123"}))
    result = shell.run("status", code=0)
    text = result.stdout
    for expected in ("llama.cpp", "b 123", str(shell.store), "loaded by another program"):
        assert expected in text
    said = [line[11:].strip() for line in text.splitlines() if line.startswith("loaded")]
    assert said == [
        "big at 32,768: too large, true context 7,424",
        "small at 7,424: fine, true context 7,424",
        "new at 4,096: not tested",
        "x context unknown: not tested",
    ]
    assert "lmstrix apply big\n" in text
    assert "lmstrix apply small" not in text
    [document] = shell.lines("status", "--json")
    assert [(one["tested_context"], one["fit"]) for one in document["loaded"]] == [
        (7424, "too_large"),
        (7424, "fine"),
        (None, "not_tested"),
        (None, "not_tested"),
    ]
    assert (document["available"], document["store_reports"]) == (True, 3)
    assert str(shell.store) in document["store"]
    assert document["store_bytes"] >= shell.store.stat().st_size
    assert document["store_warnings"] == []


def test_what_lmstrix_loaded_itself_needs_no_advice(shell: Shell) -> None:
    shell.remember(made("big", true_context=7424, environment=X))
    ours = LoadedInstance(key="big", identifier="x", context_length=32768, ours=True)
    status = Status(adapter="x", engine="y", available=True, loaded=(ours,))
    shell.adapter = ScriptedAdapter(status=status)
    text = shell.run("status").stdout
    assert "big at 32,768\n" in text
    assert "loaded by LMStrix" in text
    assert "too large" not in text
    assert "lmstrix apply" not in text


def test_above_the_users_own_limit_nothing_is_known(shell: Shell) -> None:
    shell.remember(made("m", true_context=1024, cause=Cause.MAX_CONTEXT, environment=X))
    status = Status(adapter="x", engine="y", available=True, loaded=(loaded("m", 4096),))
    shell.adapter = ScriptedAdapter(status=status)
    [document] = shell.lines("status", "--json")
    assert [one["fit"] for one in document["loaded"]] == ["not_tested"]
    assert "m at 4,096: not tested beyond 1,024 (--max-context)" in shell.run("status").stdout


def test_a_result_of_another_engine_says_nothing_about_what_is_loaded(shell: Shell) -> None:
    own, other = (Environment(adapter=name) for name in ("lmstudio", "ollama"))
    shell.remember(made("m", 1, true_context=7424, environment=own))
    shell.remember(made("m", 2, true_context=1024, environment=other))
    shell.remember(made("n", 2, true_context=1024, environment=other))
    instances = loaded("m", 4096), loaded("n", 4096)
    status = Status(adapter="lmstudio", engine="y", available=True, loaded=instances)
    shell.adapter = ScriptedAdapter(status=status)
    assert [
        (one["tested_context"], one["fit"]) for one in shell.lines("status", "--json")[0]["loaded"]
    ] == [(7424, "fine"), (None, "not_tested")]


class Measurable(ScriptedAdapter):
    """Models whose memory is known."""

    async def estimate_memory(self, model: ModelInfo, context_length: int) -> MemoryEstimate:
        del model
        sizes = {"model_bytes": 1, "context_bytes": context_length, "available_bytes": 10**9}
        return MemoryEstimate(context_length=context_length, **sizes)


def test_the_command_to_go_on_really_goes_on(shell: Shell) -> None:
    words = ["--max-context", "2048", "--seed", "7", "--levels", "none", "--validator", "copy"]
    words += ["--max-memory", "64g"]
    server = ["--adapter", "simulated", "--host", "far:1234"]
    shell.adapter = Measurable(SLOW, reply_seconds=3600)
    shell.run(*server, "test", "slow", "--budget", "1s", *words, code=5)
    [document] = shell.lines(*server, "status", "--json")
    assert " ".join(server) in document["go_on"][0]
    assert document["unfinished"] == ["slow"]
    [command] = document["go_on"]
    assert shlex.split(command)[0] == "lmstrix"
    assert f"To continue: {command}" in shell.run(*server, "status").stdout
    shell.adapter = Measurable(SLOW)
    shell.run(*shlex.split(command)[1:], code=0)
    assert shell.lines("status", "--json")[0]["unfinished"] == []


def test_a_quick_measurement_is_not_unfinished(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(SLOW)
    shell.run("test", "slow", "--quick", code=0)
    [document] = shell.lines("status", "--json")
    assert document["unfinished"] == document["go_on"] == []


def test_a_full_measurement_broken_off_after_a_quick_one_goes_on(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(SLOW)
    [quick] = shell.lines("test", "slow", "--quick", "--json")
    shell.adapter = ScriptedAdapter(SLOW, reply_seconds=3600)
    shell.run("test", "slow", "--budget", "1s", code=5)
    assert shell.lines("list", "--json") == [quick]
    assert shell.lines("status", "--json")[0]["unfinished"] == ["slow"]
    shell.run("apply", "slow", "--for", "llama-server", code=0)
    shell.adapter = ScriptedAdapter(SLOW)
    shell.run("test", "slow", code=0)
    assert shell.lines("status", "--json")[0]["unfinished"] == []


@pytest.mark.parametrize("dead", [False, True])
def test_a_measurement_that_another_process_runs_is_running(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "turns"))
    shell.adapter = ScriptedAdapter(SLOW, reply_seconds=3600)
    shell.run("test", "slow", "--budget", "1s", code=5)
    with started("-c", HOLDS, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        if dead:
            process.kill()
            process.wait()
        text = shell.run("status").stdout
        [document] = shell.lines("status", "--json")
    found = (document["unfinished"], document["running"])
    assert found == ((["slow"], []) if dead else ([], ["slow"]))
    assert bool(document["go_on"]) is ("To continue: " in text) is dead
    assert (f"running slow (process {process.pid})" in text) is not dead


def test_a_store_that_was_set_aside_is_told(shell: Shell) -> None:
    shell.run("test", "simulated", "--quick")
    shell.store.write_bytes(shell.store.read_bytes()[:100] + b"\xff" * 4096)
    [document] = shell.lines("status", "--json")
    [told] = document["store_warnings"]
    assert "set-aside" in told
    shell.store.write_bytes(shell.store.read_bytes()[:100] + b"\xff" * 4096)
    assert "set-aside" in shell.run("-q", "list").stderr


def test_a_store_that_cannot_be_opened_hides_no_engine(shell: Shell, tmp_path: Path) -> None:
    shell.store = tmp_path
    result = shell.run("status", code=0)
    assert "simulation" in result.stdout
    assert "warning" in result.stdout


# doctor.


@pytest.fixture
def home(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home of its own, without anything in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    for variable in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(variable, str(folder))
    for variable in ("XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(doctor, "GREETING_S", 0.2)
    return folder


def look(name: str) -> Finding:
    """What one check finds."""
    [found] = anyio.run(examine, Settings(), [check for check in CHECKS if check.name == name])
    return found


def test_a_bare_machine(shell: Shell, home: Path) -> None:
    """Warnings, but no problem other than the server that was named and does not answer."""
    result = shell.run("--host", NOBODY, "doctor", "--json")
    document = json.loads(result.stdout)
    found = {one["check"]: one for one in document["checks"]}
    assert list(found) == [check.name for check in CHECKS]
    problems = [name for name, one in found.items() if one["verdict"] == Verdict.PROBLEM]
    assert problems == ["LM Studio's server"]
    assert NOBODY in found["LM Studio's server"]["found"]
    assert (result.exit_code, document["problems"]) == (1, 1)
    for name in ("models", "LM Studio's folder"):
        assert found[name]["verdict"] == Verdict.WARNING
        assert found[name]["advice"]
    assert not list(home.iterdir())
    assert not shell.store.exists()


def test_without_a_problem_the_code_is_0(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fine(settings: Settings) -> Finding:
        return ok("all is well\x1b[2J.")

    def only_that(settings: Settings) -> Awaitable[tuple[Finding, ...]]:
        return examine(settings, [Check("x", fine)])

    monkeypatch.setattr("lmstrix_cli.commands.doctor.examine", only_that)
    result = shell.run("doctor")
    assert (result.exit_code, "\x1b" in result.stdout) == (0, False)
    assert result.stdout.endswith("0 problems, 0 warnings.\n")


async def test_a_check_that_fails_or_hangs_does_not_end_the_others() -> None:
    async def hangs(settings: Settings) -> Finding:
        await anyio.sleep_forever()
        raise AssertionError

    async def fails(settings: Settings) -> Finding:
        raise RuntimeError("oops")

    async def fine(settings: Settings) -> Finding:
        return ok("fine.")

    checks = [Check("a", hangs, 0.01), Check("b", fails), Check("c", fine)]
    found = await examine(Settings(), checks)
    assert [one.verdict for one in found] == [Verdict.WARNING, Verdict.PROBLEM, Verdict.OK]
    assert "No answer within" in found[0].found
    assert "RuntimeError: oops" in found[1].found


def test_lm_studios_folders_and_models(home: Path) -> None:
    assert look("LM Studio's settings").verdict is Verdict.WARNING
    config = home / ".lmstudio" / ".internal" / "user-concrete-model-default-config"
    config.mkdir(parents=True)
    assert look("LM Studio's folder").verdict is Verdict.OK
    assert str(config) in look("LM Studio's settings").found
    model = home / ".lmstudio" / "models" / "a" / "b" / "c.gguf"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"")
    assert "1 GGUF file" in look("models").found


def test_doctor_looks_at_the_store(shell: Shell, tmp_path: Path) -> None:
    assert "none yet" in look("store").found
    shell.run("test", "simulated", "--quick")
    assert "1 result" in look("store").found
    damaged = shell.store.read_bytes()[:100] + b"\xff" * 4096
    shell.store.write_bytes(damaged)
    found = look("store")
    assert (found.verdict, "damaged" in found.found) == (Verdict.PROBLEM, True)
    assert shell.store.read_bytes() == damaged
    shell.store = tmp_path
    assert look("store").verdict is Verdict.PROBLEM
