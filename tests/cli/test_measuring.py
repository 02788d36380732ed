"""``lmstrix test``: reports on stdout, progress on stderr, the right exit code."""

from __future__ import annotations

import pytest
from cli_shell import ScriptedAdapter, Shell

from lmstrix.errors import EngineUnavailable, StoreError
from lmstrix.models import Cause
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.testing.samples import sample_model
from lmstrix.testing.simulated import SimulatedModel

FINE = SimulatedModel(key="fine", declared=2048, true_context=10**6)
CLUELESS = SimulatedModel(key="clueless", declared=2048, knows=False)


def test_a_batch_counts_its_models_and_ends_with_those_that_failed(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE, CLUELESS)
    result = shell.run("test", "fine", "clueless", "nosuch", "--no-certify")
    assert result.exit_code == 4
    for number, name in enumerate(("fine", "clueless", "nosuch"), start=1):
        assert f"model {number} of 3: {name}\n" in result.stderr
    head, *rows = result.stderr.partition("not fully measured: 2 of 3 models\n")[2].splitlines()
    assert head.split() == ["MODEL", "DECLARED", "TRUE", "CAUSE", "TIME"]
    clueless, nosuch = (row.split() for row in rows[:2])
    assert clueless[:5] == ["clueless", "2,048", "unknown", "not", "measurable"]
    assert nosuch == ["nosuch", "unknown", "unknown", "model", "not", "found", "-"]
    assert rows[2:] == ["", "All results: lmstrix list"]
    single = shell.run("test", "fine", "--no-certify").stderr
    assert "fully" not in single
    assert "All results" not in single
    again = shell.run("test", "--all", "--name", "fine", "--name", "clueless", "--no-certify")
    assert "model 1 of 2" not in again.stderr
    assert (
        shell.run("test", "fine", "clueless", "-q", "--json", "--no-certify").stderr.count("\n")
        <= 2
    )


def test_the_options_reach_the_measurement(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    words = "test fine --json --max-context 1k --tolerance 1/32 --ratio 0.9 --seed 5 --no-certify"
    [report] = shell.lines(*words.split())
    method = report["method"]
    assert method["max_context"] == 1024
    assert (method["tolerance"], method["ratio"], method["seed"]) == (1 / 32, 0.9, 5)
    assert report["certified"] is False
    assert report["true_context"] == 1024


def test_a_store_that_fails_later_is_told_beside_the_report(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreError("there is no space", hint="Make room.")

    monkeypatch.setattr(SqliteStore, "append_trials", full)
    shell.adapter = ScriptedAdapter(FINE)
    result = shell.run("test", "fine", "--no-certify")
    assert result.exit_code == 1
    assert "true 2,048" in result.stdout
    assert "could not be stored: there is no space" in result.stdout
    assert "Error: there is no space\nHint: Make room." in result.stderr


def test_an_average_over_the_window_is_asked_for_and_repeated(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    [report] = shell.lines("test", "fine", "--average", "--no-certify", "--json")
    assert report["method"]["average"] is True
    assert report["regions"] == []
    assert " --average " in shell.run("test", "fine", "--average", "--no-certify", "-q").stdout


def test_the_largest_memory_reaches_the_measurement(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE)
    [report] = shell.lines("test", "fine", "--max-memory", "8g", "--json")
    assert report["cause"] == Cause.LOAD_REFUSED
    assert "the memory limit cannot be kept" in report["notes"][0]


def test_one_line_for_each_model_whatever_becomes_of_it(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE, CLUELESS)
    result = shell.run("test", "nosuch", "clueless", "fine", "--json", "--no-certify")
    assert result.exit_code == 4
    assert "Error: there is no simulated model 'nosuch'" in result.stderr
    reports = shell.lines("test", "nosuch", "clueless", "fine", "--json", "--no-certify")
    assert [(r["model"]["key"], r["cause"]) for r in reports] == [
        ("nosuch", Cause.MODEL_NOT_FOUND),
        ("clueless", Cause.NOT_MEASURABLE),
        ("fine", Cause.DECLARED_MAXIMUM),
    ]
    assert [r["true_context"] for r in reports] == [None, None, 2048]


def test_a_model_that_is_not_there_gets_no_report_as_text(shell: Shell) -> None:
    result = shell.run("test", "nosuch")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")


def test_an_engine_that_is_away_is_no_verdict(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(
        listing_error=EngineUnavailable("nobody answers", hint="Start it.")
    )
    result = shell.run("test", "one", "two", "--json")
    assert result.exit_code == 3
    assert result.stderr.count("Hint: Start it.") == 2
    causes = [report["cause"] for report in shell.lines("test", "one", "two", "--json")]
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
    result = shell.run("test", "--all", "--json", "--no-certify")
    assert result.exit_code == 0
    assert "skipped: vectors: a model of type embedding" in result.stderr
    assert "skipped: broken: a model of type invalid" in result.stderr
    reports = shell.lines("test", "--all", "--json", "--no-certify", "-q")
    assert [r["model"]["key"] for r in reports] == ["z-small", "fine"]


def test_all_of_nothing(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(listing=[])
    result = shell.run("test", "--all")
    assert result.exit_code == 4
    assert "lmstrix scan" in result.stderr


def test_a_spent_budget_is_partial(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(FINE, reply_seconds=3600.0)
    result = shell.run("test", "fine", "--budget", "1s", "--json")
    assert result.exit_code == 5
    assert '"budget_spent"' in result.stdout
    assert "To continue: lmstrix test fine --budget 1s --json" in result.stderr
