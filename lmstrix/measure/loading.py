"""Finds the largest context that loads: estimate first, few loads, no prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt

import attrs

from lmstrix.errors import (
    EngineUnavailable,
    LoadError,
    LoadFailed,
    LoadHung,
    LoadRefused,
    OutOfMemory,
)
from lmstrix.measure.engine import Engine, owns_engine
from lmstrix.measure.options import MeasureOptions
from lmstrix.models import UNDECLARED_CONTEXT, Cause, MemoryEstimate, ModelInfo
from lmstrix.ports import Adapter, FixesContext

USUAL_READING, MOST_READING = 2.2, 7.0
"""Prompt tokens over the answer if the engine reuses prefixes, certificate included: the mean above
8,192 tokens of 100 simulated models that answer as reliably as models do (`benchmarks/search.py`),
and a little more than the demo model ever needed (6.6), which fades slowly."""

MOST_HUNG = 2
"""After so many sizes whose load hung, each tried twice, the smallest one is tried: the engine may
load nothing any more, and each try takes minutes."""
MOST_SIZES = 12
"""Sizes after which the search ends with the bracket it has. From 512 to ten million tokens a
bisection to `LOAD_TOLERANCE` takes ten, besides the wanted size and the smallest. They are counted
anew once a size that failed loads after all."""

LOAD_TOLERANCE = 1 / 64
"""How narrow the bracket of loads is made, as a part of the size that loads."""

ESTIMATE_ERROR = 1 / 16
"""Good estimates are off by 5 %: the first sizes tried around one are this far apart."""

GRANULARITY = 256
"""llama.cpp pads the context to a multiple of this, in tokens."""

DEATHS = 2
"""A size is left out after so many deaths during its load: one may have had any reason."""


@attrs.frozen(kw_only=True)
class Loadable:
    """The largest context that loaded, and why it is not larger (None: it is the wanted one).

    Never more than the wanted size, though engines may round up: a size that the model does not
    declare, or that was not to be tried, is not part of the answer.
    """

    context_length: int
    limit: Cause | None
    detail: str = ""
    failed_at: int | None = None
    """The smallest size, in tokens, that did not load: it failed, hung or was refused. None if
    the wanted size loaded, or if the engine gave less than asked without an error."""
    untried: bool = False
    """Whether `failed_at` was left out because earlier runs died there, so nothing is proven."""


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


async def find_loadable(  # noqa: PLR0913 - by keyword, each a fact of its own
    adapter: Adapter,
    model: ModelInfo,
    engine: Engine,
    *,
    wanted: int,
    floor: int,
    force: bool,
    deaths: Sequence[int] = (),
    loaded_before: int | None = None,
    max_memory_bytes: int | None = None,
    load_timeout_s: float | None = None,
) -> Loadable:
    """Load the largest context up to `wanted`, and leave it loaded.

    One load if `wanted` loads. If the estimate says that the machine cannot hold it, the
    largest size that it can hold is loaded instead (`force` skips that guard). If a load
    fails, a search over loads alone follows, down to `floor`: the estimate first, 12 sizes at
    most. A load that fails for no clear reason, or hangs, is tried once more before it counts. So
    is the size that ends the search, whatever the reason: another program may have had the memory
    for a moment.

    `deaths` are the sizes whose load ended with the death of an earlier run, one entry for each:
    a size with two is not tried, nor anything above it, unless `force` asks for it. They count
    only if the adapter owns its engine (`lmstrix.ports.OwnsEngine`), and only above
    `loaded_before`, the largest size that any run of this measurement has loaded.

    Nothing that is expected to need more than `max_memory_bytes` is tried, even with `force`.
    `load_timeout_s` is how long a load may make no progress, in this search and later; None
    keeps the engine's setting.

    Raises `LoadError` if not even `floor` loads, and `EngineUnavailable` if a size that loaded a
    moment ago does not load any more: that is trouble with the machine.
    """
    if load_timeout_s is not None:
        engine.load_timeout_s = load_timeout_s
    if isinstance(adapter, FixesContext) and adapter.fixes_context:
        floor = wanted  # a load that failed was not too large
    guard = MemoryGuard(max_bytes=max_memory_bytes, force=force)
    expected = await _expected(adapter, model, wanted, MemoryGuard(max_bytes=max_memory_bytes))
    bound = await _expected(adapter, model, wanted, guard) if force else expected
    if bound is None and max_memory_bytes is not None:
        await _check_known(adapter, model, wanted)
    target = wanted if bound is None else _bounded(bound, floor)
    deadly = None if force or not owns_engine(adapter) else _deadly(deaths, loaded_before)
    search = _LoadSearch(
        floor=floor, expected=None if expected is None else expected.context_length
    )
    if deadly is not None and deadly <= target:
        search.leave_out(deadly)
        target = search.next_size()
    while target is not None:
        await search.load(engine, target)
        target = search.next_size()
    if not search.low:
        raise search.error or LoadFailed("nothing was loaded")
    if search.loaded != search.low and (error := await search.load(engine, search.low)):
        message = f"{search.low:,} tokens loaded earlier, but no longer do: {error}"
        raise EngineUnavailable(message, hint=error.hint)
    if search.error is None and not search.clamped and bound is not None:
        return Loadable(
            context_length=search.low,
            limit=Cause.LOAD_REFUSED,
            detail=bound.reason,
            failed_at=bound.refused_at,
        )
    return search.found()


def _deadly(deaths: Sequence[int], loaded_before: int | None) -> int | None:
    """The smallest size at which earlier runs died too often, unless as much has loaded."""
    counted = Counter(size for size in deaths if size > (loaded_before or 0))
    return min((size for size, times in counted.items() if times >= DEATHS), default=None)


async def _check_known(adapter: Adapter, model: ModelInfo, wanted: int) -> None:
    """Raises `LoadRefused` if a largest memory was set and nothing tells what a load needs."""
    if await adapter.estimate_memory(model, wanted) is None:
        raise LoadRefused(
            "the memory that a load needs is unknown, so the memory limit cannot be kept",
            hint="Leave out --max-memory, or name a length with --max-context instead.",
        )


@attrs.frozen
class _Expected:
    """The largest context that the estimate says this machine can hold, the smallest that it
    refuses, and why.
    """

    context_length: int
    refused_at: int
    reason: str


def _bounded(bound: _Expected, floor: int) -> int:
    """The size to try first; raises `LoadRefused` if not even `floor` is expected to fit."""
    if bound.context_length < floor:
        raise LoadRefused(
            f"not even {floor:,} tokens are expected to fit: {bound.reason}",
            hint="Close other programs, choose a smaller model, or use --force to try anyway.",
        )
    return bound.context_length


def wanted_context(model: ModelInfo, max_context: int | None) -> int:
    """The largest context to try, in tokens: the declared one, or `max_context` if that is less."""
    if max_context is None:
        return model.declared_context or UNDECLARED_CONTEXT
    return min(model.declared_context or max_context, max_context)


async def _expected(
    adapter: Adapter, model: ModelInfo, wanted: int, guard: MemoryGuard
) -> _Expected | None:
    """None if `wanted` is expected to fit, or if nothing is known."""
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
    return _Expected(low, high, _explain(estimate, guard))


def _explain(estimate: MemoryEstimate, guard: MemoryGuard) -> str:
    gib = 1024**3
    allowed = estimate.available_bytes == guard.max_bytes
    return (
        f"{estimate.context_length:,} tokens need about {estimate.total_bytes / gib:.1f} GiB, "
        f"and {(estimate.available_bytes or 0) / gib:.1f} GiB are "
        f"{'allowed' if allowed else 'available'}"
    )


@attrs.define(kw_only=True)
class _LoadSearch:
    """Bisects between the sizes that load and those that do not. Loads, and nothing else."""

    floor: int
    expected: int | None
    """The largest size that the estimate says fits; None if it says nothing."""
    low: int = 0
    """The largest size that loaded; 0 if none has yet."""
    failed: dict[int, LoadError] = attrs.field(factory=dict[int, LoadError])
    """Why each size that did not load did not."""
    failed_twice: set[int] = attrs.field(factory=set[int])
    loaded: int = 0
    sizes: int = 0
    hung: int = 0
    """Sizes in a row whose load hung."""
    clamped: bool = False
    """Whether the engine gave less than it was asked for: then it gives no more."""
    left_out: int | None = None
    """A size that is not tried because earlier runs died there."""

    def leave_out(self, deadly: int) -> None:
        """Try nothing from `deadly` on."""
        self.left_out = deadly
        self.failed_twice.add(deadly)
        self.failed[deadly] = LoadFailed(
            f"{deadly:,} tokens and more were not tried: {DEATHS} earlier runs died while they "
            "loaded that much",
            hint="Use --force to try it again.",
        )

    @property
    def high(self) -> int | None:
        """The smallest size above `low` that did not load."""
        return min((size for size in self.failed if size > self.low), default=None)

    @property
    def error(self) -> LoadError | None:
        """Why `high` did not load."""
        return None if self.high is None else self.failed[self.high]

    async def load(self, engine: Engine, target: int) -> LoadError | None:
        """Why `target` does not load; None if it does. A failure without a clear reason is tried
        once more.
        """
        again = target in self.failed
        self.sizes += not again
        try:
            try:
                effective = (await engine.load(target)).effective_context
            except (LoadFailed, LoadHung) as error:
                if isinstance(error, OutOfMemory):
                    raise
                self.failed[target] = error
                effective = (await engine.load(target)).effective_context
            if effective < self.low:  # it falls back to less than it can load
                said = f"asked for {target:,} tokens, the engine loaded {effective:,}"
                raise LoadFailed(said)
        except LoadError as error:
            if target in self.failed:
                self.failed_twice.add(target)
            self.failed[target], self.loaded = error, 0
            self.hung = self.hung + 1 if isinstance(error, LoadHung) else 0
            return error
        self.failed.pop(target, None)
        if again:
            self.sizes = 0  # the sizes below were tried because of that failure
        self.low = self.loaded = min(effective, target)
        self.clamped = effective < target
        return None

    def next_size(self) -> int | None:
        """The next size to load, or None at the end."""
        high = self.high
        if high is None or self.clamped:
            return None
        narrower = self._narrower(high)
        return high if narrower is None and high not in self.failed_twice else narrower

    def _narrower(self, high: int) -> int | None:
        if self.low and self.sizes >= MOST_SIZES:
            return None
        if not self.low and (self.sizes >= MOST_SIZES - 1 or self.hung >= MOST_HUNG):
            # The last size is the smallest: if that does not load either, nothing does.
            return self.floor if self.sizes < MOST_SIZES and high > self.floor else None
        low = self.low or self.floor
        if high - low > max(GRANULARITY, LOAD_TOLERANCE * low):
            for target in (*self._near_estimate(), sqrt(low * high)):
                rounded = round(target / GRANULARITY) * GRANULARITY
                if low < rounded < high:
                    return rounded
        return None if self.low or high <= self.floor else self.floor

    def _near_estimate(self) -> list[float]:
        """The sizes around the estimate that its usual error leaves possible."""
        if self.expected is None:
            return []
        return [self.expected * (1 + error) for error in (0, -ESTIMATE_ERROR, ESTIMATE_ERROR)]

    def found(self) -> Loadable:
        """The result, once something has loaded."""
        if self.clamped:
            limit: Cause | None = Cause.CLAMPED
        elif self.error is None:
            limit = None
        else:
            limit = load_cause(self.error)
        return Loadable(
            context_length=self.low,
            limit=limit,
            detail=str(self.error or ""),
            failed_at=self.high,
            untried=self.left_out is not None and self.high == self.left_out,
        )


def load_cause(error: LoadError) -> Cause:
    """What a failed load says about the context."""
    match error:
        case LoadHung():
            return Cause.LOAD_HUNG
        case LoadRefused():
            return Cause.LOAD_REFUSED
        case _:
            return Cause.LOAD_FAILED


@attrs.frozen(kw_only=True)
class Forecast:
    """One measurement to come. Lengths are tokens; None is not known.

    `usual_prompt_tokens` is read if `largest_length` is the answer, as it is if nothing fails, and
    the engine reuses prefixes; `most_prompt_tokens` is about the most then. If it does not reuse
    them, it is several times as much. `loads` is the least.
    """

    model: ModelInfo
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
    wanted = min(wanted, options.only_at or wanted)
    memory = await adapter.estimate_memory(model, wanted)
    largest = wanted
    if options.only_at is None:
        guard = MemoryGuard(max_bytes=options.max_memory_bytes, force=options.force)
        expected = await _expected(adapter, model, wanted, guard)
        largest = wanted if expected is None else expected.context_length
    once = options.only_at is not None
    certified = options.certifies and not once
    texts = options.documents - 2 if certified else -1
    usual, most = (reading + texts for reading in (USUAL_READING, MOST_READING))
    return Forecast(
        model=model,
        largest_length=largest,
        memory=memory,
        usual_prompt_tokens=largest if once else round(usual * largest),
        most_prompt_tokens=largest if once else round(most * largest),
        loads=1 + certified,
    )
