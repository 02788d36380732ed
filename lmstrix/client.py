"""`LMStrix`: wires parts together. The only place that knows concrete plug-ins by name."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel
import attrs
from anyio.streams.memory import MemoryObjectSendStream

from lmstrix import prompting
from lmstrix.errors import LMStrixError
from lmstrix.events import Event
from lmstrix.measure import (
    BenchOptions,
    BenchRun,
    Level,
    MapOptions,
    MapRun,
    Measurement,
    MeasureOptions,
    unmeasured_report,
)
from lmstrix.measure.state import Announcer, its_turn
from lmstrix.models import (
    ContextMap,
    ContextReport,
    Environment,
    Method,
    ModelInfo,
    ModelList,
    Prompt,
    Reply,
    ReplyChunk,
    SizeCheck,
    SpeedBench,
    Status,
    StoredReport,
    check_of,
)
from lmstrix.plugins import (
    DEFAULT_ADAPTER,
    DEFAULT_STORE,
    EMBEDDED_ADAPTER,
    Adapters,
    as_store,
    as_strategy,
    as_validator,
)
from lmstrix.ports import Adapter, LoadedModel, Observer, SearchStrategy, Store, Validator
from lmstrix.prompting import REPLY_TOKENS
from lmstrix.search.bracketing import OneSize
from lmstrix.stores.export import Archive, ReportSummary, summarize
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.validators.haystack import share_haystack

__all__ = [
    "DEFAULT_ADAPTER",
    "DEFAULT_STORE",
    "DEFAULT_STRATEGY",
    "EMBEDDED_ADAPTER",
    "LMStrix",
]

DEFAULT_STRATEGY = "bayes"
DEFAULT_LEVELS = ("coherence",)
REQUIRED_LEVELS = frozenset({"coherence"})
"""A model that no longer writes language does not work, however well it recalls."""
MAPPED = ("recall", "copy")
"""What a map asks."""
TIMED = "coherence"
"""Whose requests a benchmark makes: they are answered at some length."""


class LMStrix:
    """Find out how much context a model really handles, and use it.

    Every part may be an object or a name: `adapter` (default ``lmstudio``, and ``llamacpp``
    for a model that is named by the path of a GGUF file), `strategy` (default ``bayes``),
    `validator` (default ``recall``), `levels` (what else is asked of what was read anyway:
    ``coherence`` is part of the true context, any other has a limit of its own) and `store`
    (default the durable one in the user's data folder; ``memory`` keeps nothing; a path is a file
    of its own). `adapter_settings` go to the adapter that is named, or to the default one. Runs on
    asyncio and on trio, as far as the adapter does: ``lmstudio`` needs asyncio.

    Use it as an async context manager, or call `aclose`; nothing is left running either way,
    only the store's file stays open until then.

    Raises `ConfigurationError` for a name that nobody registered.
    """

    def __init__(
        self,
        *,
        adapter: Adapter | str | None = None,
        strategy: SearchStrategy | str = DEFAULT_STRATEGY,
        validator: Validator | str = "recall",
        levels: Sequence[Validator | str] = DEFAULT_LEVELS,
        store: Store | str | Path | None = None,
        observers: Sequence[Observer] = (),
        adapter_settings: Mapping[str, object] | None = None,
    ) -> None:
        self._adapters = Adapters(adapter, adapter_settings or {})
        self._strategy = as_strategy(strategy)
        # On one haystack, so that a level reads nothing that was not read for the validator.
        asked = share_haystack([as_validator(validator), *map(as_validator, levels)])
        self._validator = asked[0]
        self._levels = tuple(
            Level(validator=level, required=level.name in REQUIRED_LEVELS) for level in asked[1:]
        )
        self._store = as_store(store)
        self._observers = tuple(observers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of the store, and of what adapters made here had to leave loaded. Idempotent."""
        try:
            await self._adapters.aclose()
        finally:
            await self._store.aclose()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences of the adapters for the user, such as the names of models left loaded."""
        return self._adapters.warnings

    @property
    def adapter(self) -> Adapter:
        """The default adapter; see `adapter_for`."""
        return self._adapters.usual

    def adapter_for(self, model: str | ModelInfo) -> Adapter:
        """Where `model` lives: `adapter`, unless none was named and it is a GGUF file."""
        return self._adapters.of(model)

    @property
    def strategy(self) -> SearchStrategy:
        """How the next length is chosen."""
        return self._strategy

    @property
    def validator(self) -> Validator:
        """What is asked, and how it is judged."""
        return self._validator

    @property
    def store(self) -> Store:
        """Where trials and reports are kept."""
        return self._store

    async def list_models(self) -> ModelList:
        """Every model that the adapter finds, sorted by key; a notebook shows it as a table."""
        return ModelList(await self.adapter.list_models())

    async def status(self) -> Status:
        """What the engine is, whether it answers, what is loaded."""
        return await self.adapter.status()

    async def reports(self) -> Sequence[StoredReport]:
        """Finished measurements, the newest of each kind, newest first."""
        return await self._store.reports()

    async def summaries(self) -> Sequence[ReportSummary]:
        """One line on each finished measurement, newest first; fast for thousands of them."""
        if isinstance(self._store, Archive):
            return await self._store.summaries()
        return [summarize(stored) for stored in await self._store.reports()]

    async def unfinished_models(self) -> Sequence[ModelInfo]:
        """Models whose measurement was interrupted and would go on."""
        return await self._store.unfinished_models()

    async def measurement(
        self,
        model: str | ModelInfo,
        options: MeasureOptions | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> Measurement:
        """A measurement that is ready to `Measurement.run`.

        With `MeasureOptions.only_at` it looks at that length alone, and keeps nothing.

        Raises `ModelNotFound`, `InvalidModel`, `UnsupportedModel` or `EngineUnavailable`, and
        `ConfigurationError` for a length that is too short to ask anything at.
        """
        strategy, store = self._strategy, self._store
        options = options or MeasureOptions()
        options.check_lengths(self._validator.baseline_length)
        if options.only_at is not None:
            options = options.at_one_size()
            strategy, store = OneSize(), SqliteStore(":memory:")
        return Measurement(
            adapter=self.adapter_for(model),
            model=await self._find(model),
            strategy=strategy,
            validator=self._validator,
            levels=self._levels,
            store=store,
            options=options,
            observers=(*self._observers, *observers),
        )

    async def find_true_context(
        self, model: str | ModelInfo, options: MeasureOptions | None = None
    ) -> ContextReport:
        """Measure `model`: declared, loadable and true context, with evidence.

        Goes on with an interrupted measurement of the same kind. Cancelling releases the
        model within two seconds and keeps every trial. See `Measurement.run` for what it
        raises, and for the reports of models that cannot be measured.
        """
        return await (await self.measurement(model, options)).run()

    async def check_context(
        self, model: str | ModelInfo, length_tokens: int, options: MeasureOptions | None = None
    ) -> SizeCheck:
        """Whether `model` handles `length_tokens`, and nothing else: it is loaded there, and the
        questions are asked there, after those at short length. Nothing is stored.

        Raises what `measurement` and `Measurement.run` raise.
        """
        options = attrs.evolve(options or MeasureOptions(), only_at=length_tokens)
        return check_of(await self.find_true_context(model, options), length_tokens)

    def watch(
        self, model: str | ModelInfo, options: MeasureOptions | None = None
    ) -> AsyncGenerator[Event, None]:
        """The events of a measurement; the last one holds the report.

        Leaving the loop early cancels the measurement: wrap the iterator in
        `contextlib.aclosing`, so that this happens at once and in your own task.
        """
        return _watch_measurement(
            lambda observer: self.measurement(model, options, observers=[observer])
        )

    async def map_context(
        self, model: str | ModelInfo, options: MapOptions | None = None
    ) -> ContextMap:
        """What `model` still knows, by length and depth: recall and verbatim copying.

        The document is read once, on an engine that reuses prefixes; each cell costs its
        questions. Nothing is stored. See `lmstrix.measure.MapRun.run` for what it raises.
        """
        return await (await self.mapping(model, options)).run()

    async def mapping(
        self,
        model: str | ModelInfo,
        options: MapOptions | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> MapRun:
        """A map that is ready to `MapRun.run`, with observers of its own."""
        return MapRun(
            adapter=self.adapter_for(model),
            model=await self._find(model),
            validators=[as_validator(name) for name in MAPPED],
            options=options,
            observers=(*self._observers, *observers),
        )

    async def bench(
        self, model: str | ModelInfo, options: BenchOptions | None = None
    ) -> SpeedBench:
        """How fast `model` reads and writes, at lengths that double.

        Up to `BenchOptions.max_context`, or else the newest true context in the store. Nothing
        is stored. See `lmstrix.measure.BenchRun.run` for what it raises.
        """
        return await (await self.benching(model, options)).run()

    async def benching(
        self,
        model: str | ModelInfo,
        options: BenchOptions | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> BenchRun:
        """A benchmark that is ready to `BenchRun.run`, with observers of its own."""
        info, options = await self._find(model), options or BenchOptions()
        if options.max_context is None and (known := await self._known_context(info)):
            options = attrs.evolve(options, max_context=max(known, options.lengths(0)[0]))
        return BenchRun(
            adapter=self.adapter_for(model),
            model=info,
            writing=as_validator(TIMED),
            options=options,
            observers=(*self._observers, *observers),
        )

    async def infer(
        self,
        model: str | ModelInfo,
        prompt: str | Prompt,
        *,
        max_tokens: int = REPLY_TOKENS,
        context_length: int | None = None,
    ) -> Reply:
        """One greedy reply, with the model loaded for it and released again.

        Waits until no measurement uses the same machine or server; `WaitingForTurn` says so.

        A text is the user's message; a `Prompt` may have a system text as well.
        `context_length` defaults to the newest true context in the store, or else to 4096
        tokens or what the model declares, if that is less.
        Raises `ContextOverflow` if prompt and reply do not fit, before either is asked for;
        nothing is truncated.
        """
        async with self._ready(model, prompt, max_tokens, context_length) as (loaded, asked):
            return await loaded.complete(asked, max_tokens=max_tokens)

    async def stream(
        self,
        model: str | ModelInfo,
        prompt: str | Prompt,
        *,
        max_tokens: int = REPLY_TOKENS,
        context_length: int | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[ReplyChunk | Reply, None]:
        """The same reply piece by piece; the last item is the whole `Reply`.

        `on_note` hears, before that, where more than the true context may be needed.
        """
        ready = self._ready(model, prompt, max_tokens, context_length, on_note)
        async with ready as (loaded, asked), AsyncExitStack() as stack:
            pieces = loaded.stream(asked, max_tokens=max_tokens)
            # The engine stops before the model is released; a plain iterator has nothing to close.
            stack.push_async_callback(getattr(pieces, "aclose", anyio.lowlevel.checkpoint))
            async for piece in pieces:
                yield piece

    @asynccontextmanager
    async def _ready(
        self,
        model: str | ModelInfo,
        prompt: str | Prompt,
        max_tokens: int,
        context_length: int | None,
        on_note: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[tuple[LoadedModel, Prompt], None]:
        """`model` loaded once it is its turn, and the prompt, which fits."""
        info, asked = await self._find(model), prompting.as_prompt(prompt)
        tested = await self._known_context(info)
        length = context_length or tested or prompting.cautious_context(info)
        adapter = self.adapter_for(model)
        async with (
            its_turn(adapter, Announcer(info.key, self._observers)),
            adapter.load(info, length) as loaded,
        ):
            await prompting.require_room(loaded, asked, max_tokens, tested=tested, on_note=on_note)
            yield loaded, asked

    def unmeasured(
        self, name: str, error: LMStrixError, options: MeasureOptions | None = None
    ) -> ContextReport:
        """The report of a model that could not be measured at all; `error` says why."""
        options = options or MeasureOptions()
        return unmeasured_report(
            model=ModelInfo(key=name),
            error=error,
            method=Method(
                strategy=self._strategy.name,
                validator=self._validator.name,
                tolerance=options.tolerance,
                ratio=options.ratio,
                seed=options.seed,
                max_context=options.max_context,
                levels=tuple(level.validator.name for level in self._levels),
            ),
            environment=Environment(adapter=self.adapter_for(name).name),
        )

    async def _find(self, model: str | ModelInfo) -> ModelInfo:
        if isinstance(model, ModelInfo):
            return model
        return await self.adapter_for(model).find_model(model)

    async def _known_context(self, model: ModelInfo) -> int | None:
        """The newest true context of this very model, None if there is none."""
        return prompting.known_context(await self.summaries(), model)


async def _watch_measurement(
    make: Callable[[Observer], Awaitable[Measurement]],
) -> AsyncGenerator[Event, None]:
    """The events of the measurement that `make` makes for an observer, which is run meanwhile.

    Closing the generator cancels the measurement. What it raises is raised at the end.
    """
    send, receive = anyio.create_memory_object_stream[Event](math.inf)
    measurement = await make(send.send_nowait)
    failure: list[LMStrixError] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_run_and_close, measurement, send, failure)
        try:
            async with receive:
                async for event in receive:
                    yield event
        finally:
            group.cancel_scope.cancel()
    if failure:
        raise failure[0]


async def _run_and_close(
    measurement: Measurement, send: MemoryObjectSendStream[Event], failure: list[LMStrixError]
) -> None:
    with send:
        try:
            await measurement.run()
        except LMStrixError as error:
            failure.append(error)
