"""What every kind of report says of the regions of the window, of hung loads and of truncation."""

from __future__ import annotations

import html
import re
from typing import Any

import attrs
import pytest

from lmstrix.models import Cause, ContextReport, Region, RegionReport
from lmstrix.notebook import report_table
from lmstrix.reports.html import render_html
from lmstrix.reports.markdown import render_markdown
from lmstrix.reports.text import render_text
from lmstrix.testing.samples import sample_report

HEAD, EARLY, MIDDLE, LATE, TAIL = Region


def region(
    name: Region,
    limit: int | None,
    failed: int | None = None,
    cause: Cause | None = None,
) -> RegionReport:
    cause = cause or (Cause.DECLARED_MAXIMUM if failed is None else Cause.FORGETS)
    return RegionReport(region=name, limit_tokens=limit, bracket=(limit or 0, failed), cause=cause)


def report(*found: RegionReport, **changes: Any) -> ContextReport:
    """A report on these regions; a region that is not named works at 8192."""
    named = {one.region: one for one in found}
    return sample_report(regions=tuple(named.get(r, region(r, 8192)) for r in Region), **changes)


def shown(found: ContextReport) -> dict[str, str]:
    """The report in each form, as a reader sees it, with single blanks."""
    forms = {
        "text": render_text(found),
        "markdown": render_markdown([found]),
        "html": _visible(render_html([found])),
        "notebook": _visible(report_table(found)),
    }
    return {name: " ".join(text.split()) for name, text in forms.items()}


def _visible(page: str) -> str:
    page = re.sub(r"(?s)<style>.*?</style>", "", page)
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


def test_every_form_has_the_numbers_and_the_evidence() -> None:
    for form, text in shown(sample_report()).items():
        for number in ("8,192", "6,144", "6,400", "10 of 10", "5 of 10", "5,888", "72 to 100%"):
            assert number in text, form


CASES = {
    "one lost": (
        report(region(HEAD, 6656, 6912)),
        "the first tenth is lost from 6,912 tokens on; the rest still works at 8,192.",
    ),
    "two lost at one length": (
        report(region(EARLY, 6656, 6912), region(TAIL, 6400, 6912)),
        "the early part and the last tenth are lost from 6,912 tokens on; the rest still works",
    ),
    "two lost one after the other": (
        report(region(MIDDLE, 7168, 7424), region(HEAD, 6656, 6912)),
        "the first tenth is lost from 6,912 tokens on, the middle is lost from 7,424 tokens on;",
    ),
    "all lost alike": (
        report(*(region(r, 6000 + i, 6400 + i) for i, r in enumerate(Region))),
        "Forgets everywhere from 6,400 tokens on.",
    ),
    "nothing lost": (report(), "Every part of the window still works at 8,192."),
    "nothing lost before the budget was": (report(cause=Cause.BUDGET_SPENT), "at 8,192 so far."),
    "some were not asked about at longer lengths": (
        report(region(HEAD, 6656, 6912), region(LATE, 4096), region(MIDDLE, 4352)),
        "the middle and the late part were not asked about beyond 4,352.",
    ),
    "some fail on some texts only": (
        report(region(HEAD, 6656, 6912), region(EARLY, 6144, cause=Cause.FORGETS)),
        "the early part is undecided beyond 6,144.",
    ),
    "gibberish": (
        report(region(TAIL, 4096, 4352, Cause.GIBBERISH)),
        "answers about the last tenth are gibberish or missing from 4,352 tokens on;",
    ),
    "gibberish where no other region was asked about": (
        report(
            region(LATE, 4096, 4352, Cause.GIBBERISH),
            *(region(r, 4096) for r in Region if r is not LATE),
        ),
        "Answers gibberish or nothing from 4,352 tokens on.",
    ),
    "dropped by the server": (
        report(region(MIDDLE, 4096, 4352, Cause.TRUNCATED)),
        "the middle is dropped from 4,352 tokens on; the rest still works at 8,192.",
    ),
    "an engine that fails loses no region": (
        report(*(region(r, 4096, 4352, Cause.CRASHED_ON_FILL) for r in Region)),
        "Every part of the window still works at 4,096.",
    ),
}


@pytest.mark.parametrize(("found", "said"), CASES.values(), ids=CASES)
def test_a_sentence_says_which_part_of_the_window_is_lost(found: ContextReport, said: str) -> None:
    for form, text in shown(found).items():
        assert said in text, form


def test_each_region_has_its_limit_in_a_table_unless_all_are_alike() -> None:
    for form, text in shown(report(region(HEAD, 6656, 6912), region(LATE, None))).items():
        cells = " ".join(text.replace("|", " ").split())
        assert "head 0 to 10% 6,656 6,912 forgets" in cells, form
        assert "late 65 to 90% - - declared maximum" in cells, form
    for form, text in shown(report()).items():
        cells = " ".join(text.replace("|", " ").split())
        assert "all 0 to 100% 8,192 - declared maximum" in cells, form
        assert "0 to 10%" not in cells, form


@pytest.mark.parametrize(
    ("cause", "loadable", "said"),
    [
        (Cause.LOAD_FAILED, 8192, "8,192 works, 9,216 does not load."),
        (Cause.LOAD_REFUSED, 8192, "8,192 works, 9,216 was not loaded."),
        (Cause.LOAD_HUNG, None, "8,192 works, 9,216 does not load."),
        (Cause.BUDGET_SPENT, 8192, "8,192 works, 9,216 does not load."),
        (Cause.CLAMPED, 8192, "8,192 works, 9,216 loads smaller than asked."),
        (Cause.CRASHED_ON_FILL, 16384, "8,192 works, 9,216 does not."),
    ],
)
def test_the_bracket_says_how_it_ended(cause: Cause, loadable: int | None, said: str) -> None:
    found = report(bracket=(8192, 9216), cause=cause, loadable_context=loadable)
    for form, text in shown(found).items():
        assert said in text, form


@pytest.mark.parametrize(
    ("found", "said", "unsaid"),
    [
        (
            sample_report(regions=(), method=attrs.evolve(sample_report().method, average=True)),
            "Averaged over the window: this can hide a lost region.",
            "works up to",
        ),
        (sample_report(regions=()), "Claims 8,192 tokens", "part of the window"),
        (report(true_context=None, cause=Cause.NOT_MEASURABLE), "not measured", "still works at"),
        (
            report(bracket=(8192, 9216), cause=Cause.LOAD_HUNG),
            "A load of 9,216 tokens made no",
            "?",
        ),
        (report(cause=Cause.INTERRUPTED, bracket=(6144, None)), "at least 6,144", "6,400 does not"),
    ],
)
def test_no_form_says_more_than_is_known(found: ContextReport, said: str, unsaid: str) -> None:
    for form, text in shown(found).items():
        assert said in text, form
        assert unsaid not in text, form


@pytest.mark.parametrize("cause", [Cause.LOAD_REFUSED, Cause.LOAD_FAILED, Cause.LOAD_HUNG])
def test_where_nothing_loads_no_larger_context_is_blamed(cause: Cause) -> None:
    found = report(bracket=(0, None), cause=cause, loadable_context=None)
    for form, text in shown(found).items():
        assert "larger context" not in text, form
