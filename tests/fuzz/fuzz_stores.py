"""What a store may hold, which the store tests damage."""

from __future__ import annotations

import anyio
from lmstrix.stores.memory import MemoryStore

from lmstrix.models import Cause, Cost, Observation
from lmstrix.stores.export import ImportedResult, StoreContents, dump_contents, load_contents
from lmstrix.testing.samples import sample_model, sample_report, sample_trial

__all__ = ["CONTENTS", "check_contents"]


async def _contents() -> StoreContents:
    store = MemoryStore()
    for key in ("a", "b", "a"):
        new = await store.begin(key, sample_model(key=key))
        for index in range(2):
            await store.append_trial(new.id, sample_trial(index=index))
        await store.finish(new.id, sample_report())
    new = await store.begin("key", sample_model())
    await store.append_trial(new.id, sample_trial())
    await store.append_failure(new.id, Observation(length_tokens=1, failure=Cause.LOAD_FAILED))
    await store.save_cost(new.id, Cost(loads=2, seconds=2.5))
    await store.mark_load(new.id, 65536)
    moment = sample_report().finished_at
    result = ImportedResult(
        source="lmstrix.json", model_key="m", tested_context=1, tested_at=moment
    )
    await store.merge(StoreContents(imported=(result,)))
    return await store.contents()


CONTENTS = anyio.run(_contents)
"""Three measurements of each kind of state, and an imported result."""


def check_contents(contents: StoreContents) -> None:
    """What a store gives out, every store takes."""
    assert load_contents(dump_contents(contents)) == contents
