"""Reports and maps from a file: what is taken can be shown, and nothing in it steers."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz_counts import put_through
from fuzz_values import TEXTS, fuzz, texts_of
from hypothesis import example, given
from hypothesis import strategies as st

from lmstrix.models import ContextMap, ContextReport
from lmstrix.reports.html import render_html
from lmstrix.reports.markdown import render_markdown
from lmstrix.reports.text import render_map, render_text
from lmstrix.reports.words import dump_report
from lmstrix.serialize import FormatError, load_report, to_json
from lmstrix.testing.samples import sample_map, sample_report
from lmstrix_cli.results import read_maps

REPORT = json.loads(dump_report(sample_report()))
MAP = json.loads(to_json(sample_map()))
POINT = REPORT["curve"][0]
CELL = MAP["layers"][0]["cells"][0]


def check(text: str) -> None:
    """Nothing but line breaks steers: see `lmstrix.reports.words`."""
    steering = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    found = {char for char in text if unicodedata.category(char) in steering}
    assert found <= {"\n"}, found


def _changed_report(**changes: object) -> str:
    return json.dumps({**REPORT, **changes})


def _changed_map(**changes: object) -> str:
    return json.dumps({**MAP, **changes})


def _shown(report: ContextReport, width: int) -> bool:
    check(render_text(report, width=width))
    check(render_markdown([report]))
    check(render_html([report, report]))
    return True


@fuzz
@given(texts_of(REPORT), st.sampled_from([-1, 0, 40, 80, 10_000]))
@example(_changed_report(curve=[{**POINT, "passes": 2**100, "trials": 1}]), 80)
@example(_changed_report(curve=[{**POINT, "passes": 1, "trials": -1}]), 80)
@example(_changed_report(model={**REPORT["model"], "size_bytes": 10**400}), 80)
def test_reports(text: str, width: int) -> None:
    report = put_through("report", lambda: load_report(text), FormatError)
    if report is not None:
        assert put_through("report, shown", lambda: _shown(report, width))


@fuzz
@given(TEXTS, TEXTS, TEXTS)
def test_texts_in_reports(key: str, engine: str, note: str) -> None:
    given = json.loads(json.dumps(REPORT))
    given["model"] |= {"key": key, "path": note, "architecture": engine, "quantization": note}
    given["environment"] |= {"engine": engine, "versions": {note: key}, "adapter": key}
    given["method"] |= {"strategy": note, "validator": engine, "levels": [key, note]}
    given["levels"][0]["name"] = note
    report = load_report(json.dumps(given | {"notes": [note, engine]}))
    assert put_through("report, shown", lambda: _shown(report, 80))


def _read_map(text: str) -> list[ContextMap]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "map.json")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        found = put_through("map", lambda: read_maps([str(path)]), FormatError)
    return found or []


def _map_shown(found: ContextMap) -> bool:
    check(render_map(found))
    check(render_markdown([], [found]))
    check(render_html([], [found]))
    return True


@fuzz
@given(texts_of(MAP))
@example(_changed_map(ratio=2.0))
@example(_changed_map(layers=[{"name": "recall", "cells": [{**CELL, "trials": -1}]}]))
def test_maps(text: str) -> None:
    for found in _read_map(text):
        assert put_through("map, shown", lambda found=found: _map_shown(found))
