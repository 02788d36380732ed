"""A store in lines of JSON, damaged: everything that can be read of it is, and it is written on."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz_counts import NotTaken, put_through
from fuzz_files import LINES
from fuzz_stores import CONTENTS, check_contents
from fuzz_values import as_text, changed, damaged, fuzz_slowly
from hypothesis import given
from hypothesis import strategies as st
from lmstrix.stores._files import one_at_a_time
from lmstrix.stores._jsonl_lines import BeginLine, TrialLine
from lmstrix.stores._jsonl_log import Log

from lmstrix.errors import StoreError
from lmstrix.testing.samples import sample_model, sample_trial


@st.composite
def jsonl_files(draw: st.DrawFn) -> bytes:
    """A store of which some lines were changed, and perhaps some bytes."""
    lines = [
        draw(changed(line)) if draw(st.integers(0, 5)) == 0 and number else line
        for number, line in enumerate(LINES)
    ]
    if draw(st.integers(0, 5)) == 0:
        lines = [lines[0], *draw(st.permutations(lines[1:]))]
    content = "".join(f"{as_text(line)}\n" for line in lines).encode("utf-8", "surrogatepass")
    return draw(damaged(content)) if draw(st.booleans()) else content


def check_log(path: Path) -> bool:
    """Everything that reads the store, and two writes, which are there afterwards.

    Gives whether every line could be read.
    """
    log = Log(path)
    line = BeginLine(
        measurement="e" * 32, key="new", model=sample_model(), started_at=datetime.now(UTC)
    )
    with one_at_a_time(path):
        log.catch_up()
        log.unfinished("key")
        log.unfinished_models()
        reports = log.reports()
        assert len({stored.key for stored in reports}) == len(reports)
        check_contents(log.contents())
        with suppress(StoreError):
            log.merge(CONTENTS)
        log.add(line, TrialLine(measurement="e" * 32, trial=sample_trial()))
    again = Log(path)
    with one_at_a_time(path):
        again.catch_up()
        found = again.unfinished("new")
        assert found is not None
        assert found.trials == (sample_trial(),)
        assert all(isinstance(note, str) for note in again.warnings)
        return not again.warnings


@fuzz_slowly
@given(jsonl_files())
def test_jsonl_files(content: bytes) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "store")
        path.write_bytes(content)

        def read() -> bool:
            try:
                whole = check_log(path)
            except StoreError:
                # A version that is newer, by accident: left alone. Nothing else is refused.
                version = json.loads(content.splitlines()[0])["version"]
                assert version > 1
                assert path.read_bytes() == content
                raise
            if not whole or len(list(path.parent.iterdir())) > 2:
                raise NotTaken
            return True

        refusals = (NotTaken, StoreError)
        put_through("store in lines of JSON", read, *refusals, writes=True)
        names = {entry.name for entry in Path(folder).iterdir()}
        kept = {name for name in names if name.startswith("store.set-aside-")}
        assert names - kept == {"store", "store.lock"}
        assert all(Path(folder, name).read_bytes() == content for name in kept)
