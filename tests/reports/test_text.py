from __future__ import annotations

import html
import json
import shlex
from typing import Any

import attrs
import pytest

from lmstrix.models import (
    Cause,
    ContextReport,
    CurvePoint,
    Environment,
    Interval,
    Proportion,
    Region,
    Verdict,
)
from lmstrix.notebook import report_table
from lmstrix.reports.html import render_html
from lmstrix.reports.markdown import render_markdown
from lmstrix.reports.text import render_text
from lmstrix.reports.words import (
    CAUSE_SENTENCES,
    continue_command,
    dump_report,
    repeat_command,
    say_summary,
    say_verdict,
)
from lmstrix.serialize import load_report
from lmstrix.testing.samples import sample_model, sample_report


@pytest.mark.parametrize(
    ("loaded", "said"),
    [
        (8192, "interval: 5,888 to more than 8,192."),
        (5888, "at least 5,888."),
        (None, "at least 5,888."),
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


@pytest.mark.parametrize("cause", [Cause.NOT_MEASURABLE, Cause.LOAD_REFUSED, Cause.INFRASTRUCTURE])
def test_the_reason_is_said_once(cause: Cause) -> None:
    report = sample_report(cause=cause, true_context=None, loadable_context=None)
    reason = say_summary(report).partition("not measured. ")[2]
    assert reason
    for text in (render_text(report, width=500), render_html([report]), render_markdown([report])):
        assert html.unescape(text).count(reason) == 1


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
    assert [row.split()[0] for row in table[1:4]] == ["1,024", "6,144", "6,400"]
    assert table[1].split() == ["1,024", "-", "-", "failed", "-", "-", "crashed", "on", "fill"]
    assert "at 6,400: 1 reply was inconclusive and not counted." in text
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


@pytest.mark.parametrize("failure", [None, Cause.GIBBERISH])
def test_gibberish_is_not_called_forgetting(failure: Cause | None) -> None:
    point = attrs.evolve(sample_report().curve[1], failure=failure)
    text = render_text(sample_report(curve=(point,), cause=Cause.GIBBERISH, regions=()))
    assert "at 6,400, correct answers by region: head 0 of 5" in text
    assert "forgets" not in text.partition("levels")[0]
    assert "gibberish or nothing" in text


def test_a_verdict_is_one_of_three_words_and_undecided_is_explained_once() -> None:
    curve = tuple(
        attrs.evolve(point, passes=2, trials=2, verdict=Verdict.UNDECIDED, depths=())
        for point in sample_report().curve
    )
    report = sample_report(curve=curve)
    for text in (render_text(report), render_html([report])):
        assert text.count("undecided: too few answers") == 1
    assert "undecided" not in render_text(sample_report())
    assert {say_verdict(verdict) for verdict in Verdict} == {"passed", "failed", "undecided"}


def found(cause: Cause, **changes: Any) -> ContextReport:
    return sample_report(cause=cause, **changes)


HEAD = attrs.evolve(sample_report().regions[0])
UNLOADED: dict[str, Any] = {
    **dict.fromkeys(("loadable_context", "true_context")),
    **dict.fromkeys(("curve", "regions"), ()),
    "bracket": (0, None),
}
SUMMARIES = [
    (found(Cause.FORGETS), "reliable up to 6,144. Beyond that it forgets the beginning"),
    (
        found(Cause.FORGETS, regions=tuple(attrs.evolve(HEAD, region=r) for r in Region)),
        "it forgets facts anywhere in the prompt.",
    ),
    (
        found(Cause.GIBBERISH, declared_context=None),
        "Declares no context length; reliable up to 6,144.",
    ),
    (found(Cause.DECLARED_MAXIMUM, true_context=8192), "reliable up to 8,192. Nothing failed."),
    (found(Cause.BUDGET_SPENT), "Claims 8,192 tokens; reliable to at least 6,144."),
    (found(Cause.LOAD_REFUSED, **UNLOADED), "Claims 8,192 tokens; not measured."),
    (found(Cause.MODEL_NOT_FOUND, **UNLOADED, declared_context=None), "Not measured."),
]


@pytest.mark.parametrize(("report", "said"), SUMMARIES)
def test_the_answer_comes_first_everywhere(report: ContextReport, said: str) -> None:
    summary: str = json.loads(dump_report(report))["summary"]
    assert said in summary
    assert summary in " ".join(render_text(report).split()).partition("declared")[0]
    assert f'<p class="summary">{summary}</p>' in html.unescape(render_html([report]))
    assert summary in html.unescape(report_table(report))
    assert summary in render_markdown([report]).replace("\\", "")
    assert load_report(dump_report(report)) == report


def test_it_says_what_to_do_next_with_this_server() -> None:
    said = "To use 6,144 tokens: lmstrix apply sample/model-135m"
    assert said in render_text(sample_report())
    assert said in render_html([sample_report()])
    kept = render_text(sample_report(), options=["--host", "h:1", "--store", "my store"])
    assert "tokens: lmstrix --store 'my store' apply sample/model-135m" in kept
    assert "lmstrix apply" not in render_text(sample_report(cause=Cause.INTERRUPTED))
    report = sample_report(model=sample_model(key="m"))
    for adapter in ("ollama", "llama-server"):
        text = render_text(attrs.evolve(report, environment=Environment(adapter=adapter)))
        assert f"tokens: lmstrix apply --for {adapter} m\n" in text
    report = attrs.evolve(report, environment=Environment(adapter="openai"))
    assert "lmstrix apply" not in render_text(report)


def test_a_best_guess_is_shown_only_if_the_bracket_is_wide() -> None:
    for bracket, estimate, shown in (
        ((6144, 6400), 6272, False),
        ((6144, 8192), 7000, True),
        ((6144, 8192), 5000, False),
    ):
        text = render_markdown([sample_report(bracket=bracket, estimate=estimate)])
        assert (f"Best guess: {estimate:,}." in text) is shown


def test_the_command_can_be_pasted_into_a_shell() -> None:
    report = sample_report(model=sample_model(key="-my model; rm $HOME"))
    words = shlex.split(repeat_command(report))
    assert words[:4] == ["lmstrix", "--adapter", "simulated", "test"]
    assert words[-2:] == ["--", "-my model; rm $HOME"]


def test_a_number_in_a_command_has_no_exponent() -> None:
    method = attrs.evolve(sample_report().method, tolerance=5e-05, ratio=0.9)
    report = sample_report(method=method, cause=Cause.BUDGET_SPENT)
    for command in (repeat_command(report), continue_command(report)):
        assert "--tolerance 0.00005 --ratio 0.9 " in command


@pytest.mark.parametrize(
    ("changes", "goes_on"),
    [({}, False), ({"cause": Cause.BUDGET_SPENT}, True), ({"quick": True}, True)],
)
def test_what_can_be_continued_says_how(changes: dict[str, Any], *, goes_on: bool) -> None:
    method = attrs.evolve(sample_report().method, quick=changes.pop("quick", False))
    text = render_text(sample_report(method=method, **changes))
    told = [line for line in text.splitlines() if line.startswith("continue: ")]
    assert bool(told) == goes_on
    assert not any("--fresh" in line or "--quick" in line for line in told)


def test_a_load_that_was_not_exceeded_is_not_called_the_largest() -> None:
    assert "loadable  8,192  all that it declares" in render_text(sample_report())
    method = attrs.evolve(sample_report().method, max_context=7936)
    for changes, said in (
        ({}, "loadable 7,936 the largest context that loads"),
        ({"method": method}, "loadable at least 7,936 not tried further"),
    ):
        text = render_text(sample_report(loadable_context=7936, **changes))
        assert said in " ".join(text.split())
    nothing = sample_report(loadable_context=None, true_context=None, cause=Cause.LOAD_FAILED)
    assert "loadable none no size was loaded" in " ".join(render_text(nothing).split())
