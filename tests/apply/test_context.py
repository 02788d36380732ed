"""Which measurement counts, and how many tokens it makes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import attrs
import pytest

from lmstrix.apply import caveats, choose_report, find_model, ollama_modelfile, recommended_context
from lmstrix.errors import ConfigurationError, ModelNotFound, NotMeasured
from lmstrix.models import Cause, StoredReport
from lmstrix.names import reports_of
from lmstrix.reports.words import next_command
from lmstrix.testing.samples import sample_model, sample_report


def stored(key: str = "a/m", path: str = "", **changes: Any) -> StoredReport:
    report = sample_report(model=sample_model(key=key, path=path), **changes)
    return StoredReport(id="1", key="k", report=report)


def test_the_newest_finished_one_counts() -> None:
    spent = stored(true_context=512, cause=Cause.BUDGET_SPENT)
    reports = [spent, stored(true_context=4096), stored(true_context=8192)]
    for name in ("a/m", "m"):
        assert choose_report(reports, name).true_context == 4096
    [newer] = caveats(reports, choose_report(reports, "m"))
    assert "budget spent" in newer


def test_a_limit_of_the_users_own_hides_no_larger_result() -> None:
    capped = stored(true_context=3072, cause=Cause.MAX_CONTEXT)
    reports = [capped, stored(true_context=8192), stored(true_context=9000)]
    assert choose_report(reports, "m").true_context == 8192
    assert choose_report([capped, stored(true_context=1024)], "m").true_context == 3072
    # So its report names the number.
    assert next_command(capped.report).endswith("--cap 3072 a/m")


def test_a_quick_result_does_not_take_the_place_of_a_full_one() -> None:
    method = attrs.evolve(sample_report().method, quick=True)
    reports = [stored(true_context=3072, method=method), stored(true_context=8192)]
    assert choose_report(reports, "m").true_context == 8192
    assert choose_report(reports[:1], "m").true_context == 3072


def test_any_path_of_a_file_means_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reports = [stored(key="x.gguf", path=str(tmp_path / "x.gguf"))]
    for name in ("x.gguf", str(tmp_path / "x.gguf"), "./x.gguf"):
        assert find_model(reports, name).key == "x.gguf"


def test_files_of_one_key_are_told_apart(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    theirs = stored(key="m.gguf", path=str(tmp_path / "theirs" / "m.gguf"), true_context=8192)
    older = stored(key="../mine/m.gguf", path=str(tmp_path / "mine/../mine/m.gguf"))
    mine = stored(key="m.gguf", path=str(tmp_path / "mine" / "m.gguf"), true_context=4096)
    reports = [theirs, mine, older]
    for name in ("m.gguf", "./m.gguf", "../mine/m.gguf", str(tmp_path / "mine" / "m.gguf")):
        assert reports_of(reports, name) == [mine.report, older.report]
    assert choose_report(reports, "m.gguf") is mine.report
    assert not any("newer" in note for note in caveats(reports, mine.report))
    # What was measured elsewhere has its key alone.
    assert choose_report([theirs], "m.gguf") is theirs.report


def test_an_unmeasured_file_has_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("one", "two", "three", "empty"):
        (tmp_path / folder).mkdir()
        if folder != "empty":
            (tmp_path / folder / "m.gguf").write_text(folder)
    one, two = (
        stored(key="m.gguf", path=str(tmp_path / folder / "m.gguf")) for folder in ("one", "two")
    )
    monkeypatch.chdir(tmp_path / "three")
    with pytest.raises(NotMeasured):
        reports_of([one, two], "m.gguf")
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ModelNotFound, match="2 files"):
        reports_of([one, two], "m.gguf")
    assert reports_of([one], "m.gguf") == [one.report]


@pytest.mark.parametrize("name", ["", "other", "a", "a/", "../m", "x\0.gguf"])
def test_what_was_not_measured_says_so(name: str) -> None:
    with pytest.raises(NotMeasured, match="has not been measured yet") as caught:
        choose_report([stored()], name)
    assert caught.value.hint


def test_one_name_for_two_models_is_no_name() -> None:
    with pytest.raises(ModelNotFound, match="any of 2 models: a/m, b/m"):
        choose_report([stored(), stored(key="b/m")], "m")


def test_an_unfinished_measurement_is_not_applied() -> None:
    reports = [stored(true_context=4096, cause=Cause.INTERRUPTED)]
    with pytest.raises(NotMeasured, match="ended with 'interrupted'") as caught:
        choose_report(reports, "m")
    assert "lmstrix test a/m" in caught.value.hint
    assert find_model(reports, "m").key == "a/m"
    with pytest.raises(NotMeasured) as caught:  # it ended: the same once more would not help
        choose_report([stored(true_context=None, cause=Cause.NOT_MEASURABLE)], "m")
    assert "Finish" not in caught.value.hint
    assert caught.value.hint.endswith("lmstrix report --format md a/m")


@pytest.mark.parametrize(
    ("key", "quoted"), [("$(touch x)", "'$(touch x)'"), ("-a b", "-- '-a b'"), ("-m", "-- -m")]
)
def test_a_name_in_a_command_is_quoted(key: str, quoted: str) -> None:
    for cause in (Cause.INTERRUPTED, Cause.NOT_MEASURABLE):
        with pytest.raises(NotMeasured) as caught:
            choose_report([stored(key=key, cause=cause)], key)
        assert caught.value.hint.endswith(f" {quoted}")


@pytest.mark.parametrize(
    ("true", "percent", "cap", "expected"),
    [
        *((true, 100, None, true) for true in (131072, 131071, 2240, 256)),
        (10000, 80, None, 7936),
        (10000, 12.5, None, 1024),
        (10000, 100, 9000, 9000),
        (10000, 100, 65536, 10000),
        (10000, 99, 65536, 9728),
    ],
)
def test_the_recommended_context(true: int, percent: float, cap: int | None, expected: int) -> None:
    assert recommended_context(true, percent=percent, cap=cap) == expected


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        *(({"percent": percent}, r"\w") for percent in (0, -1, 100.1, 10**400, math.nan, math.inf)),
        ({"percent": 1}, "too little"),
        ({"cap": 0}, r"\w"),
    ],
)
def test_odd_wishes_are_refused(wanted: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        recommended_context(8192, **wanted)


def test_nothing_is_made_of_nothing() -> None:
    with pytest.raises(NotMeasured, match="0 tokens"):
        recommended_context(0)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/models/m.gguf", "/models/m.gguf"),
        ("/my models/m.gguf", '"/my models/m.gguf"'),
        *((path, "NAME-OF-YOUR-MODEL") for path in ("pub/repo/m.gguf", "/models/mlx", "")),
        *(
            (path, "NAME-OF-YOUR-MODEL")
            for path in ("/m\nSYSTEM x.gguf", '/m".gguf', "/m\u2028.gguf")
        ),
    ],
)
def test_ollama(path: str, source: str) -> None:
    text = ollama_modelfile(sample_model(path=path), 6144)
    assert text == f"FROM {source}\nPARAMETER num_ctx 6144"
