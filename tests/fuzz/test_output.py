"""What is printed: nothing untrusted steers a terminal, and JSON stays what it is."""

from __future__ import annotations

import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable
from unittest.mock import patch

from fuzz_counts import put_through
from fuzz_values import NAMES, TEXTS, VALUES, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from lmstrix.reports.markdown import code_block, code_span, escape_markdown
from lmstrix.reports.words import REPLY_KEEPS, escape_controls
from lmstrix_cli import output

ANY = NAMES | st.text(st.characters(), max_size=40) | st.lists(TEXTS, max_size=3).map("".join)
PAINT = re.compile(r"\x1b\[[0-9;]*m")
STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def check(text: str, keep: str = "") -> str:
    found = {char for char in text if unicodedata.category(char) in STEERING}
    assert found <= set(keep), found
    return text


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
