"""Filters, formats and orders of `list` and `scan`."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest
from cli_shell import ScriptedAdapter, Shell

from lmstrix.models import Cause
from lmstrix.testing.samples import sample_model, sample_report
from lmstrix.testing.simulated import SimulatedModel
from lmstrix_cli.commands import test
from lmstrix_cli.options import ModelFilter, name_matches

EVIL = '=cmd|"x"!A1\x1b[31m|*`<b>'


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """Three results: 6144 certified, 2048 not, and one that could not be measured."""
    first = sample_report()
    shell.remember(
        first,
        sample_report(
            model=sample_model(key="b/Other", digest="other", size_bytes=5_000_000_000),
            true_context=2048,
            certified=False,
            cause=Cause.GIBBERISH,
            curve=(),
            finished_at=first.finished_at + timedelta(days=1),
        ),
        sample_report(
            model=sample_model(key=EVIL, digest="evil", size_bytes=0),
            true_context=None,
            certified=False,
            cause=Cause.NOT_MEASURABLE,
            curve=(),
            finished_at=first.finished_at + timedelta(days=2),
        ),
    )
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


def test_names_are_globs() -> None:
    assert name_matches("a[1]", ["a[1]"]) is False  # a glob: one of the characters in brackets
    assert name_matches("x", ["?"])
    assert not ModelFilter()


@pytest.mark.parametrize(("typed", "measured"), [("2\n", "two"), ("9\nx\n1\n", "one")])
def test_without_a_model_a_terminal_offers_a_choice(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, typed: str, measured: str
) -> None:
    monkeypatch.setattr(test, "_somebody_is_there", lambda: True)
    listing = [sample_model(key=key, declared_context=1024) for key in ("one", "two")]
    vectors = sample_model(key="vectors", type="embedding")
    models = (SimulatedModel(key=key, declared=1024) for key in ("one", "two"))
    shell.adapter = ScriptedAdapter(*models, listing=[*listing, vectors])
    result = shell.run("test", "-q", "--no-certify", typed=typed)
    assert result.exit_code == 0
    assert "1  one" in result.stderr
    assert "vectors" not in result.stderr
    assert result.stdout.startswith(f"{measured} ")


def test_the_only_model_of_a_named_engine_needs_no_name(shell: Shell) -> None:
    """As the one that a llama-server was started with."""
    shell.adapter = ScriptedAdapter(SimulatedModel(key="served", declared=1024))
    for adapter, exit_code in ((("--adapter", "llama-server"), 0), ((), 2)):
        result = shell.run(*adapter, "test", "-q", "--no-certify")
        assert result.exit_code == exit_code
        assert result.stdout.startswith("served ") is (exit_code == 0)


@pytest.mark.parametrize("words", [("--json",), ("--dry-run", "--json")])
def test_a_program_is_not_asked(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(test, "_somebody_is_there", lambda: True)
    result = shell.run("test", *words, typed="1\n")
    assert result.exit_code == 2
    assert "name one or more models" in result.stderr
