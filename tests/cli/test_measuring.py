"""``test``, ``bench`` and ``map``: results on stdout, progress on stderr, the right exit code."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cli_shell import CLUELESS, FINE, ScriptedAdapter, Shell

from lmstrix import EngineUnavailable, ModelInfo, StoreError
from lmstrix.models import Cause
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model
from lmstrix.testing.simulated import SimulatedModel

EVIL = SimulatedModel(key="fine\x1b[2J", declared=2048, true_context=10**6)
LONG = SimulatedModel(key="long", declared=16384, true_context=10**6)


def test_a_batch_counts_its_models_and_ends_with_those_that_failed(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE, CLUELESS)
    result = shell.run("test", "fine", "clueless", "nosuch", "--no-certify", code=4)
    # What is not there is told before hours of work.
    for number, name in enumerate(("nosuch", "fine", "clueless"), start=1):
        assert f"model {number} of 3: {name}\n" in result.stderr
    head, *rows = result.stderr.partition("not fully measured: 2 of 3 models\n")[2].splitlines()
    assert head.split() == ["MODEL", "DECLARED", "TRUE", "CAUSE", "TIME"]
    nosuch, clueless = (row.split() for row in rows[:2])
    assert clueless[:5] == ["clueless", "2,048", "unknown", "not", "measurable"]
    assert nosuch == ["nosuch", "unknown", "unknown", "model", "not", "found", "-"]
    assert rows[2:] == ["", "All results: lmstrix list"]
    single = shell.run("test", "fine", "--no-certify").stderr
    assert "fully" not in single
    assert "All results" not in single
    again = shell.run("test", "--all", "--name", "fine", "--name", "clueless", "--no-certify")
    assert "model 1 of 2" not in again.stderr
    quiet = shell.run("test", "fine", "clueless", "-q", "--json", "--no-certify")
    assert quiet.stderr.count("\n") <= 2


def test_one_line_for_each_model_whatever_becomes_of_it(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE, CLUELESS)
    result = shell.run("test", "nosuch", "clueless", "fine", "--json", "--no-certify", code=4)
    assert "Error: there is no simulated model 'nosuch'" in result.stderr
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(r["model"]["key"], r["cause"], r["true_context"]) for r in reports] == [
        ("nosuch", Cause.MODEL_NOT_FOUND, None),
        ("clueless", Cause.NOT_MEASURABLE, None),
        ("fine", Cause.DECLARED_MAXIMUM, 2048),
    ]
    as_text = shell.run("test", "nosuch")
    assert (as_text.exit_code, as_text.stdout) == (4, "")
    assert as_text.stderr.startswith("Error: ")


def test_the_options_reach_the_measurement_and_are_repeated(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    words = "test fine --max-context 1k --tolerance 1/32 --ratio 0.9 --seed 5 --no-certify"
    [report] = shell.lines(*words.split(), "--average", "--json")
    method = report["method"]
    assert (method["max_context"], method["average"]) == (1024, True)
    assert (method["tolerance"], method["ratio"], method["seed"]) == (1 / 32, 0.9, 5)
    assert (report["certified"], report["true_context"], report["regions"]) == (False, 1024, [])
    assert " --average " in shell.run(*words.split(), "--average", "-q").stdout
    refused = shell.run("test", "fine", "--max-memory", "8g", "--json")
    report = json.loads(refused.stdout)
    assert (refused.exit_code, report["cause"]) == (4, Cause.LOAD_REFUSED)
    assert "the memory limit cannot be kept" in report["notes"][0]


def test_a_store_that_fails_later_is_told(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object) -> None:
        raise StoreError("there is no space", hint="Make room.")

    monkeypatch.setattr(SqliteStore, "append_trials", full)
    shell.adapter = ScriptedAdapter(FINE)
    result = shell.run("test", "fine", "--no-certify", code=1)
    assert "true      2,048" in result.stdout
    assert "could not be stored: there is no space" in result.stdout
    assert "Error: there is no space\nHint: Make room." in result.stderr


def test_an_engine_that_is_away_is_no_verdict(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(
        listing_error=EngineUnavailable("nobody answers", hint="Start it.")
    )
    result = shell.run("test", "one", "two", "--json", code=3)
    assert result.stderr.count("Hint: Start it.") == 2
    causes = [json.loads(line)["cause"] for line in result.stdout.splitlines()]
    assert causes == [Cause.INFRASTRUCTURE, Cause.INFRASTRUCTURE]


def test_all_measures_the_smallest_first_and_leaves_out_what_cannot_speak(shell: Shell) -> None:
    small = SimulatedModel(key="z-small", declared=1024, true_context=10**6)
    listing = [
        sample_model(key="broken", type="invalid", size_bytes=1),
        sample_model(key="fine", size_bytes=2000, declared_context=1024),
        sample_model(key="vectors", type="embedding", size_bytes=10),
        sample_model(key="z-small", size_bytes=1000, declared_context=1024),
    ]
    shell.adapter = ScriptedAdapter(FINE, small, listing=listing)
    result = shell.run("test", "--all", "--json", "--no-certify", code=0)
    assert "skipped: vectors: a model of type embedding" in result.stderr
    assert "skipped: broken: a model of type invalid" in result.stderr
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["model"]["key"] for r in reports] == ["z-small", "fine"]
    shell.adapter = ScriptedAdapter(listing=[])
    nothing = shell.run("test", "--all", code=4)
    assert "lmstrix scan" in nothing.stderr


def test_a_spent_budget_is_partial_and_the_command_to_go_on_is_quoted(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE, reply_seconds=3600.0)
    words = ("--store", "my store", "test", "--fresh", "fine", "--budget", "1s", "--json")
    result = shell.run(*words, code=5)
    assert '"budget_spent"' in result.stdout
    again = "To continue: lmstrix --store 'my store' test fine --budget 1s --json"  # not afresh
    assert again in result.stderr


# What is known of a measurement that did not end: listed, reported, continued.


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
    shell.run("test", "long", "--budget-tokens", "12k", "--no-certify", "-q", code=5)


def test_after_a_budget_the_list_has_what_is_known(shell: Shell) -> None:
    spend(shell)
    cells = row(shell, "long")
    assert cells[3].endswith("+")
    known = int(cells[3].removesuffix("+").replace(",", ""))
    assert 512 <= known < 16384
    text = shell.run("list").stdout
    assert "With +: at least" in text
    assert f"at least {known:,}" in shell.run("report", "--format", "md").stdout
    again = shell.run("test", "long", "--no-certify")
    assert "continuing after" in again.stderr
    assert row(shell, "long")[3] == "16,384"
    assert "at least" not in shell.run("list").stdout


def test_a_finished_result_stays_in_front_of_a_partial_one(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(LONG)
    shell.run("test", "long", "--no-certify", "-q", code=0)
    shell.run("test", "long", "--budget-tokens", "12k", "--no-certify", "-q")
    assert row(shell, "long")[3] == "16,384"


def test_a_lost_server_stays_in_the_list(shell: Shell) -> None:
    shell.adapter = Lost(LONG)
    shell.run("test", "long", "-q")
    for words in (("list",), ("list", "--json")):
        assert "infrastructure" in shell.run(*words).stdout
    assert shell.lines("status", "--json")[0]["unfinished"] == ["long"]


def test_infer_does_not_trust_what_is_not_finished(shell: Shell) -> None:
    spend(shell)
    assert "tested: not yet" in shell.run("infer", "long", "word " * 30000).stderr


# Speeds and maps.


def test_speeds_are_a_table_with_bars(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(EVIL)
    result = shell.run("bench", EVIL.key, "--max-context", "1k", "--rounds", "1", code=0)
    name, _, head, *rows = result.stdout.splitlines()
    assert name == "fine\\x1b[2J"
    assert head.split()[:3] == ["length", "prefill", "TTFT"]
    assert [row.split()[0] for row in rows[:2]] == ["512", "1,024"]
    assert "[########]" in rows[0]
    assert "tokens read" in result.stderr


def test_speeds_for_other_programs(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(EVIL)
    words = ("bench", EVIL.key, "--rounds", "1", "-q", "--max-context", "512", "--format")
    head, row = shell.run(*words, "csv").stdout.splitlines()
    assert head.startswith("length_tokens,prefill_tokens_per_second,")
    assert row.startswith("512,,0.0,100.0,0.9")
    table = shell.run(*words, "md").stdout.splitlines()
    assert table[0].startswith("| length | prefill | ttft |")
    assert {line.count("|") for line in table} == {7}
    assert shell.lines(*words, "json")[0]["points"]


def test_a_map_has_scores_and_no_verdicts(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(EVIL)
    result = shell.run("map", EVIL.key, "--lengths", "2", "--trials", "2", code=0)
    assert "at least 85% of its score at 512 tokens up to 2,048 tokens" in result.stdout
    assert "512 recall: 2 of 2 correct" in result.stderr
    assert "undecided" not in result.stderr
