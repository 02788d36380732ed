"""Reports and maps from a file, and what is printed: nothing untrusted steers a terminal."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from fuzz_counts import put_through
from fuzz_values import NAMES, TEXTS, VALUES, check, fuzz, texts_of
from hypothesis import example, given
from hypothesis import strategies as st

from lmstrix.models import ContextMap, ContextReport
from lmstrix.reports.html import render_html
from lmstrix.reports.markdown import code_block, code_span, escape_markdown, render_markdown
from lmstrix.reports.text import render_map, render_text
from lmstrix.reports.words import REPLY_KEEPS, dump_report, escape_controls
from lmstrix.serialize import FormatError, load_report, to_json
from lmstrix.testing.samples import sample_map, sample_report
from lmstrix_cli import output
from lmstrix_cli.results import read_maps

REPORT = json.loads(dump_report(sample_report()))
MAP = json.loads(to_json(sample_map()))
POINT = REPORT["curve"][0]
CELL = MAP["layers"][0]["cells"][0]


def _sound(*texts: str) -> bool:
    return all(check(text, "\n") for text in texts)


def _shown(report: ContextReport, width: int = 80) -> bool:
    text = render_text(report, width=width)
    return _sound(text, render_markdown([report]), render_html([report, report]))


def _map_shown(found: ContextMap) -> bool:
    return _sound(render_map(found), render_markdown([], [found]), render_html([], [found]))


@fuzz
@given(texts_of(REPORT), st.sampled_from([-1, 0, 40, 80, 10_000]))
@example(json.dumps({**REPORT, "curve": [{**POINT, "passes": 2**100, "trials": 1}]}), 80)
@example(json.dumps({**REPORT, "curve": [{**POINT, "passes": 1, "trials": -1}]}), 80)
@example(json.dumps({**REPORT, "model": {**REPORT["model"], "size_bytes": 10**400}}), 80)
def test_reports(text: str, width: int) -> None:
    report = put_through("report", lambda: load_report(text), FormatError)
    if report is not None:
        assert put_through("report, shown", lambda: _shown(report, width))


@fuzz
@given(texts_of(MAP))
@example(json.dumps({**MAP, "ratio": 2.0}))
@example(json.dumps({**MAP, "layers": [{"name": "recall", "cells": [{**CELL, "trials": -1}]}]}))
def test_maps(text: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "map.json")
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        maps = put_through("map", lambda: read_maps([str(path)]), FormatError)
    for found in maps or []:
        assert put_through("map, shown", lambda found=found: _map_shown(found))


# What is printed ---------------------------------------------------------------------------------

ANY = NAMES | st.text(st.characters(), max_size=40) | st.lists(TEXTS, max_size=3).map("".join)
PAINT = re.compile(r"\x1b\[[0-9;]*m")


def printed(act: Callable[[], None], encoding: str = "utf-8") -> str:
    """What lands on a stdout and a stderr of that encoding."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, newline="\n")
    with patch.object(sys, "stdout", stream), patch.object(sys, "stderr", stream):
        act()
        stream.flush()
        return raw.getvalue().decode(encoding)


@fuzz
@given(ANY, st.integers(-1, 30))
@example("x" * 5, 4)
@example("x" * 5, 1)
def test_escaping(text: str, longest: int) -> None:
    def escape() -> bool:
        check(escape_controls(text))
        check(escape_controls(text, keep="\n"), "\n")
        check(escape_controls(text, keep=REPLY_KEEPS), REPLY_KEEPS)
        assert longest < 1 or len(check(output.label(text, longest))) <= longest
        check(escape_markdown(text))
        check(code_span(text, in_table=True))
        check(code_block(text), "\n")
        return True

    assert put_through("texts, escaped", escape)


@fuzz
@given(ANY, ANY)
def test_printing(text: str, hint: str) -> None:
    def say() -> bool:
        for act in (output.out, output.note):
            check(PAINT.sub("", printed(lambda act=act: act(text))), "\n")
        lines = check(printed(lambda: output.error(text, hint)), "\n").splitlines()
        assert [line.partition(":")[0] for line in lines] == ["Error", "Hint"][: len(lines)]
        return True

    assert put_through("texts, printed", say)


@fuzz
@given(st.dictionaries(ANY, VALUES | ANY, max_size=3), st.booleans(), st.booleans())
@example({"a": "\u061c\xad\U000e0001"}, False, True)
def test_lines_of_json(value: dict[str, object], ascii_only: bool, utf8: bool) -> None:
    document = json.dumps(value, ensure_ascii=ascii_only)

    def say() -> str:
        return printed(lambda: output.json_line(document), "utf-8" if utf8 else "ascii")

    line = put_through("JSON, printed", say)
    assert line is not None
    check(line, "\n")
    assert json.dumps(json.loads(line)) == json.dumps(value)
