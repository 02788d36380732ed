"""What is known of a measurement that did not end: listed, reported, continued."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cli_shell import ScriptedAdapter, Shell

from lmstrix import EngineUnavailable, ModelInfo
from lmstrix.testing.simulated import SimulatedModel

LONG = SimulatedModel(key="long", declared=16384, true_context=10**6)


class Lost(ScriptedAdapter):
    """The server goes away while a model is loaded."""

    @asynccontextmanager
    async def load(self, model: ModelInfo, context_length: int, **rest: Any) -> AsyncGenerator[Any]:
        raise EngineUnavailable("nobody answers")
        yield


def row(shell: Shell, name: str) -> list[str]:
    [line] = [one for one in shell.run("list").stdout.splitlines() if one.startswith(name)]
    return line.split()


def spend(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(LONG)
    result = shell.run("test", "long", "--budget-tokens", "12k", "--no-certify", "-q")
    assert result.exit_code == 5


def test_after_a_budget_the_list_has_what_is_known(shell: Shell) -> None:
    spend(shell)
    cells = row(shell, "long")
    assert cells[3].endswith("+")
    known = int(cells[3].removesuffix("+").replace(",", ""))
    assert 512 <= known < 16384
    text = shell.run("list").stdout
    assert "+ at least" in text
    assert f"at least {known:,}" in shell.run("report", "--format", "md").stdout
    again = shell.run("test", "long", "--no-certify")
    assert "continuing after" in again.stderr
    assert row(shell, "long")[3] == "16,384"
    assert "+ at least" not in shell.run("list").stdout


def test_a_finished_result_stays_in_front_of_a_partial_one(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(LONG)
    assert shell.run("test", "long", "--no-certify", "-q").exit_code == 0
    shell.run("test", "long", "--budget-tokens", "12k", "--no-certify", "-q")
    assert row(shell, "long")[3] == "16,384"


@pytest.mark.parametrize("words", [("list",), ("list", "--json")])
def test_a_lost_server_stays_in_the_list(shell: Shell, words: tuple[str, ...]) -> None:
    shell.adapter = Lost(LONG)
    shell.run("test", "long", "-q")
    assert "infrastructure" in shell.run(*words).stdout
    assert shell.lines("status", "--json")[0]["unfinished"] == ["long"]


def test_infer_does_not_trust_what_is_not_finished(shell: Shell) -> None:
    spend(shell)
    assert "tested: not yet" in shell.run("infer", "long", "word " * 30000).stderr
