"""What a measurement is expected to cost, before anything is loaded."""

from __future__ import annotations

import attrs

from lmstrix.measure.loading import MemoryGuard, largest_expected, wanted_context
from lmstrix.measure.options import MeasureOptions
from lmstrix.models import MemoryEstimate, ModelInfo
from lmstrix.ports import Adapter

__all__ = ["Forecast", "forecast"]

USUAL_READING = 1.5
"""Prompt tokens over the answer, where the engine reuses prefixes: `auto` on models that answer
as reliably as models do. From the tables in the documentation of the search, 1.4 to 1.9."""

MOST_READING = 3.1
"""The most over all limits, in the same tables."""


@attrs.frozen(kw_only=True)
class Forecast:
    """One measurement to come. Lengths are tokens; None is not known.

    `usual_prompt_tokens` is read where `largest_length` is the answer, as it is where nothing
    fails, and an engine reuses prefixes; `most_prompt_tokens` is the worst case there. Where it
    does not reuse them, it is several times as much. `loads` is the least.
    """

    largest_length: int
    """What is tried at most: declared, wanted, and what memory is expected to hold."""
    memory: MemoryEstimate | None
    """At the length that would be tried if memory did not matter."""
    usual_prompt_tokens: int
    most_prompt_tokens: int
    loads: int


async def forecast(adapter: Adapter, model: ModelInfo, options: MeasureOptions) -> Forecast:
    """What measuring `model` will try and read. Loads nothing."""
    wanted = wanted_context(model, options.max_context)
    memory = await adapter.estimate_memory(model, wanted)
    largest = wanted
    if options.only_at is None:
        guard = MemoryGuard(max_bytes=options.max_memory_bytes, force=options.force)
        largest = await largest_expected(adapter, model, wanted, guard)
    once = options.only_at is not None
    return Forecast(
        largest_length=largest,
        memory=memory,
        usual_prompt_tokens=largest if once else round(USUAL_READING * largest),
        most_prompt_tokens=largest if once else round(MOST_READING * largest),
        loads=1 + (options.certify and not once),
    )
