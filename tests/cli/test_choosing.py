"""`list` and `scan`: filters, formats and orders; and the model that is chosen without a name."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import anyio
import attrs
import pytest
from cli_shell import ScriptedAdapter, Shell, made

from lmstrix.models import Cause, ContextReport, ModelInfo, Status
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix.testing.simulated import SimulatedModel
from lmstrix_cli import output, session
from lmstrix_cli.commands import test

EVIL = '=cmd|"x"!A1\x1b[31m|*`<b>'


def stored(key: str, day: int, size: int, **changes: Any) -> ContextReport:
    model = sample_model(key=key, digest=key, size_bytes=size)
    return attrs.evolve(made(key, day, certified=False, curve=(), **changes), model=model)


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """Three results: 6144 certified, 2048 not, and one that could not be measured."""
    other = stored("b/Other", 3, 5 * 10**9, true_context=2048, cause=Cause.GIBBERISH)
    unknown = stored(EVIL, 4, 0, true_context=None, cause=Cause.NOT_MEASURABLE)
    shell.remember(sample_report(), other, unknown)
    return shell


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", [EVIL, "b/Other", "sample/model-135m"]),
        ("--reverse", ["sample/model-135m", "b/Other", EVIL]),
        ("--sort true", ["sample/model-135m", "b/Other", EVIL]),
        ("--sort true --reverse", ["b/Other", "sample/model-135m", EVIL]),
        ("--sort name", [EVIL, "b/Other", "sample/model-135m"]),
        ("--sort size", ["b/Other", "sample/model-135m", EVIL]),
        ("--name OTHER --name sample*", ["b/Other", "sample/model-135m"]),
        ("--name ?/other", ["b/Other"]),
        ("--name MODEL* --name oth*", ["b/Other", "sample/model-135m"]),
        ("--name 135*", []),
        ("--name [b]/other", ["b/Other"]),
        ("--cause gibberish", ["b/Other"]),
        ("--certified", ["sample/model-135m"]),
        ("--not-certified --min-true 2k", ["b/Other"]),
    ],
)
def test_list_chooses_and_sorts(filled: Shell, words: str, expected: list[str]) -> None:
    reports = filled.lines("list", "--format", "json", *words.split())
    assert [report["model"]["key"] for report in reports] == expected


def test_list_as_csv_can_be_read_and_is_no_formula(filled: Shell) -> None:
    text = filled.run("list", "--format", "csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["model"] == "'" + EVIL.replace("\x1b", "\\x1b")
    assert [row["true_context"] for row in rows] == ["", "2048", "6144"]
    assert (rows[2]["tokens_per_second"], rows[2]["certified"]) == ("38.0", "yes")
    assert rows[2]["finished_at"].startswith(sample_report().finished_at.isoformat()[:19])


def test_list_without_anything_that_fits_says_so(filled: Shell) -> None:
    result = filled.run("list", "--name", "nosuch")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "No match among 3 results.\n"


def test_list_shows_what_was_measured(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(SimulatedModel(declared=2048, true_context=10**6))
    [printed] = shell.lines("test", "simulated", "--json", "--no-certify")
    shell.adapter = ScriptedAdapter()
    head, row = shell.run("list").stdout.splitlines()
    assert head.split() == "MODEL DECLARED LOADABLE TRUE CAUSE CERTIFIED SPEED AGE".split()
    expected = ["simulated", "2,048", "2,048", "2,048", "declared", "maximum", "no"]
    assert row.split()[:7] == expected
    assert row.endswith("now")
    assert shell.lines("list", "--json") == [printed]


def test_list_names_servers_where_results_are_of_several(shell: Shell) -> None:
    report = made("m")
    elsewhere = attrs.evolve(report.environment, adapter="ollama")
    shell.remember(report, attrs.evolve(report, environment=elsewhere))
    head, *rows, _, several = shell.run("list").stdout.splitlines()
    assert head.endswith("SERVER")
    assert "lmstrix compare MODEL" in several
    assert {row.split()[-1] for row in rows} == {"ollama", report.environment.adapter}
    for words in ("list", "report", "compare"):
        [found] = shell.lines("--adapter", "ollama", words, "--json")
        assert "llamacpp" not in str(found)
    none = shell.run("--adapter", "openai", "list")
    assert none.stderr == "No match of the adapter openai among 2 results.\n"
    assert "among 2 results" in shell.run("--adapter", "openai", "report").stderr


def test_list_does_not_show_what_a_server_does_not_tell(shell: Shell) -> None:
    report = made("m", loadable_context=6144)
    cloud = attrs.evolve(report.environment, adapter="openai")
    asked = attrs.evolve(report.method, max_context=6144)
    shell.remember(report, attrs.evolve(report, environment=cloud))
    shell.remember(attrs.evolve(report, method=asked))
    shown = shell.run("list", "m").stdout
    loadable = [line.split()[2] for line in shown.splitlines()[1:4]]
    assert sorted(loadable) == ["-", "6,144", "6,144+"]
    assert "--max-context allowed no more" in shown
    assert "Usage" not in shell.run("list", "m", "n").stderr


def test_scan_says_where_it_looked_when_nothing_is_there(shell: Shell) -> None:
    status = Status(adapter="x", engine="y", available=True, model_folders=("/one", "/two"))
    shell.adapter = ScriptedAdapter(listing=[], status=status)
    result = shell.run("scan", code=0)
    for expected in ("No models found", "/one", "/two", "lmstrix demo", ".gguf"):
        assert expected in result.stdout
    assert shell.run("scan", "--json").stdout == ""


def test_scan_says_that_it_waits_for_a_slow_server(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    told = anyio.Event()

    def hear(text: object) -> None:
        said.append(text)
        told.set()

    class Slow(ScriptedAdapter):
        async def list_models(self) -> Sequence[ModelInfo]:
            with anyio.fail_after(60):
                await told.wait()
            return await super().list_models()

    monkeypatch.setattr(session, "SLOW_S", 0.01)
    monkeypatch.setattr(output, "note", hear)
    shell.adapter = Slow(SimulatedModel(key="fine"))
    result = shell.run("scan", code=0)
    assert "fine" in result.stdout
    assert "Waiting for a server's answer" in str(said[0])


def test_names_cannot_steer_the_terminal(shell: Shell) -> None:
    evil = "evil\x1b]0;title\x07[red]\u202e"
    shell.adapter = ScriptedAdapter(listing=[sample_model(key=evil, quantization="\x9b31m")])
    text = shell.run("scan").stdout
    assert not set("\x1b\x07\u202e\x9b") & set(text)
    assert "evil\\x1b]0;title\\x07[red]\\u202e" in text


def test_a_file_found_by_path_matches_by_its_name(shell: Shell) -> None:
    shell.adapter = ScriptedAdapter(listing=[sample_model(key="/home/u/models/Qwen-tiny.gguf")])
    for pattern, count in (("qwen*", 1), ("/home/*", 1), ("tiny*", 0)):
        assert len(shell.lines("scan", "--json", "--name", pattern)) == count


def test_scan_chooses_and_tells_what_was_tested(filled: Shell) -> None:
    filled.adapter = ScriptedAdapter(
        listing=[
            sample_model(),
            sample_model(key="b/Other", digest="replaced", size_bytes=5_000_000_000),
            sample_model(key="vectors", digest="v", type="embedding", format="MLX", size_bytes=0),
        ]
    )
    found = {row["key"]: row["tested_context"] for row in filled.lines("scan", "--json")}
    assert found == {"sample/model-135m": 6144, "b/Other": None, "vectors": None}
    chosen = {
        "--name b/*": ["b/Other"],
        "--type embedding": ["vectors"],
        "--model-format mlx": ["vectors"],
        "--max-size 4g": ["sample/model-135m"],
        "--min-size 4g --type llm": ["b/Other"],
    }
    for words, expected in chosen.items():
        rows = filled.lines("scan", "--json", *words.split())
        assert [row["key"] for row in rows] == expected
    rows = list(csv.DictReader(io.StringIO(filled.run("scan", "--format", "csv").stdout)))
    assert [row["tested_context"] for row in rows] == ["6144", "", ""]
    nothing = filled.run("scan", "--name", "nosuch")
    assert nothing.stderr == "No match among 3 models.\n"
    result = filled.run("test", "--all", "--name", "nosuch")
    assert "no model matches these filters" in result.stderr


@pytest.mark.parametrize(("typed", "measured"), [("2\n", "two"), ("9\nx\n1\n", "one")])
def test_without_a_model_a_terminal_offers_a_choice(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, typed: str, measured: str
) -> None:
    monkeypatch.setattr(test, "_somebody_is_there", lambda: True)
    listing = [sample_model(key=key, declared_context=1024) for key in ("one", "two")]
    vectors = sample_model(key="vectors", type="embedding")
    models = (SimulatedModel(key=key, declared=1024) for key in ("one", "two"))
    shell.adapter = ScriptedAdapter(*models, listing=[*listing, vectors])
    result = shell.run("test", "-q", "--no-certify", typed=typed, code=0)
    assert "1  one" in result.stderr
    assert "vectors" not in result.stderr
    assert result.stdout.startswith(f"{measured} ")


def test_the_only_model_of_a_named_engine_needs_no_name(shell: Shell) -> None:
    """As the one that a llama-server was started with."""
    shell.adapter = ScriptedAdapter(SimulatedModel(key="served", declared=1024))
    for adapter, exit_code in ((("--adapter", "llama-server"), 0), ((), 2)):
        result = shell.run(*adapter, "test", "-q", "--no-certify", code=exit_code)
        assert result.stdout.startswith("served ") is (exit_code == 0)


def test_a_program_is_not_asked(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test, "_somebody_is_there", lambda: True)
    for words in (("--json",), ("--dry-run", "--json")):
        result = shell.run("test", *words, typed="1\n", code=2)
        assert "name one or more models" in result.stderr
