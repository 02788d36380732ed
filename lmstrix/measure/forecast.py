"""What a measurement is expected to cost, before anything is loaded."""

from __future__ import annotations

import attrs

from lmstrix.measure.loading import MemoryGuard, largest_expected, wanted_context
from lmstrix.measure.options import MeasureOptions
from lmstrix.models import MemoryEstimate, ModelInfo
from lmstrix.ports import Adapter

__all__ = ["Forecast", "forecast"]

USUAL_READING, MOST_READING = 2.2, 4.5
"""Prompt tokens over the answer if the engine reuses prefixes, certificate included: mean above
8,192 tokens, and the most, of 100 simulated models that answer as reliably as models do
(`benchmarks/search.py`). A certificate reads the answer's length once."""


@attrs.frozen(kw_only=True)
class Forecast:
    """One measurement to come. Lengths are tokens; None is not known.

    `usual_prompt_tokens` is read if `largest_length` is the answer, as it is if nothing fails, and
    the engine reuses prefixes; `most_prompt_tokens` is the worst case then. If it does not reuse
    them, it is several times as much. `loads` is the least.
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
    certified = options.certify and not once
    usual, most = (reading - (not certified) for reading in (USUAL_READING, MOST_READING))
    return Forecast(
        largest_length=largest,
        memory=memory,
        usual_prompt_tokens=largest if once else round(usual * largest),
        most_prompt_tokens=largest if once else round(most * largest),
        loads=1 + certified,
    )
