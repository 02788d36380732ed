from __future__ import annotations

from cli_shell import ScriptedAdapter, Shell

from lmstrix.testing.simulated import Beyond, SimulatedModel

MODEL = SimulatedModel(key="fine\x1b[2J", declared=2048, true_context=10**6)


def test_a_table_with_bars(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(MODEL)
    result = shell.run("bench", MODEL.key, "--max-context", "1k", "--rounds", "1")
    assert result.exit_code == 0
    name, _, head, *rows = result.stdout.splitlines()
    assert name == "fine\\x1b[2J"
    assert head.split()[:3] == ["length", "prefill", "TTFT"]
    assert [row.split()[0] for row in rows[:2]] == ["512", "1,024"]
    assert "[########]" in rows[0]
    assert "tokens read" in result.stderr


def test_for_other_programs(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(MODEL)
    words = ("bench", MODEL.key, "--rounds", "1", "-q", "--max-context", "512", "--format")
    head, row = shell.run(*words, "csv").stdout.splitlines()
    assert head.startswith("length_tokens,prefill_tokens_per_second,")
    assert row.startswith("512,,0.0,100.0,0.9")
    table = shell.run(*words, "md").stdout.splitlines()
    assert table[0].startswith("| length | prefill | ttft |")
    assert {line.count("|") for line in table} == {7}
    assert shell.lines(*words, "json")[0]["points"]


def test_a_model_that_cannot_be_benched(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(
        SimulatedModel(key="m", declared=1024, true_context=0, beyond=Beyond.CRASHES)
    )
    assert shell.run("bench", "nosuch").exit_code == 4
    assert shell.run("bench", "m", "--max-context", "100").exit_code == 2


def test_a_map_has_scores_and_no_verdicts(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(MODEL)
    result = shell.run("map", MODEL.key, "--lengths", "2", "--trials", "2")
    assert result.exit_code == 0
    assert "at least 85% of the score at 512 tokens, up to 2,048 tokens" in result.stdout
    assert "512 recall: 2 of 2 correct" in result.stderr
    assert "undecided" not in result.stderr
