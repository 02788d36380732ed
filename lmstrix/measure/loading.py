"""Finds the largest context that loads: estimate first, few loads, no prompt."""

from __future__ import annotations

from math import sqrt

import attrs

from lmstrix.errors import LoadError, LoadFailed, LoadRefused
from lmstrix.measure.instance import Instance
from lmstrix.models import Cause, MemoryEstimate, ModelInfo
from lmstrix.ports import Adapter

__all__ = ["MOST_LOADS", "UNDECLARED_CONTEXT", "Loadable", "find_loadable"]

UNDECLARED_CONTEXT = 131072
"""What is tried first where a model declares nothing, in tokens."""

MOST_LOADS = 9
"""Loads after which the search ends with the bracket it has. It goes on only while nothing has
loaded yet: halving reaches any floor. What it found may take one load more, to load it again."""

LOAD_TOLERANCE = 1 / 64
GRANULARITY = 256
"""llama.cpp pads the context to a multiple of this, in tokens."""


@attrs.frozen(kw_only=True)
class Loadable:
    """The largest context that loaded, and why it is not larger (None: it is what was wanted)."""

    context_length: int
    limit: Cause | None
    detail: str = ""


async def find_loadable(
    adapter: Adapter, model: ModelInfo, instance: Instance, *, wanted: int, floor: int, force: bool
) -> Loadable:
    """Load the largest context up to `wanted`, and leave it loaded.

    One load where `wanted` loads. Where the estimate says that the machine cannot hold it,
    the largest that it can hold is loaded instead (`force` skips that guard). Where a load
    fails, a search over loads alone follows, down to `floor`.

    Raises `LoadError` where not even `floor` loads.
    """
    target, refused = wanted, None
    if not force:
        target, refused = await _guarded(adapter, model, wanted, floor)
    try:
        effective = (await instance.load(target)).effective_context
    except LoadError as error:
        return await _search(instance, failed=target, floor=floor, error=error)
    if effective < target:
        return Loadable(context_length=effective, limit=Cause.CLAMPED)
    return Loadable(
        context_length=effective,
        limit=Cause.LOAD_REFUSED if refused else None,
        detail=refused or "",
    )


async def _guarded(
    adapter: Adapter, model: ModelInfo, wanted: int, floor: int
) -> tuple[int, str | None]:
    """`wanted`, or the largest context that is expected to fit, with the reason."""
    estimate = await adapter.estimate_memory(model, wanted)
    if estimate is None or estimate.fits is not False:
        return wanted, None
    low, high = 0, wanted
    while high - low > GRANULARITY:
        middle = (low + high) // 2 // GRANULARITY * GRANULARITY
        smaller = await adapter.estimate_memory(model, middle)
        if middle in (low, high):
            break
        low, high = (middle, high) if smaller and smaller.fits else (low, middle)
    reason = _explain(estimate)
    if low < floor:
        raise LoadRefused(
            f"not even {floor} tokens are expected to fit: {reason}",
            hint="Close other programs, choose a smaller model, or use --force to try anyway.",
        )
    return low, reason


def _explain(estimate: MemoryEstimate) -> str:
    gib = 1024**3
    return (
        f"{estimate.context_length} tokens need about {estimate.total_bytes / gib:.1f} GiB, "
        f"and {(estimate.available_bytes or 0) / gib:.1f} GiB are available"
    )


async def _search(instance: Instance, *, failed: int, floor: int, error: LoadError) -> Loadable:
    """Halve until something loads, then close in geometrically. Loads, and nothing else."""
    low, high, loaded, loads = 0, failed, 0, 1
    while (loads < MOST_LOADS or not low) and high > floor:
        target = _next_load(low, high, floor)
        if target is None:
            break
        loads += 1
        try:
            effective = (await instance.load(target)).effective_context
        except LoadError as again:
            error, high, loaded = again, target, 0
        else:
            low = loaded = effective
    if not low:
        raise error
    if loaded != low:
        await instance.load(low)
    cause = Cause.LOAD_FAILED if isinstance(error, LoadFailed) else Cause.LOAD_REFUSED
    return Loadable(context_length=low, limit=cause, detail=str(error))


def _next_load(low: int, high: int, floor: int) -> int | None:
    """The next size between what loads (0: nothing yet) and what fails, or None when done."""
    if not low:
        half = high // 2 // GRANULARITY * GRANULARITY
        return max(floor, half) if high > floor else None
    if high - low <= max(GRANULARITY, LOAD_TOLERANCE * low):
        return None
    middle = round(sqrt(low * high) / GRANULARITY) * GRANULARITY
    return middle if low < middle < high else None
