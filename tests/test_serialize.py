"""Reports and other facts as JSON: what comes back, what is refused and in which words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

from lmstrix.models import Cause, ContextReport, Trial, Verdict
from lmstrix.reports.words import dump_report
from lmstrix.serialize import FormatError, from_json, load_report, to_json
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

WRONG: dict[str, list[Any]] = {
    "true_context": ["6144", 6144.0, True],
    "certified": [1, "true"],
    "cause": ["no such cause", None, ["forgets"]],
    "bracket": [[1], [1, 2, 3], {"0": 1, "1": 2}, "12"],
    "notes": ["a text is not a list of texts", {"key": 1}, [1], None],
    "curve": [{}, [[]], [None]],
    "model": [[], None, "key"],
    "environment": [{"adapter": "a", "versions": v} for v in ([], "x", None, {"a": 1}, [["a"]])],
    "started_at": ["yesterday", "2026-01-02T03:04:05", 1_700_000_000],
    "schema_version": ["1", None],
}
METHOD = json.loads(dump_report(sample_report()))["method"]
POINT = json.loads(dump_report(sample_report()))["curve"][0]
IMPOSSIBLE: list[tuple[str, object, str]] = [
    ("declared_context", -5, "declared_context"),
    ("true_context", 2**70, "true_context"),
    ("true_context", 8193, "true_context"),
    ("loadable_context", 2**28 + 1, "true_context"),
    ("bracket", [5, 1], "bracket"),
    ("bracket", [-1, 5], "bracket[0]"),
    ("interval", {"low": 7, "high": 6, "level": 0.9}, "interval.high"),
    ("interval", {"low": 7, "high": 8, "level": 1.5}, "interval.level"),
    ("baseline", {"passes": 5, "trials": 4}, "baseline.passes"),
    ("finished_at", "9999-01-01T00:00:00+00:00", "finished_at"),
    ("cost", {"seconds": -1.0}, "cost.seconds"),
    ("usable", {"limit_tokens": -1}, "usable.limit_tokens"),
    ("method", {**METHOD, "ratio": -3.0}, "method.ratio"),
    ("method", {**METHOD, "ratio": 1.5}, "method.ratio"),
    ("method", {**METHOD, "tolerance": 0.0}, "method.tolerance"),
    ("curve", [{**POINT, "length_tokens": -1}], "curve[0].length_tokens"),
    ("curve", [{**POINT, "passes": 11}], "curve[0].passes"),
    ("curve", [POINT, {**POINT, "tokens_per_second": -0.5}], "curve[1].tokens_per_second"),
    ("curve", [{**POINT, "wilson": {"low": 0.9, "high": 0.2}}], "curve[0].wilson.high"),
    (
        "curve",
        [{**POINT, "depths": [{"region": "head", "passes": 0, "trials": 11}]}],
        "curve[0].depths",
    ),
    ("curve", [POINT, POINT], "curve"),
    (
        "regions",
        [{"region": "head", "limit_tokens": 1, "bracket": [2, 1], "cause": "forgets"}],
        "regions[0].bracket",
    ),
]
"""Values of the right type that no measurement gives, and the place that is named."""


def plain(report: ContextReport) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(dump_report(report))
    return value


@pytest.mark.parametrize(("name", "value", "place"), IMPOSSIBLE)
def test_impossible_values_have_their_place_named(name: str, value: object, place: str) -> None:
    changed = plain(sample_report()) | {name: value}
    with pytest.raises(FormatError) as caught:
        load_report(json.dumps(changed))
    assert f"Report: {place}: " in str(caught.value)


def test_a_report_round_trips() -> None:
    report = sample_report()
    text = dump_report(report)
    assert "\n" not in text
    assert "модель" in to_json(sample_model(key="модель"))  # readable text stays readable
    found = load_report(text)
    assert found == report
    assert type(found.cause) is Cause
    assert type(found.curve[0].verdict) is Verdict
    assert type(found.curve) is tuple
    assert type(found.bracket) is tuple
    assert found.started_at.utcoffset() == timedelta(0)
    assert found.method.max_context is None
    value = plain(report)
    value["cost"]["seconds"] = 66
    seconds = load_report(json.dumps(value)).cost.seconds
    assert (seconds, type(seconds)) == (66.0, float)  # a whole number is a number


def test_a_report_without_an_answer_round_trips() -> None:
    report = sample_report(
        **dict.fromkeys(("declared_context", "loadable_context", "true_context")),
        cause=Cause.INVALID_MODEL,
        bracket=(0, None),
        interval=attrs.evolve(sample_report().interval, high=None),
        curve=(),
        notes=(),
        started_at=datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    )
    assert load_report(dump_report(report)) == report


@pytest.mark.parametrize(("key", "wrong"), [(k, wrong) for k in WRONG for wrong in WRONG[k]])
def test_a_wrong_type_is_refused(key: str, wrong: object) -> None:
    with pytest.raises(FormatError):
        load_report(json.dumps({**plain(sample_report()), key: wrong}))


@pytest.mark.parametrize(
    "fact",
    [
        *(sample_trial(ttft_s=float(number)) for number in ("nan", "inf", "-inf")),
        sample_report(started_at=datetime(2026, 1, 1)),  # noqa: DTZ001 - on purpose
    ],
    ids=["nan", "inf", "-inf", "a time without its offset"],
)
def test_what_could_not_be_read_again_is_not_written(fact: object) -> None:
    with pytest.raises(FormatError):
        to_json(fact)


@pytest.mark.parametrize("text", ["", "{", "nul", "[" * 100_000, "1" * 5000, '{"a":}', "\ufeff{}"])
@pytest.mark.parametrize("kind", [ContextReport, Trial, Mapping[str, str]])
def test_what_is_not_json_is_refused(text: str, kind: type[Any]) -> None:
    with pytest.raises(FormatError):
        from_json(text, kind)


def test_missing_keys_are_refused_by_name_and_unknown_ones_tolerated() -> None:
    for key in ("model", "cause", "bracket", "curve", "started_at"):
        value = plain(sample_report())
        del value[key]
        with pytest.raises(FormatError, match=key):
            load_report(json.dumps(value))
    value = plain(sample_report())
    value["added_later"] = {"a": [1]}
    value["model"]["added_later"] = 1
    value["curve"][0]["added_later"] = None
    assert load_report(json.dumps(value)) == sample_report()


@pytest.mark.parametrize("shape", [{}, {"curve": "of another shape"}])
def test_a_newer_schema_is_refused_with_a_hint(shape: dict[str, object]) -> None:
    value = {**plain(sample_report()), "schema_version": 2, **shape}
    with pytest.raises(FormatError, match="newer") as caught:
        load_report(json.dumps(value))
    assert "Update" in caught.value.hint


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_what_is_not_a_number_is_not_read(literal: str) -> None:
    text = to_json(sample_trial(ttft_s=123.5)).replace("123.5", literal)
    with pytest.raises(FormatError):
        from_json(text, Trial)
