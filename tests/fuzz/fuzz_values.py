"""Hostile inputs: JSON that means trouble, good documents changed a little, damaged bytes.

``LMSTRIX_FUZZ_EXAMPLES`` says how many inputs each test gets; without it, a few, always the same.
"""

from __future__ import annotations

import json
import os
import string
import unicodedata
from typing import Any, cast

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LONG = "LMSTRIX_FUZZ_EXAMPLES"
FEW = 25
_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "fuzz", max_examples=FEW, deadline=None, database=None, derandomize=True,
    suppress_health_check=_QUIET,
)  # fmt: skip
settings.register_profile(
    "fuzz-long", settings.get_profile("fuzz"), derandomize=False,
    max_examples=int(os.environ.get(LONG, FEW)),
)  # fmt: skip

fuzz = settings(settings.get_profile("fuzz-long" if LONG in os.environ else "fuzz"))
"""Decorates every test here."""
fuzz_slowly = settings(fuzz, max_examples=max(FEW, fuzz.max_examples // 10))
"""For what opens a file of its own each time."""

PATHS = (
    *("../../etc/passwd", "a/../../b", "..\\..\\x", "/dev/null", "/etc/passwd", ".", "..", "a//b"),
    *("C:\\Windows\\system32", "\\\\host\\share", "file:///etc/passwd?mode=rwc", "~/.profile"),
    *("~nobody-of-that-name/x", "con", "aux.gguf", "COM1.json", "nul\0inside", "x.gguf\0.json"),
    *("trailing. ", "x" * 300, "a/" * 40 + "b"),
)
"""Path tricks, and Windows's device names."""

CONTROLS = (
    *("\x1b[2J\x07\r\n\u2028\u202e", "\x1b]0;title\x07", "\x9b31m", "\udcff", "\ud800x"),
    *("\x1b]8;;http://example.com\x1b\\link", "\u200b\u200f\u2066\ufeff\U000e0001"),
    *("a\tb\vc\fd", "\x85\x1c\x1d"),
)
OTHERS = (
    *("", "x" * 20_000, "'; DROP TABLE trials; --", "<script>alert(1)</script>", "NaN"),
    *("{{ 7 * 7 }}{% for %}", "[bold]x[/bold]", "![x](javascript:1)|a|`b`", "%s%n{0}", "0" * 32),
    *("9" * 5000, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-02T03:04:05"),
)
TEXTS = st.sampled_from([*OTHERS, *PATHS, *CONTROLS])
NAMES = TEXTS | st.text(max_size=20) | st.text(string.printable + "\0\x1b/\\.", max_size=30)
"""What might be a model's name, an identifier or a path."""

NUMBERS = (
    st.sampled_from([0, -1, -0.0, 2**31, 2**53, 2**63, 2**64, 2**70, -(2**63) - 1, 10**400, 1e308])
    | st.floats()
)
SCALARS = st.none() | st.booleans() | st.integers() | NUMBERS | TEXTS | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS | st.text(max_size=9), inner, max_size=4)
    ),
    max_leaves=8,
)


def deep(levels: int) -> object:
    """An array within an array within..."""
    value: object = []
    for _ in range(levels - 1):
        value = [value]
    return _Deep([value])


class _Deep(list[object]):
    """A list that Hypothesis can show; for everybody else it is as deep as it is."""

    def _repr_pretty_(self, printer: Any, _: bool) -> None:
        printer.text("deep(...)")


@st.composite
def changed(draw: st.DrawFn, value: object) -> object:
    """A JSON value of which a few parts were replaced, removed, doubled or made deep."""
    for _ in range(draw(st.integers(0, 3))):
        value = _change(draw, value)
    return value


def _change(draw: st.DrawFn, value: object) -> object:
    go_on = draw(st.integers(0, 6)) > 0
    if isinstance(value, dict) and value and go_on:
        return _change_object(draw, cast("dict[str, object]", value))
    if isinstance(value, list) and value and go_on:
        items = cast("list[object]", value)
        at = draw(st.integers(0, len(items) - 1))
        if draw(st.integers(0, 5)) == 0:
            return [*items, items[at]]
        return [*items[:at], _change(draw, items[at]), *items[at + 1 :]]
    return _other(draw, cast("object", value))


def _other(draw: st.DrawFn, value: object) -> object:
    if draw(st.integers(0, 20)) == 0:
        return deep(draw(st.sampled_from([20, 300, 900, 3000])))
    # As often another value of the same type: what passes the first check meets the next.
    if isinstance(value, str) and draw(st.booleans()):
        return draw(TEXTS)
    if isinstance(value, int | float) and draw(st.booleans()):
        return draw(NUMBERS | st.integers(-2, 2**20))
    return draw(VALUES)


def _change_object(draw: st.DrawFn, fields: dict[str, object]) -> object:
    name = draw(st.sampled_from(sorted(fields)))
    kept = {key: item for key, item in fields.items() if key != name}
    what = draw(st.integers(0, 9))
    if what < 2:
        return {**kept, draw(TEXTS): fields[name]} if what else kept
    return {**kept, name: _change(draw, fields[name])}


def as_text(value: object) -> str:
    """JSON with NaN and the like; nesting beyond what the writer can do is written by hand."""
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        return '{"deep": ' + "[" * 50_000 + "]" * 50_000 + "}"


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes of which a few were cut off, overwritten, flipped, doubled or put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(0, len(content) - 1)))
        stop = min(len(content), start + draw(st.integers(0, 60)))
        part = draw(
            st.binary(max_size=60)
            | st.just(b"")
            | st.just(content[start:stop] * 2)
            | st.just(bytes(byte ^ 1 << start % 8 for byte in content[start:stop]))
            | st.sampled_from([b"\n", b"\0" * 50, b"\xff\xfe", b"[" * 2000, b"1e999", b"NaN"])
            | st.sampled_from([b"\xff" * 8, b"\xff" * 7 + b"\x7f", b"\0" * 7 + b"\x80"])
        )
        content = content[:start] + part + content[stop:]
    return content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content


def texts_of(good: object) -> st.SearchStrategy[str]:
    """A good JSON document, changed as a value or as bytes."""
    content = json.dumps(good).encode()
    return changed(good).map(as_text) | damaged(content).map(
        lambda data: data.decode("utf-8", "surrogateescape")
    )


def check(text: str, keep: str = "") -> str:
    """The text, in which nothing but `keep` steers a terminal or the order of its letters."""
    steering = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    found = {char for char in text if unicodedata.category(char) in steering}
    assert found <= set(keep), found
    return text
