"""Finds the largest context that loads: estimate first, few loads, no prompt."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import attrs

from lmstrix.errors import EngineUnavailable, LoadError, LoadFailed, LoadRefused
from lmstrix.measure.instance import Instance
from lmstrix.models import Cause, MemoryEstimate, ModelInfo
from lmstrix.ports import Adapter

__all__ = [
    "MOST_LOADS",
    "UNDECLARED_CONTEXT",
    "Loadable",
    "MemoryGuard",
    "find_loadable",
    "largest_expected",
    "wanted_context",
]

UNDECLARED_CONTEXT = 131072
"""What is tried first where a model declares nothing, in tokens."""

MOST_LOADS = 9
"""Loads after which the search ends with the bracket it has, the last one included that loads
again what was found. From 512 to 131072 tokens a bisection to `LOAD_TOLERANCE` takes seven; the
first is what was wanted."""

LOAD_TOLERANCE = 1 / 16
"""How narrow the bracket of loads is made, as a part of what loads. What a machine can hold
changes by as much with the other programs on it, and answers are searched more finely."""

ESTIMATE_ERROR = 1 / 16
"""A memory estimate that failed by itself is lowered by this once: good ones err by 5 %."""

GRANULARITY = 256
"""llama.cpp pads the context to a multiple of this, in tokens."""


@attrs.frozen(kw_only=True)
class Loadable:
    """The largest context that loaded, and why it is not larger (None: it is what was wanted).

    Never more than was asked for, though engines may round up: what a model was not to be tried
    at, or does not declare, is no part of the answer.
    """

    context_length: int
    limit: Cause | None
    detail: str = ""


@attrs.frozen(kw_only=True)
class MemoryGuard:
    """What a load may be expected to need: what the machine has, unless `force`, and never more
    than `max_bytes`.
    """

    max_bytes: int | None = None
    force: bool = False

    def bounded(self, estimate: MemoryEstimate) -> MemoryEstimate:
        """`estimate` with what may be used as what is available."""
        bounds = [self.max_bytes, None if self.force else estimate.available_bytes]
        known = [bound for bound in bounds if bound is not None]
        return attrs.evolve(estimate, available_bytes=min(known, default=None))


async def find_loadable(
    adapter: Adapter,
    model: ModelInfo,
    instance: Instance,
    *,
    wanted: int,
    floor: int,
    force: bool,
    deadly: int | None = None,
    max_memory_bytes: int | None = None,
) -> Loadable:
    """Load the largest context up to `wanted`, and leave it loaded.

    One load where `wanted` loads. Where the estimate says that the machine cannot hold it,
    the largest that it can hold is loaded instead (`force` skips that guard). Where a load
    fails, what the estimate says is tried, and then a search over loads alone follows, down to
    `floor`, of nine loads at the most.

    `deadly` is a size at which an earlier run died: it is not tried again, nor anything above,
    unless `force` asks for it. Nothing that is expected to need more than `max_memory_bytes` is
    tried, with `force` either.

    Raises `LoadError` where not even `floor` loads, and `EngineUnavailable` where what loaded a
    moment ago does not any more: that is trouble with the machine.
    """
    guard = MemoryGuard(max_bytes=max_memory_bytes, force=force)
    expected = await _expected(adapter, model, wanted, MemoryGuard(max_bytes=max_memory_bytes))
    bound = await _expected(adapter, model, wanted, guard) if force else expected
    if bound is None and max_memory_bytes is not None:
        await _check_known(adapter, model, wanted)
    target, refused = _target(wanted, floor, bound)
    if deadly is not None and target >= deadly and not force:
        died = LoadFailed(
            f"an earlier run died while it loaded {deadly} tokens, so only less was tried",
            hint="Use --force to try it again.",
        )
        search = _LoadSearch(instance=instance, high=deadly, floor=floor, error=died, loads=0)
        return await search.run(_guesses(expected, deadly, floor))
    try:
        effective = (await instance.load(target)).effective_context
    except LoadError as error:
        search = _LoadSearch(instance=instance, high=target, floor=floor, error=error)
        return await search.run(_guesses(expected, target, floor))
    if effective < target:
        return Loadable(context_length=effective, limit=Cause.CLAMPED)
    return Loadable(
        context_length=target,
        limit=Cause.LOAD_REFUSED if refused else None,
        detail=refused or "",
    )


async def _check_known(adapter: Adapter, model: ModelInfo, wanted: int) -> None:
    """Raises `LoadRefused` where a largest memory was set, and nothing says what a load needs."""
    if await adapter.estimate_memory(model, wanted) is None:
        raise LoadRefused(
            "nothing says how much memory a load needs, so the largest memory cannot be kept",
            hint="Leave out --max-memory, or name a length with --max-context instead.",
        )


def _target(wanted: int, floor: int, bound: _Expected | None) -> tuple[int, str | None]:
    """What is tried first, and why it is less than `wanted`; raises `LoadRefused`."""
    if bound is None:
        return wanted, None
    if bound.context_length < floor:
        raise LoadRefused(
            f"not even {floor} tokens are expected to fit: {bound.reason}",
            hint="Close other programs, choose a smaller model, or use --force to try anyway.",
        )
    return bound.context_length, bound.reason


@attrs.frozen
class _Expected:
    """The largest context that the estimate says this machine can hold, and why not more."""

    context_length: int
    reason: str


def _guesses(expected: _Expected | None, failed: int, floor: int) -> list[int]:
    """What is tried when `failed` did not load: what the estimate says, and a little less."""
    if expected is None:
        return []
    lower = int(expected.context_length * (1 - ESTIMATE_ERROR)) // GRANULARITY * GRANULARITY
    return [n for n in (expected.context_length, lower) if floor <= n < failed]


def wanted_context(model: ModelInfo, max_context: int | None) -> int:
    """The largest context to try, in tokens: what is declared, or less where that was asked."""
    declared = model.declared_context or UNDECLARED_CONTEXT
    return declared if max_context is None else min(declared, max_context)


async def largest_expected(
    adapter: Adapter, model: ModelInfo, wanted: int, guard: MemoryGuard
) -> int:
    """The largest context up to `wanted`, in tokens, that the memory estimate does not rule out."""
    expected = await _expected(adapter, model, wanted, guard)
    return wanted if expected is None else expected.context_length


async def _expected(
    adapter: Adapter, model: ModelInfo, wanted: int, guard: MemoryGuard
) -> _Expected | None:
    """None where `wanted` is expected to fit, or nothing is known."""
    told = await adapter.estimate_memory(model, wanted)
    estimate = guard.bounded(told) if told is not None else None
    if estimate is None or estimate.fits is not False:
        return None
    low, high = 0, wanted
    while high - low > GRANULARITY:
        middle = (low + high) // 2 // GRANULARITY * GRANULARITY
        if middle in (low, high):
            break
        smaller = await adapter.estimate_memory(model, middle)
        fits = smaller is not None and guard.bounded(smaller).fits
        low, high = (middle, high) if fits else (low, middle)
    return _Expected(low, _explain(estimate, guard))


def _explain(estimate: MemoryEstimate, guard: MemoryGuard) -> str:
    gib = 1024**3
    allowed = estimate.available_bytes == guard.max_bytes
    return (
        f"{estimate.context_length} tokens need about {estimate.total_bytes / gib:.1f} GiB, "
        f"and {(estimate.available_bytes or 0) / gib:.1f} GiB are "
        f"{'allowed' if allowed else 'available'}"
    )


@attrs.define(kw_only=True)
class _LoadSearch:
    """Bisects between what loads and what does not. Loads, and nothing else."""

    instance: Instance
    high: int
    floor: int
    error: LoadError
    low: int = 0
    """What loaded; 0: nothing yet."""
    loaded: int = 0
    loads: int = 1
    clamped: bool = False
    """Whether the engine gave less than it was asked for: then it gives no more."""

    async def run(self, guesses: Sequence[int]) -> Loadable:
        """The largest context that loads, loaded. The first of `guesses` that loads is taken: they
        come from an estimate that says why there is no more.
        """
        for guess in guesses:
            if await self._load(guess):
                return self._found()
        while not self.clamped and (target := self._next()) is not None:
            await self._load(target)
        if not self.low:
            raise self.error
        if self.loaded != self.low and not await self._load(self.low):
            message = f"{self.low} tokens loaded before, and do not any more: {self.error}"
            raise EngineUnavailable(message, hint=self.error.hint)
        return self._found()

    async def _load(self, target: int) -> bool:
        self.loads += 1
        try:
            effective = (await self.instance.load(target)).effective_context
        except LoadError as error:
            self.error, self.high, self.loaded = error, target, 0
            return False
        self.low = self.loaded = min(effective, target)
        self.clamped = effective < target
        return True

    def _next(self) -> int | None:
        """The next size, or None at the end. The last load is kept for what was found."""
        if self.loads >= MOST_LOADS - 1:
            last = self.floor if self.loads < MOST_LOADS and self.high > self.floor else None
            return None if self.low else last
        low = self.low or self.floor
        if self.high - low > max(GRANULARITY, LOAD_TOLERANCE * low):
            middle = round(sqrt(low * self.high) / GRANULARITY) * GRANULARITY
            if low < middle < self.high:
                return middle
        return None if self.low or self.high <= self.floor else self.floor

    def _found(self) -> Loadable:
        failed = isinstance(self.error, LoadFailed)
        limit = Cause.LOAD_FAILED if failed else Cause.LOAD_REFUSED
        return Loadable(
            context_length=self.low,
            limit=Cause.CLAMPED if self.clamped else limit,
            detail=str(self.error),
        )
