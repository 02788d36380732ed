"""Charts of reports and maps, as altair hands them to a browser."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from lmstrix.models import Cause, CurvePoint, Proportion, Verdict
from lmstrix.notebook import plot_map, plot_report
from lmstrix.testing.samples import sample_map, sample_model, sample_report

HOSTILE = "</script><script>alert(1)</script>"


def values(spec: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The rows of each data set."""
    return list(spec["datasets"].values())


def marks(spec: dict[str, Any]) -> list[str]:
    return [layer["mark"]["type"] for layer in spec["layer"]]


def test_a_report_shows_intervals_points_bracket_and_what_passes() -> None:
    spec = plot_report(sample_report()).to_dict()
    assert marks(spec) == ["rect", "rule", "rule", "point"]
    assert [{"length": 6144, "end": 6400}] in values(spec)
    assert [{"rate": 0.85}] in values(spec)
    points = next(rows for rows in values(spec) if len(rows) == 2)
    assert [(p["length"], p["low"], p["rate"], p["high"]) for p in points] == [
        (6144, 0.72, 1.0, 1.0),
        (6400, 0.24, 0.5, 0.76),
    ]
    assert spec["title"]["text"] == "true context 6144: forgets the start"
    assert "the first tenth is lost from 6,400 tokens on" in str(spec["title"]["subtitle"])
    axes = {layer["encoding"]["x"]["title"] for layer in spec["layer"] if "x" in layer["encoding"]}
    assert axes == {"prompt and reply, tokens (logarithmic)"}


def test_where_nothing_failed_there_is_a_line_and_no_band() -> None:
    spec = plot_report(sample_report(bracket=(6144, None))).to_dict()
    assert marks(spec)[0] == "rule"
    assert "no failure is known" in str(spec["title"])


def test_a_crash_is_not_drawn_as_wrong_answers() -> None:
    crash = CurvePoint(
        length_tokens=7168,
        trials=0,
        passes=0,
        verdict=Verdict.FAIL,
        wilson=Proportion(low=0, high=1),
        failure=Cause.CRASHED_ON_FILL,
    )
    spec = plot_report(sample_report(curve=(*sample_report().curve, crash))).to_dict()
    points = next(rows for rows in values(spec) if len(rows) == 3)
    assert [p["verdict"] for p in points] == ["passed", "failed", "engine failed"]
    assert points[-1]["answers"] == "crashed on fill"
    scales = [layer["encoding"]["color"]["scale"] for layer in spec["layer"][-2:]]
    assert all("engine failed" in scale["domain"] for scale in scales)


def test_a_report_without_lengths_has_a_chart_still() -> None:
    spec = plot_report(sample_report(curve=(), bracket=(0, None), true_context=None)).to_dict()
    assert "true context unknown" in spec["title"]["text"]


def test_a_map_has_a_drawing_for_each_layer() -> None:
    spec = plot_map(sample_map()).to_dict()
    [rows] = values(spec)
    assert [(r["layer"], r["length"], r["depth"], r["score"]) for r in rows] == [
        ("recall", 512, 0, 1.0),
        ("recall", 512, 90, 1.0),
        ("recall", 1024, 0, 0.0),
        ("recall", 1024, 90, 0.5),
    ]
    assert spec["encoding"]["column"]["field"] == "layer"


def test_untrusted_text_ends_no_script_of_a_saved_page() -> None:
    model = sample_model(key=HOSTILE)
    charts = plot_report(sample_report(model=model)), plot_map(sample_map(model=model))
    for chart in charts:
        assert "<script>alert" not in chart.to_html()


def test_without_altair_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    for draw in (lambda: plot_report(sample_report()), lambda: plot_map(sample_map())):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'lmstrix\[notebook\]'"):
            draw()
