"""Reports and comparisons as Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from itertools import pairwise

import attrs
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from lmstrix.models import Cause, Environment
from lmstrix.reports.compare import compare, comparison_csv, comparison_json
from lmstrix.reports.markdown import (
    MARKER,
    code_block,
    code_span,
    escape_markdown,
    render_comparison_markdown,
    render_markdown,
)
from lmstrix.testing.samples import sample_model, sample_report

EVIL = "a|b `c` ``d`` <script>x</script> [e](http://f) *g* ![h](i) \x1b[31m\u202e"
PARSER = MarkdownIt("commonmark").enable("table")


def flat(text: str) -> list[Token]:
    """Every token, those inside of others too."""
    found: list[Token] = []
    for token in PARSER.parse(text):
        found += [token, *(token.children or ())]
    return found


def cells(text: str) -> list[list[str]]:
    """The tables' rows as they are shown."""
    rows: list[list[str]] = []
    tokens = PARSER.parse(text)
    for before, token in pairwise(tokens):
        if before.type == "tr_open":
            rows.append([])
        if before.type in {"th_open", "td_open"}:
            rows[-1].append("".join(child.content for child in token.children or ()))
    return rows


def test_untrusted_text_is_only_ever_text() -> None:
    report = sample_report(
        model=sample_model(key=EVIL, format=EVIL),
        notes=(EVIL, "- x", "1. y", "www.z.example"),
        environment=Environment(adapter=EVIL, engine=EVIL, versions={EVIL: EVIL}),
    )
    text = render_markdown([report, sample_report()])
    text += render_comparison_markdown(compare([report, sample_report()]))
    assert not {"\x1b", "\u202e"} & set(text)
    tokens = flat(text)
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_inline", "link_open", "image", "em_open"}
    html = {token.content.strip() for token in tokens if token.type == "html_block"}
    assert html == {MARKER}
    assert {len(row) for row in cells(text)} <= {2, 3, 5, 6, 7}
    shown = EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert any(row[0] == shown for row in cells(text))


@given(st.text(st.characters(codec="utf-8") | st.sampled_from("`*_|<>[]()#-+.1!&~\\\n ")))
def test_escaped_text_shows_as_it_is(text: str) -> None:
    escaped = escape_markdown(text)
    tokens = flat(f"x {escaped}")
    assert {t.type for t in tokens} <= {
        "paragraph_open", "inline", "text", "text_special", "paragraph_close",
    }  # fmt: skip
    assert {t.type for t in PARSER.parse(escaped.strip())} <= {
        "paragraph_open", "inline", "paragraph_close",
    }  # fmt: skip


@given(st.text(st.sampled_from("`| ab\\")))
def test_code_shows_as_it_is(text: str) -> None:
    inside = [t.content for t in flat(f"x {code_span(text)} y") if t.type == "code_inline"]
    assert [" ".join(part.split()) for part in inside] == [" ".join(text.split())]
    [row] = cells(f"| {code_span(text, in_table=True)} |\n| --- |")
    assert " ".join(row[0].split()) == " ".join(text.split())
    [block] = [t for t in flat(code_block(text)) if t.type == "fence"]
    assert block.content == f"{text}\n"


def test_a_comparison_tells_what_differs_from_what_does_not() -> None:
    report = sample_report()
    other = attrs.evolve(
        report,
        true_context=4096,
        method=attrs.evolve(report.method, seed=9),
        environment=attrs.evolve(report.environment, versions={"lmstrix": "2.1.0"}),
    )
    compared = compare([report, other])
    rows = {row.label: row.values for row in compared.found}
    assert rows["true"] == ("6,144", "4,096")
    assert rows["region head"] == ("6,144", "6,144")
    assert rows["region tail"] == ("at least 8,192", "at least 8,192")
    assert rows["level coherence"] == ("at least 8,192", "at least 8,192")
    assert rows["correct at true"] == ("10 of 10", "-")
    differing = {row.label: row.values for row in compared.differing}
    assert differing == {"seed": ("7", "9"), "version of lmstrix": ("2.0.0", "2.1.0")}
    assert dict(compared.same)["strategy"] == "gallop"
    assert dict(compared.same)["loaded with threads"] == "2"
    assert compared.distinction(1) == "seed 9, version of lmstrix 2.1.0"
    text = render_comparison_markdown(compared)
    assert ["true", "6,144", "4,096"] in cells(text)
    assert ["seed", "7", "9"] in cells(text)


def test_what_was_not_tried_further_is_at_least_so_long() -> None:
    for cause, said in (
        (Cause.MAX_CONTEXT, "at least 6,144"),
        (Cause.BUDGET_SPENT, "at least 6,144"),
        (Cause.FORGETS, "6,144"),
    ):
        reports = [sample_report(cause=cause), sample_report(model=sample_model(key="other"))]
        assert cells(render_markdown(reports))[1][3] == said
        compared = compare(reports)
        assert {row.label: row.values for row in compared.found}["true"] == (said, "6,144")


def test_a_comparison_for_programs() -> None:
    report = sample_report()
    other = sample_report(model=sample_model(key='=HYPERLINK("x")', digest="y"), true_context=None)
    compared = compare([report, other])
    document = json.loads(comparison_json(compared))
    first, second = document["results"]
    assert (first["true_context"], first["passes"], first["levels"]["recall"]) == (6144, 10, 6144)
    assert (first["regions"]["head"], first["regions"]["tail"]) == (6144, 8192)
    assert first["settings"]["seed"] == "7"
    assert second["true_context"] is None
    assert document["same"]["strategy"] == "gallop"
    assert document["differs"] == {}
    rows = list(csv.DictReader(io.StringIO(comparison_csv(compared))))
    assert [row["true_context"] for row in rows] == ["6144", ""]
    assert rows[0]["level recall"] == rows[0]["region head"] == "6144"
    assert rows[0]["certified"] == "yes"
    assert rows[1]["model"] == '\'=HYPERLINK("x")'
