"""``lmstrix status``: what is loaded beside what was tested, the store, and how to go on."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cli_shell import ScriptedAdapter, Shell

from lmstrix.locks import FOLDER_VARIABLE
from lmstrix.models import Cause, LoadedInstance, MemoryEstimate, ModelInfo, Status
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix.testing.simulated import SimulatedModel

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


def remember(shell: Shell, key: str, true_context: int | None, cause: Cause) -> None:
    model = sample_model(key=key)
    shell.remember(sample_report(model=model, true_context=true_context, cause=cause))


def loaded(key: str, context: int | None) -> LoadedInstance:
    return LoadedInstance(key=key, identifier=key, context_length=context)


def test_a_loaded_context_stands_beside_the_tested_one(shell: Shell) -> None:
    remember(shell, "big", 7424, Cause.FORGETS)
    remember(shell, "big", 512, Cause.BUDGET_SPENT)  # newer, but unfinished: says nothing
    remember(shell, "small", 7424, Cause.FORGETS)
    instances = (
        loaded("big", 32768),
        loaded("small", 7424),
        loaded("new", 4096),
        loaded("x", None),
    )
    shell.adapter = ScriptedAdapter(
        status=Status(adapter="x", engine="y", available=True, loaded=instances)
    )
    text = shell.run("status").stdout
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
    assert document["store_reports"] == 3
    assert document["store_bytes"] >= shell.store.stat().st_size
    assert document["store_warnings"] == []


def test_what_lmstrix_loaded_itself_needs_no_advice(shell: Shell) -> None:
    remember(shell, "big", 7424, Cause.FORGETS)
    ours = LoadedInstance(key="big", identifier="x", context_length=32768, ours=True)
    status = Status(adapter="x", engine="y", available=True, loaded=(ours,))
    shell.adapter = ScriptedAdapter(status=status)
    text = shell.run("status").stdout
    assert "big at 32,768\n" in text
    assert "loaded by LMStrix" in text
    assert "too large" not in text
    assert "lmstrix apply" not in text


def test_above_the_users_own_limit_nothing_is_known(shell: Shell) -> None:
    remember(shell, "m", 1024, Cause.MAX_CONTEXT)
    status = Status(adapter="x", engine="y", available=True, loaded=(loaded("m", 4096),))
    shell.adapter = ScriptedAdapter(status=status)
    [document] = shell.lines("status", "--json")
    assert [one["fit"] for one in document["loaded"]] == ["not_tested"]
    assert "m at 4,096: not tested beyond 1,024 (--max-context)" in shell.run("status").stdout


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
    assert shell.run(*server, "test", "slow", "--budget", "1s", *words).exit_code == 5
    [document] = shell.lines(*server, "status", "--json")
    assert " ".join(server) in document["go_on"][0]
    assert document["unfinished"] == ["slow"]
    [command] = document["go_on"]
    assert shlex.split(command)[0] == "lmstrix"
    assert f"To continue: {command}" in shell.run(*server, "status").stdout
    shell.adapter = Measurable(SLOW)
    assert shell.run(*shlex.split(command)[1:]).exit_code == 0
    assert shell.lines("status", "--json")[0]["unfinished"] == []


def test_a_quick_measurement_is_not_unfinished(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(SLOW)
    assert shell.run("test", "slow", "--quick").exit_code == 0
    [document] = shell.lines("status", "--json")
    assert document["unfinished"] == document["go_on"] == []


@pytest.mark.parametrize("dead", [False, True])
def test_a_measurement_that_another_process_runs_is_running(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead: bool
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "turns"))
    shell.adapter = ScriptedAdapter(SLOW, reply_seconds=3600)
    assert shell.run("test", "slow", "--budget", "1s").exit_code == 5
    with subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        if dead:
            process.kill()
            process.wait()
        text = shell.run("status").stdout
        [document] = shell.lines("status", "--json")
        process.kill()
    if dead:
        assert document["unfinished"] == ["slow"]
        assert document["running"] == []
        assert "To continue: " in text
    else:
        assert document["unfinished"] == document["go_on"] == []
        assert document["running"] == ["slow"]
        assert f"running slow (process {process.pid})" in text
        assert "To continue: " not in text


def test_a_store_that_was_set_aside_is_told(shell: Shell) -> None:
    shell.run("list")
    shell.store.write_bytes(shell.store.read_bytes()[:100] + b"\xff" * 4096)
    [document] = shell.lines("status", "--json")
    [told] = document["store_warnings"]
    assert "set-aside" in told


def test_a_store_that_cannot_be_opened_hides_no_engine(shell: Shell, tmp_path: Path) -> None:
    shell.store = tmp_path
    result = shell.run("status")
    assert result.exit_code == 0
    assert "simulation" in result.stdout
    assert "warning" in result.stdout
