"""The plain-text report."""

from __future__ import annotations

import shlex

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmstrix.models import Baseline, Cause, CurvePoint, Environment, Interval, Proportion, Verdict
from lmstrix.notebook import report_table
from lmstrix.reports.markdown import render_markdown
from lmstrix.reports.text import render_text
from lmstrix.reports.words import (
    CAUSE_SENTENCES,
    escape_controls,
    repeat_command,
    say_bytes,
    say_seconds,
    say_verdict,
)
from lmstrix.testing.samples import sample_model, sample_report


def test_the_three_numbers_and_the_evidence() -> None:
    text = render_text(sample_report())
    for expected in (
        "sample/model-135m (gguf, llama, 135M, Q4_1, 98.0 MB)",
        "declared 8192",
        "loadable 8192",
        "true 6144",
        "cause: forgets.",
        "certified: yes",
        "6144 works, 6400 does not",
        "95% interval: 5888 to 6400",
        "10 of 10 correct at 512 tokens",
        "72 to 100%",
        "[##########]",
        "[#####.....]",
        "forgets at 6400, correct answers by region: head 0 of 5.",
        "note: The head of the document",
        "2 loads, 15000 prompt tokens read, 40000 reused from cache, 300 generated",
        "--seed 7",
    ):
        assert expected in " ".join(text.split())
    assert "not monotone" not in text


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (8192, "interval: 5888 to more than 8192."),
        (5888, "at least 5888."),
        (None, "at least 5888."),
    ],
)
def test_an_interval_without_an_end_says_how_far_was_tried(loaded: int | None, said: str) -> None:
    interval = Interval(low=5888, high=None, level=0.9)
    report = attrs.evolve(sample_report(), interval=interval, loadable_context=loaded)
    assert said in render_text(report)
    assert said in render_markdown([report])


def test_every_cause_has_its_own_sentence() -> None:
    assert set(CAUSE_SENTENCES) == set(Cause)
    assert len(set(CAUSE_SENTENCES.values())) == len(Cause)
    for cause in Cause:
        assert f"cause: {cause.replace('_', ' ')}." in render_text(sample_report(cause=cause))


def test_a_partial_report_does_not_claim_a_limit() -> None:
    text = render_text(
        sample_report(cause=Cause.INTERRUPTED, certified=False, bracket=(6144, None))
    )
    assert "works so far" in text
    assert "longer prompts are undecided" in text
    assert "certified: no" in text


def test_a_model_that_was_not_measured_at_all() -> None:
    report = sample_report(
        model=sample_model(
            format="", architecture="", parameters="", quantization="", size_bytes=0
        ),
        declared_context=None,
        loadable_context=None,
        true_context=None,
        cause=Cause.MODEL_NOT_FOUND,
        certified=False,
        bracket=(0, None),
        interval=Interval(low=0, high=None, level=0.0),
        baseline=Baseline(passes=0, trials=0),
        curve=(),
    )
    text = render_text(report)
    assert text.startswith("sample/model-135m\n\ndeclared unknown")
    assert "true unknown" in text
    assert "bracket" not in text
    assert "certified" not in text


def test_hard_failures_and_holes_are_shown() -> None:
    crash = CurvePoint(
        length_tokens=1024,
        trials=0,
        passes=0,
        verdict=Verdict.FAIL,
        wilson=Proportion(low=0, high=1),
        failure=Cause.CRASHED_ON_FILL,
    )
    report = sample_report(curve=(*sample_report().curve, crash), monotone=False)
    text = render_text(report)
    table = text[text.index("  length") :].splitlines()
    assert [row.split()[0] for row in table[1:4]] == ["1024", "6144", "6400"]
    assert table[1].split() == ["1024", "-", "-", "failed", "-", "-", "crashed", "on", "fill"]
    assert "at 6400: 1 reply was inconclusive and not counted." in text
    assert "not monotone" in text


def test_times_of_cached_prompts_do_not_stand_beside_times_of_fresh_ones() -> None:
    fresh, other = sample_report().curve
    cached = attrs.evolve(other, ttft_s=2.5, full_ttft_s=None)
    report = sample_report(curve=(attrs.evolve(fresh, ttft_s=1.5, full_ttft_s=9.75), cached))
    for text in (render_text(report), render_markdown([report]), report_table(report)):
        assert "9.75 s" in text
        assert "2.50 s" not in text
    nothing_fresh = sample_report(curve=(cached,))
    assert "2.50 s" in render_text(nothing_fresh)


def test_gibberish_is_not_called_forgetting() -> None:
    point = attrs.evolve(sample_report().curve[1], failure=Cause.GIBBERISH)
    text = render_text(sample_report(curve=(point,)))
    assert "gibberish at 6400, correct answers by region: head 0 of 5" in text
    assert "forgets at 6400" not in text


def test_no_answers_are_undecided() -> None:
    assert say_verdict(Verdict.UNDECIDED, passes=0, trials=0) == "undecided"
    assert say_verdict(Verdict.UNDECIDED, passes=2, trials=2) == "all correct"


@pytest.mark.parametrize("width", [1, 40, 60, 80, 200])
def test_no_line_is_wider_than_asked_except_the_command(width: int) -> None:
    lines = render_text(sample_report(), width=width).splitlines()
    allowed = max(width, 40)
    wide = [line for line in lines if len(line) > allowed and not line.startswith("repeat: ")]
    shown = [line for line in wide if "  " not in line.strip()]  # numbers with their columns stay
    assert shown == [lines[0]][: len(shown)]
    if width >= 80:
        assert wide == []


def test_the_command_can_be_pasted_into_a_shell() -> None:
    report = sample_report(model=sample_model(key="-my model; rm $HOME"))
    words = shlex.split(repeat_command(report))
    assert words[:4] == ["lmstrix", "--adapter", "simulated", "test"]
    assert words[-2:] == ["--", "-my model; rm $HOME"]


def test_untrusted_text_is_escaped_everywhere() -> None:
    evil = "a\x1b[31m\r\nb\x07\u202e\ud800"
    report = sample_report(
        model=sample_model(key=evil, format=evil, quantization=evil),
        notes=(evil,),
        environment=Environment(adapter=evil, engine=evil, versions={evil: evil}),
    )
    text = render_text(report)
    assert not set("\x1b\r\x07\u202e\ud800") & set(text)
    assert "a\\x1b[31m\\x0d\\x0ab\\x07\\u202e\\ud800" in text


@given(st.text())
def test_escaped_text_is_printable_and_can_be_encoded(text: str) -> None:
    escaped = escape_controls(text)
    assert escape_controls(escaped) == escaped
    escaped.encode("utf-8")
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in escaped)


@given(st.text(), st.integers(0, 20))
def test_escaping_in_pieces_is_escaping(text: str, cut: int) -> None:
    assert escape_controls(text[:cut]) + escape_controls(text[cut:]) == escape_controls(text)


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Modell größer als 模型 🙂"
    assert escape_controls(text) == text
    assert escape_controls("a\nb", keep="\n") == "a\nb"


def test_quantities() -> None:
    assert [say_bytes(n) for n in (0, 999, 1500, 98_000_000, 2 * 10**12)] == [
        "",
        "999 B",
        "1.5 kB",
        "98.0 MB",
        "2.0 TB",
    ]
    assert [say_seconds(s) for s in (0.5, 12.34, 66.5, 3750, 200_000)] == [
        "0.50 s",
        "12.3 s",
        "1 min 06 s",
        "1 h 02 min",
        "2 days",
    ]


def test_a_load_that_was_not_exceeded_is_not_called_the_largest() -> None:
    assert "loadable 8192  loads; larger sizes were not tried" in render_text(sample_report())
    text = render_text(sample_report(loadable_context=7936))
    assert "loadable 7936  the largest context that loads" in text
