"""A look into a store's file, and at its keys: never an error, never a change."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz_counts import put_through
from fuzz_files import DATABASE, LINES
from fuzz_values import as_text, changed, damaged, fuzz
from hypothesis import example, given
from hypothesis import strategies as st
from lmstrix.stores.peeking import Peek, peek

CONTENT = "".join(f"{json.dumps(line)}\n" for line in LINES).encode()
DEEP = "[" * 900 + "]" * 900
BEGIN = '{"kind": "begin", "measurement": %s, "key": %s, "model": {"key": "m"}}\n'
ODD = CONTENT + (BEGIN % (DEEP, '"k"') + BEGIN % ('"m"', DEEP)).encode()


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A store of lines of which some were changed, all but the first."""
    made = [draw(changed(line)) if draw(st.booleans()) else line for line in LINES[1:]]
    text = "".join(f"{as_text(line)}\n" for line in [LINES[0], *made])
    return text.encode("utf-8", "surrogatepass")


@fuzz
@given(lines() | damaged(CONTENT) | damaged(DATABASE))
@example(ODD)
def test_peeking(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        path.write_bytes(content)
        found = put_through("look into a store", lambda: peek(path))
        assert isinstance(found, Peek)
        assert found.exists
        assert path.read_bytes() == content
        assert [entry.name for entry in Path(folder).iterdir()] == ["store"]
