"""The document that ``lmstrix export`` writes and ``lmstrix import`` reads."""

from __future__ import annotations

import json

import anyio
from fuzz_counts import put_through
from fuzz_stores import CONTENTS, check_contents
from fuzz_values import fuzz, texts_of
from hypothesis import given
from lmstrix.stores.memory import MemoryStore

from lmstrix.errors import StoreError
from lmstrix.stores.export import StoreContents, dump_contents, load_contents

DOCUMENT = json.loads(dump_contents(CONTENTS))


async def _merged(contents: StoreContents) -> StoreContents:
    store = MemoryStore()
    await store.merge(CONTENTS)
    await store.merge(contents)
    return await store.contents()


@fuzz
@given(texts_of(DOCUMENT))
def test_exports(text: str) -> None:
    contents = put_through("export of a store", lambda: load_contents(text), StoreError)
    if contents is None:
        return
    check_contents(contents)
    try:
        after = anyio.run(_merged, contents)
    except StoreError:
        return
    check_contents(after)
    # Nothing that was there is lost, whatever was merged.
    kept = {measurement.id: measurement for measurement in after.measurements}
    for before in CONTENTS.measurements:
        now = kept[before.id]
        assert now.trials[: len(before.trials)] == before.trials
        assert before.report is None or now.report == before.report
