"""The page: complete, escaped, and it loads nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import attrs

from lmstrix.models import (
    Baseline,
    Cause,
    ContextMap,
    ContextReport,
    Cost,
    Environment,
    Interval,
    Layer,
    MapCell,
    ModelInfo,
)
from lmstrix.reports.compare import compare
from lmstrix.reports.html import render_comparison, render_fragment, render_html
from lmstrix.testing.samples import sample_map, sample_model, sample_report

EVIL = (
    "</style></title><script>alert(1)</script>\" onload='x' {{ 7*7 }} &amp;"
    " \x1b[31m\u202egpj.exe\ud800"
)
STEERING = set("\x1b\u202e\ud800")
NUMBERS = {"declared", "loadable", "true"}
VOID = {"meta", "link", "br"}


class Tree(HTMLParser):
    """The elements of a page, their attributes and text; every element has to be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def filled_map(**changes: Any) -> ContextMap:
    """One question right of two at every depth but one."""
    cells = tuple(
        MapCell(length_tokens=n, depth_bin=i, trials=2, passes=1, score=(10 - i) / 10)
        for n in (1024, 2048)
        for i in range(10)
        if i != 4
    )
    found = sample_map(lengths=(1024, 2048), layers=(Layer(name="recall", cells=cells),))
    return attrs.evolve(found, **changes)


def unmeasured() -> ContextReport:
    nothing = dict.fromkeys(("declared_context", "loadable_context", "true_context", "usable"))
    return sample_report(
        **nothing,
        **dict.fromkeys(("curve", "levels"), ()),
        model=ModelInfo(key="not-there"),
        cause=Cause.MODEL_NOT_FOUND,
        certified=False,
        bracket=(0, None),
        interval=Interval(low=0, high=None, level=0.0),
        baseline=Baseline(passes=0, trials=0),
        cost=Cost(),
    )


def test_every_drawing_says_what_it_shows_and_is_sound_xml() -> None:
    page = render_html([sample_report()], [filled_map()])
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) > 5
    for drawing in drawings:
        root = ET.fromstring(drawing)
        if root.get("aria-hidden") == "true":
            continue
        assert root.get("role") == "img"
        assert root.get("aria-label")
        assert root[0].tag == "title"
        assert root[0].text
    [recall] = [d for d in drawings if 'aria-label="Correct answers by length: ' in d]
    assert "6,144 tokens: 10 of 10; 6,400 tokens: 5 of 10" in recall
    assert 'class="bracket"' in recall
    assert [c.split()[1] for c in re.findall(r'class="(dot \w+)"', recall)] == ["passed", "failed"]


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    tree = Tree(render_html([sample_report(), unmeasured()], [filled_map()]))
    names = {name for name, _ in tree.seen}
    assert not names & {"script", "iframe", "object", "embed", "img", "base", "form", "video"}
    for _, attributes in tree.seen:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert attributes.get("src") is None
        assert (attributes.get("href") or "#").startswith(("#model-", "data:,", "#"))
    assert {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    } in tree.having("meta")
    page = render_html([sample_report()])
    assert not re.findall(r"url\(|@import|http:|https:", page)


def test_untrusted_text_is_only_ever_text() -> None:
    report = sample_report(
        model=sample_model(key=EVIL, path=EVIL, format=EVIL, quantization=EVIL, digest=EVIL),
        notes=(EVIL,),
        environment=Environment(
            adapter=EVIL, engine=EVIL, versions={EVIL: EVIL}, load_config={EVIL: EVIL}
        ),
    )
    other = sample_report(model=sample_model(key=EVIL), method=attrs.evolve(report.method, seed=9))
    found = filled_map(
        model=report.model, notes=(EVIL,), layers=(attrs.evolve(filled_map().layers[0], name=EVIL),)
    )
    pages = (
        render_html([report, other], [found]),
        render_html([report], [filled_map()]),
        render_comparison(compare([report, other])),
        render_fragment(report, [found]),
    )
    shown = EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e").replace("\ud800", "\\ud800")
    for page in pages:
        page.encode()
        assert not STEERING & set(page)
        tree = Tree(page)
        assert tree.having("script") == []
        assert not [a for _, attributes in tree.seen for a in attributes if a == "onload"]
        assert shown in "".join(tree.text)


def test_several_models_get_an_overview_with_links_that_lead_somewhere() -> None:
    big = sample_report(
        model=sample_model(key="big"), declared_context=16384, loadable_context=None
    )
    tree = Tree(render_html([sample_report(), big, unmeasured()]))
    links = {(a["href"] or "")[1:] for a in tree.having("a")}
    places = [a["id"] for _, a in tree.seen if "id" in a]
    assert {"model-1", "model-2", "model-3", "top", "by-true", "by-size"} <= links <= set(places)
    assert len(places) == len(set(places))


def test_bars_are_in_proportion_but_ten_million_leave_room_for_the_others() -> None:
    tree = Tree(render_html([sample_report()]))
    one = {a["class"]: a["width"] for a in tree.having("rect") if a.get("class") in NUMBERS}
    assert one == {"declared": "100.0", "loadable": "100.0", "true": "75.0"}
    big = sample_report(model=sample_model(key="big"), declared_context=10_000_000)
    tree = Tree(render_html([sample_report(), big]))
    widths = [float(a["width"] or 0) for a in tree.having("rect") if a.get("class") == "declared"]
    assert min(widths) > 25
    assert max(widths) == 100


def test_a_comparison_of_many_says_each_thing_once_in_tables_that_fit_a_page() -> None:
    reports = [sample_report(model=sample_model(key=f"m{n}", size_bytes=n)) for n in range(1, 7)]
    page = render_comparison(compare(reports))
    heads = [re.findall(r"<th[^>]*>(.*?)</th>", head) for head in re.findall("<thead>.*", page)]
    assert max(map(len, heads)) <= 10
    names = [re.sub("<.*?>", "", name).strip() for head in heads for name in head[1:]]
    assert len(names) == len(set(names))
    assert {"declared", "certified", "bracket", "region head", "tokens read"} <= set(names)


def test_a_model_that_was_not_measured_has_no_drawings_but_says_why() -> None:
    page = render_html([unmeasured()])
    words = Tree(page).words()
    assert "The model was not found." in words
    assert "Correct answers" not in words
    assert "certified" not in words


def test_the_fragment_touches_nothing_around_it() -> None:
    fragment = render_fragment(sample_report())
    tree = Tree(fragment)
    assert tree.seen[0] == ("div", {"class": "lmstrix"})
    assert not [a for _, attributes in tree.seen for a in attributes if a == "id"]
    [style] = re.findall(r"<style>(.*?)</style>", fragment, re.DOTALL)
    rules = re.findall(r"(?m)^\s*([^@{}\s][^{}]*)\{", style)
    assert len(rules) > 40
    for rule in rules:
        assert all(part.strip().startswith(".lmstrix") for part in rule.split(","))
