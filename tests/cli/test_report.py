"""report and compare: from the store or from JSON, to a file or to stdout."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import attrs
import pytest
from cli_shell import Shell, made

from lmstrix import Cause, dump_report
from lmstrix.models import ContextReport, Environment
from lmstrix.serialize import to_json
from lmstrix.testing.samples import sample_map, sample_model, sample_report
from lmstrix_cli.commands import report as report_command


def seeded(key: str, day: int, seed: int, **changes: Any) -> ContextReport:
    """Such a report, with another seed."""
    method = attrs.evolve(sample_report().method, seed=seed)
    return made(key, day, method=method, **changes)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_a_page_of_every_model_by_its_newest_result(shell: Shell, here: Path) -> None:
    shell.remember(made("a/one", 1), seeded("a/one", 3, 9, true_context=4096), made("b/two", 2))
    result = shell.run("report")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "lmstrix-report.html" in result.stderr
    page = (here / "lmstrix-report.html").read_text(encoding="utf-8")
    assert "Context report of 2 models" in page
    assert page.index("a/one") < page.index("b/two")
    assert "--seed 9" in page
    # The second time it is ours to replace.
    shell.run("report", "two", code=0)
    assert "a/one" not in (here / "lmstrix-report.html").read_text(encoding="utf-8")


def test_a_finished_result_goes_before_a_later_one_that_did_not_end(shell: Shell) -> None:
    started = seeded("a/one", 3, 9, true_context=512, cause=Cause.INTERRUPTED)
    shell.remember(made("a/one", 1, true_context=6144), started)
    for words in (["one"], []):
        [report] = shell.lines("report", *words, "--json")
        assert report["true_context"] == 6144


def test_two_files_of_one_name_are_two_models(shell: Shell) -> None:
    files = [sample_model(key="m.gguf", path=f"/{folder}/m.gguf") for folder in ("a", "b")]
    shell.remember(*(sample_report(model=one) for one in files))
    assert len(shell.lines("compare", "--json")[0]["results"]) == 2


def test_a_later_part_hides_no_whole_result(shell: Shell) -> None:
    quick = attrs.evolve(sample_report().method, quick=True)
    whole = made("m", 1, true_context=6144)
    parts = (
        made("m", 2, true_context=2048, cause=Cause.MAX_CONTEXT),
        made("m", 3, true_context=4096, method=quick),
        made("m", 4, true_context=None, cause=Cause.NOT_MEASURABLE),
        made("m", 5, true_context=512, cause=Cause.BUDGET_SPENT),
    )
    shell.remember(whole, *parts)
    for words in (("report",), ("report", "m")):
        [shown] = shell.lines(*words, "--json")
        assert shown["finished_at"] == whole.finished_at.isoformat()
    again = made("m", 6, true_context=5120)
    shell.remember(again)
    [shown] = shell.lines("report", "m", "--json")
    assert shown["true_context"] == 5120


def test_its_commands_find_the_store_that_was_named(shell: Shell) -> None:
    shell.remember(made("m"))
    named = shell.run("--store", str(shell.store), "report", "m", "-o", "-", "--format", "txt")
    assert f"lmstrix --store {shell.store} apply m" in named.stdout
    assert f"repeat: lmstrix --store {shell.store} " in named.stdout
    assert "--store" not in shell.run("report", "m", "-o", "-", "--format", "txt").stdout


def test_a_name_with_a_line_separator_stays_on_one_line_of_json(shell: Shell) -> None:
    shell.remember(made("a\u2028b"))
    lines = shell.run("report", "--json").stdout.split("\n")
    assert [json.loads(line)["model"]["key"] for line in lines if line] == ["a\u2028b"]


def test_what_is_not_ours_is_not_overwritten(shell: Shell, here: Path) -> None:
    shell.remember(made("m"))
    for suffix in ("html", "md", "txt", "csv", "json"):
        thesis = here / f"thesis.{suffix}"
        thesis.write_text("years of work")
        command = "compare" if suffix == "csv" else "report"
        result = shell.run(command, "-o", thesis.name, code=1)
        assert "--force" in result.stderr
        assert thesis.read_text() == "years of work"
        shell.run(command, "-o", thesis.name, "--force", code=0)
        shell.run(command, "-o", thesis.name, code=0)
        assert "years" not in thesis.read_text()


def test_json_of_another_kind_is_not_overwritten(shell: Shell, here: Path) -> None:
    shell.remember(made("m"))
    for name, text in (
        ("map", to_json(sample_map())),
        ("export", shell.run("export").stdout),
        ("other", '{"results": [{"model": "gpt"}]}'),
    ):
        file = here / f"{name}.json"
        file.write_text(text)
        for command in ("report", "compare"):
            shell.run(command, "-o", file.name, code=1)
        assert file.read_text() == text
    for first, second in (("report", "compare"), ("compare", "report")):
        shell.run(first, "-o", f"{first}.json", code=0)
        shell.run(second, "-o", f"{first}.json", code=0)


def test_files_that_cannot_be_written_or_whose_names_lie(shell: Shell, here: Path) -> None:
    shell.remember(made("m"))
    for words in ("report -o x.csv", "report -o x.pdf", "compare -o x.txt"):
        result = shell.run(*words.split(), code=2)
        assert "add --format" in result.stderr
    assert list(here.iterdir()) == []
    shell.run("report", "-o", "page.pdf", "--format", "html", code=0)
    (here / "folder.html").mkdir()
    for output, missing in (
        ("nowhere/x.html", True),
        ("page.pdf/x.html", True),
        ("folder.html", False),
    ):
        result = shell.run("report", "-o", output, code=1)
        assert ("in a folder that exists" in result.stderr) is missing
        assert result.stderr.startswith(f"Error: '{output}' cannot be written")
        assert result.stderr.count("\n") == 2


def test_from_what_test_printed_and_without_a_store(shell: Shell, here: Path) -> None:
    lines = dump_report(made("a")) + "\n" + json.dumps(json.loads(dump_report(made("b"))), indent=2)
    (here / "reports.jsonl").write_text(lines)
    page = shell.run("report", "--from", "reports.jsonl", "-o", "-").stdout
    assert "Context report of 2 models" in page
    piped = shell.run("report", "b", "--from", "-", "--format", "md", typed=lines).stdout
    assert "# `b`" in piped
    assert "`a`" not in piped
    assert not shell.store.exists()


def test_of_a_file_too_only_the_named_adapters_results_are_used(shell: Shell, here: Path) -> None:
    reports = [made(name, environment=Environment(adapter=name)) for name in ("ollama", "llamacpp")]
    (here / "x").write_text("\n".join(map(dump_report, reports)))
    for command in ("report", "compare"):
        words = (command, "--from", "x", "--json")
        text = shell.run("--adapter", "ollama", *words, code=0).stdout
        assert "ollama" in text
        assert "llamacpp" not in text
        none = shell.run("--adapter", "openai", *words, code=4)
        assert "no result of the adapter 'openai' among 2 results" in none.stderr


def test_what_is_no_report_is_said_to_be_none(shell: Shell, here: Path) -> None:
    for text, said in (
        ('{"a": 1}', "document 1 of 'x' is not a report"),
        ("{", "is not valid JSON"),
        ("", "the input has no report"),
        (dump_report(made("m")).replace("8192", "9" * 4000), "document 1 of 'x' is not a report"),
        ("[" * 100_000, "is not valid JSON"),
    ):
        (here / "x").write_text(text)
        result = shell.run("report", "--from", "x", "-o", "-")
        assert result.exit_code in {1, 4}
        assert said in result.stderr
        assert "bug" not in result.stderr
        assert "Hint: " in result.stderr
    (here / "x").write_bytes(b"\xff\xfe")
    assert "not text in UTF-8" in shell.run("report", "--from", "x").stderr
    (here / "x").write_text(shell.run("export").stdout)
    told = shell.run("compare", "--from", "x").stderr
    assert "`lmstrix import FILE`" in told
    assert "ContextReport" not in told
    (here / "x").write_text(dump_report(made("m")))
    told = shell.run("report", "--from", "x", "--map", "x").stderr
    assert "'x' does not hold a map: " in told
    (here / "x").write_bytes(b"\xff\xfe")
    assert shell.run("report", "--map", "x").exit_code in {1, 4}


def test_an_unknown_model_is_said_with_near_names(shell: Shell, here: Path) -> None:
    for command in ("report", "compare"):
        empty = shell.run(command, code=4)
        assert "lmstrix demo" in empty.stderr
    shell.remember(made("google/gemma-3-4b"))
    for command in ("report", "compare"):
        result = shell.run(command, "gema-3-4b", code=4)
        assert 'Did you mean "google/gemma-3-4b"?' in result.stderr
        assert "lmstrix list" in shell.run(command, "zzz").stderr
    assert list(here.iterdir()) == []


def test_a_map_is_drawn_beside_its_model(shell: Shell, here: Path) -> None:
    found = sample_map(model=sample_model(key="m"))
    layers = (*found.layers, attrs.evolve(found.layers[0], name="copy"))
    (here / "map.json").write_text(to_json(attrs.evolve(found, layers=layers)))
    shell.remember(made("m"))
    page = shell.run("report", "--map", "map.json", "-o", "-").stdout
    assert "Map: recall by length and depth" in page
    assert "Map: copy by length and depth" in page
    assert page.count('<section class="model"') == 1
    text = shell.run("report", "--map", "map.json", "--format", "md").stdout
    assert "## Map of `m`" in text


def test_the_browser_opens_it(shell: Shell, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.remember(made("m"))
    opened: list[str] = []
    monkeypatch.setattr(report_command.webbrowser, "open", opened.append)
    result = shell.run("report", "--open", "-o", "a b.html")
    assert opened == [(here / "a b.html").as_uri()]
    assert "open the file yourself" in result.stderr  # what `append` gives is not true


def test_models_side_by_side(shell: Shell) -> None:
    shell.remember(made("a/one"), made("b/two", 2, true_context=4096, certified=False))
    lines = shell.run("compare").stdout.splitlines()
    assert lines[0].split() == ["b/two", "a/one"]
    table = {line[:20].strip(): line[20:].split() for line in lines if line}
    assert table["true"] == ["4,096", "6,144"]
    assert table["certified"] == ["no", "yes"]
    assert "differences" in lines
    assert lines[-1].strip()
    assert "the same in all: " in shell.run("compare").stdout
    assert max(len(line) for line in lines) <= 80


def test_all_results_of_one_model(shell: Shell) -> None:
    shell.remember(made("m", 1), seeded("m", 2, 9), seeded("m", 3, 10))
    alone = shell.run("compare").stdout
    assert alone == shell.run("compare", "m").stdout
    shell.remember(made("other"))
    lines = shell.run("compare", "m").stdout.splitlines()
    assert lines[0] == "m"
    [seeds] = [line.split() for line in lines if line.startswith("seed ")]
    assert seeds == ["seed", "10", "9", "7"]
    result = shell.run("compare", "other", code=0)
    assert "Only one result" in result.stderr
    assert "lmstrix test" in result.stderr


def test_many_models_differ_in_settings_not_in_facts_about_their_files(shell: Shell) -> None:
    sizes = [attrs.evolve(sample_model(key=f"m{n}", path=f"m{n}"), size_bytes=n) for n in range(6)]
    shell.remember(*(sample_report(model=one) for one in sizes))
    printed = shell.run("compare").stdout
    assert "size" not in printed
    assert "compare --format html" in printed
    shell.remember(seeded("other", 2, 9))
    assert " seed 9" in shell.run("compare").stdout


def test_a_comparison_in_other_formats(shell: Shell, here: Path) -> None:
    shell.remember(made("a"), made("b", 2))
    for command in ("report", "compare"):
        asked = shell.run(command, "--json", code=0)
        assert asked.stdout == shell.run(command, "--format", "json").stdout
        shell.run(command, "--json", "--format", "md", code=2)
    [document] = shell.lines("compare", "--format", "json")
    assert [result["model"] for result in document["results"]] == ["b", "a"]
    rows = list(csv.DictReader(io.StringIO(shell.run("compare", "--format", "csv").stdout)))
    assert [row["model"] for row in rows] == ["b", "a"]
    assert "| true | 6,144 | 6,144 |" in shell.run("compare", "--format", "md").stdout
    shell.run("compare", "--format", "html", code=0)
    page = (here / "lmstrix-comparison.html").read_text(encoding="utf-8")
    assert "Side by side" in page
    shell.run("compare", "a", "b", "-o", "x.csv", code=0)
    assert (here / "x.csv").read_text().startswith("model,declared_context")
