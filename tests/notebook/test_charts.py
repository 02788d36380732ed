"""Charts in a notebook: they need no network and no other package."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from lmstrix.notebook import Drawing, plot_map, plot_report
from lmstrix.testing.samples import sample_map, sample_model, sample_report

HOSTILE = "</script><script>alert(1)</script>"
MODEL = sample_model(key=HOSTILE)


@pytest.mark.parametrize(
    ("drawing", "said"),
    [
        (plot_report(sample_report(model=MODEL)), "6,400 tokens: 5 of 10"),
        (plot_map(sample_map(model=MODEL)), "512 tokens, depth 0 to 10%: 100%"),
    ],
)
def test_a_chart_is_a_drawing_that_loads_nothing(drawing: Drawing, said: str) -> None:
    page = drawing._repr_html_()  # pyright: ignore[reportPrivateUsage] - as a notebook calls it
    assert not re.search(r"<script|https?:|url\(", page)
    [svg] = re.findall(r'(?s)<svg viewBox="0 0 4.*?</svg>', page)
    ET.fromstring(svg)
    assert said in svg


def test_a_report_without_lengths_still_says_the_answer() -> None:
    page = plot_report(sample_report(curve=(), bracket=(0, None), true_context=None))
    assert "not measured" in page
    assert "<svg" not in page
