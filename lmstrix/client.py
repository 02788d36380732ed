"""`LMStrix`: wires parts together. The only place that knows concrete plug-ins by name."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import anyio
import attrs

from lmstrix.errors import ConfigurationError, ContextOverflow, LMStrixError
from lmstrix.events import Event, WaitingForTurn
from lmstrix.measure import sweep
from lmstrix.measure.loading import Forecast, forecast
from lmstrix.measure.options import BenchOptions, MapOptions, MeasureOptions
from lmstrix.measure.report import unmeasured_report
from lmstrix.measure.run import Measurement
from lmstrix.measure.state import Announcer, Level, its_turn, method_of
from lmstrix.models import (
    UNFINISHED,
    Cause,
    ContextMap,
    ContextReport,
    Environment,
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
    Adapters,
    as_store,
    as_strategy,
    as_validator,
)
from lmstrix.ports import Adapter, LoadedModel, Observer, SearchStrategy, Store, Validator
from lmstrix.progress import say_waiting
from lmstrix.search.bracketing import OneSize
from lmstrix.stores.export import Archive, ReportSummary, summarize
from lmstrix.stores.sqlite import SqliteStore
from lmstrix.validators.haystack import share_haystack

DEFAULT_STRATEGY = "bayes"
DEFAULT_LEVELS = ("coherence",)
REQUIRED_LEVELS = frozenset({"coherence"})
"""A model that no longer writes language does not work, however well it recalls."""
MAPPED = ("recall", "copy")
"""What a map asks."""
TIMED = "coherence"
"""Whose requests a benchmark makes: they are answered at some length."""


REPLY_TOKENS = 512
"""Largest reply of `LMStrix.infer` unless told otherwise."""
UNTESTED_CONTEXT = 4096
"""Context loaded for `LMStrix.infer` if nothing was measured, in tokens."""


Options = TypeVar("Options", MeasureOptions, MapOptions, BenchOptions)


def _options(options: Options | None, kind: type[Options]) -> Options:
    """`options`, or the defaults; raises `ConfigurationError` for those of another kind."""
    if options is None:
        return kind()
    if not isinstance(options, kind):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"the options are {kind.__name__}, not {options!r:.50}")
    return options


def _sequence_of(observers: Sequence[Observer]) -> Sequence[Observer]:
    """`observers`; raises `ConfigurationError` for one that is given alone."""
    if not isinstance(observers, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError("observers are a sequence of functions", hint="Give [observer].")
    return observers


class LMStrix:
    """Find out how much context a model really handles, and use it.

    Every part may be an object or a name: `adapter` (default ``lmstudio``, and ``llamacpp``
    for a model that is named by the path of a GGUF file), `strategy` (default ``bayes``),
    `validator` (default ``recall``), `levels` (what else is asked of what was read anyway:
    ``coherence`` is part of the true context, any other has a limit of its own) and `store`
    (default the durable one in the user's data folder; ``memory`` keeps nothing; a path is a file
    of its own). `host` is the ``HOST:PORT`` of the server of the adapter that is named, or of the
    default one; `adapter_settings` are its further settings. Without `adapter` a model's name is
    also looked for in `others`: names of further adapters, and their settings. Runs on asyncio and
    on trio, as far as the adapter does: ``lmstudio`` needs asyncio.

    Use it as an async context manager, or call `aclose`; nothing is left running either way,
    only the store's file stays open until then.

    Raises `ConfigurationError` for a name that nobody registered, and for a `host` that the adapter
    does not take.
    """

    def __init__(  # noqa: PLR0913 - by name only, each another part
        self,
        *,
        adapter: Adapter | str | None = None,
        host: str | None = None,
        strategy: SearchStrategy | str = DEFAULT_STRATEGY,
        validator: Validator | str = "recall",
        levels: Sequence[Validator | str] = DEFAULT_LEVELS,
        store: Store | str | Path | None = None,
        observers: Sequence[Observer] = (),
        adapter_settings: Mapping[str, object] | None = None,
        others: Mapping[str, Mapping[str, object]] | None = None,
    ) -> None:
        for name, value in (("adapter_settings", adapter_settings), ("others", others)):
            if value is not None and not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"{name} are a mapping, not {value!r:.50}")
        settings = dict(adapter_settings or {})
        if host is not None:
            if not isinstance(host, str):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise ConfigurationError(f"host is a text like HOST:PORT, not {host!r:.50}")
            settings["host"] = host
        if settings and not (adapter is None or isinstance(adapter, str)):
            raise ConfigurationError(
                f"{', '.join(settings)} cannot be combined with an adapter object",
                hint="Pass it to the adapter's constructor instead.",
            )
        if isinstance(levels, str):
            raise ConfigurationError("levels are a sequence of names", hint=f'Give ("{levels}",).')
        if not isinstance(levels, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"levels are a sequence of names, not {levels!r:.50}")
        self._adapters = Adapters(adapter, settings, others or {})
        self._strategy = as_strategy(strategy)
        # On one haystack, so that a level reads nothing that was not read for the validator.
        asked = share_haystack([as_validator(validator), *map(as_validator, levels)])
        self._validator = asked[0]
        self._levels = tuple(
            Level(validator=level, required=level.name in REQUIRED_LEVELS) for level in asked[1:]
        )
        self._store = as_store(store)
        self._observers = _sequence_of(observers)
        self._running: list[Measurement] = []

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
        """Close the store and unload any model that this client left loaded. Idempotent."""
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
        """The adapter that serves `model`: `adapter`, unless none was named and it is a GGUF file,
        or it was found in one of the others.
        """
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

    @asynccontextmanager
    async def session(self, models: Sequence[str | ModelInfo] = ()) -> AsyncGenerator[None]:
        """Ask the adapters of `models` over one connection each in this block, if they can.

        For several calls that load nothing: `list_models`, `known_reports`, `forecast`. Without
        `models` it is for the default adapter. Raises `ConfigurationError` if no adapter was named
        and several have one of `models`.
        """
        asked = [self.adapter_for(model) for model in models] or [self.adapter]
        async with AsyncExitStack() as stack:
            for adapter in {id(one): one for one in asked}.values():
                keep = getattr(adapter, "session", nullcontext)
                await stack.enter_async_context(keep())
            await self._adapters.look_for(model for model in models if isinstance(model, str))
            yield

    async def list_models(self) -> ModelList:
        """Every model that the adapter finds, sorted by key; a notebook shows it as a table."""
        return ModelList(await self.adapter.list_models())

    async def status(self) -> Status:
        """What the engine is, whether it answers, what is loaded."""
        return await self.adapter.status()

    async def other_servers(self) -> Sequence[Adapter]:
        """Those of the `others` that answer, if only that they want a key."""
        return await self._adapters.answering()

    async def reports(self) -> Sequence[StoredReport]:
        """Finished measurements, the newest of each kind, newest first."""
        return await self._store.reports()

    async def summaries(self) -> Sequence[ReportSummary]:
        """One line on each finished measurement, newest first; fast for thousands of them."""
        if isinstance(self._store, Archive):
            return await self._store.summaries()
        return [summarize(stored) for stored in await self._store.reports()]

    async def unfinished_models(self) -> Sequence[ModelInfo]:
        """Models whose measurement was interrupted and can be continued."""
        return await self._store.unfinished_models()

    async def find_true_context(
        self,
        model: str | ModelInfo,
        options: MeasureOptions | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> ContextReport:
        """Measure `model`: declared, loadable and true context, with evidence.

        Goes on with an interrupted measurement of the same kind. Cancelling releases the
        model within three seconds and keeps every trial; the last event has the report so far.
        With `MeasureOptions.only_at` it looks at that length alone, and keeps nothing.

        Raises `ModelNotFound`, `InvalidModel`, `UnsupportedModel` or `EngineUnavailable`;
        `ConfigurationError` for a length that is too short to ask anything at; and what
        `lmstrix.measure.run.Measurement.run` raises, which also says when a report has no number.
        """
        options = _options(options, MeasureOptions)
        measurement = await self._measurement(model, options, _sequence_of(observers))
        self._running.append(measurement)
        try:
            return await measurement.run()
        finally:
            self._running.remove(measurement)

    async def check_context(
        self,
        model: str | ModelInfo,
        length_tokens: int,
        options: MeasureOptions | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> SizeCheck:
        """Whether `model` handles `length_tokens`, and nothing else: it is loaded there, and the
        questions are asked there, after those at short length. Nothing is stored.

        Raises what `find_true_context` raises.
        """
        if type(length_tokens) is not int:
            raise ConfigurationError(f"a length is a number of tokens, not {length_tokens!r:.50}")
        options = attrs.evolve(_options(options, MeasureOptions), only_at=length_tokens)
        report = await self.find_true_context(model, options, observers=observers)
        return check_of(report, length_tokens)

    async def map_context(
        self,
        model: str | ModelInfo,
        options: MapOptions | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> ContextMap:
        """What `model` still knows, by length and depth: recall and verbatim copying.

        The document is read once, on an engine that reuses prefixes; each cell costs its
        questions. Nothing is stored. See `lmstrix.measure.sweep.map_context` for what it raises.
        """
        return await sweep.map_context(
            *await self._adapters.find(model),
            [as_validator(name) for name in MAPPED],
            _options(options, MapOptions),
            (*self._observers, *_sequence_of(observers)),
        )

    async def bench(
        self,
        model: str | ModelInfo,
        options: BenchOptions | None = None,
        *,
        observers: Sequence[Observer] = (),
    ) -> SpeedBench:
        """How fast `model` reads and writes, at lengths that double.

        Up to `BenchOptions.max_context`, or else the newest true context in the store. Nothing
        is stored. See `lmstrix.measure.sweep.bench` for what it raises.
        """
        options = _options(options, BenchOptions)
        adapter, info = await self._adapters.find(model)
        if options.max_context is None and (known := await self._known_context(info)):
            options = attrs.evolve(options, max_context=max(known, options.lengths(0)[0]))
        return await sweep.bench(
            adapter,
            info,
            as_validator(TIMED),
            options,
            (*self._observers, *_sequence_of(observers)),
        )

    @asynccontextmanager
    async def watch(
        self,
        model: str | ModelInfo,
        options: MeasureOptions | MapOptions | BenchOptions | None = None,
    ) -> AsyncGenerator[AsyncIterator[Event]]:
        """The events of a measurement, or of a map or a benchmark if `options` are theirs.

        The last event holds the report. Leaving the block early cancels the work::

            async with client.watch(model) as events:
                async for event in events:
                    ...

        At the end of the block it raises what the work raises.
        """

        async def work() -> None:
            nonlocal failure
            heard = [send.send_nowait]
            with send:
                try:
                    match options:
                        case MapOptions():
                            await self.map_context(model, options, observers=heard)
                        case BenchOptions():
                            await self.bench(model, options, observers=heard)
                        case _:
                            await self.find_true_context(model, options, observers=heard)
                except Exception as error:  # noqa: BLE001 - raised below, outside the group
                    failure = error

        send, receive = anyio.create_memory_object_stream[Event](math.inf)
        failure: BaseException | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            with receive:
                try:
                    yield receive
                except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001
                    failure = error  # raised below, outside the group
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def forecast(
        self, model: str | ModelInfo, options: MeasureOptions | None = None
    ) -> Forecast:
        """What `find_true_context` would try and read. Loads nothing.

        Raises what `find_true_context` raises before it loads anything.
        """
        options = _options(options, MeasureOptions)
        options.check_lengths(self._validator.baseline_length)
        return await forecast(*await self._adapters.find(model), options)

    async def known_reports(
        self, models: Sequence[ModelInfo], options: MeasureOptions | None = None
    ) -> Mapping[str, ContextReport]:
        """The stored results of those of `models` that `options` would measure the same way
        again, by the model's key.

        "The same way" is what the store keeps results under: the model's content, the adapter,
        the engine's version and the method; and the report must say all that is asked for. None
        with `MeasureOptions.fresh` or `only_at`.
        """
        options = _options(options, MeasureOptions)
        if not all(isinstance(model, ModelInfo) for model in models):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("known_reports takes models, as list_models returns them")
        if options.fresh or options.only_at is not None:
            return {}
        stored = {summary.key for summary in await self.summaries()}
        keys: dict[str, str] = {}
        for model in models:
            keys[model.key] = await (await self._measurement(model, options)).key()
        if stored.isdisjoint(keys.values()):
            return {}
        reports = {one.key: one.report for one in await self.reports()}
        return {
            name: reports[key]
            for name, key in keys.items()
            if key in reports and options.answered_by(reports[key])
        }

    async def give_up_loads(self) -> None:
        """Say that loads under way are being broken off, so that none counts as deadly.

        For a caller that cancels a measurement and may then end the process before it has come
        to its end. Raises nothing.
        """
        for measurement in self._running:
            await measurement.give_up_load()

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

    @asynccontextmanager
    async def stream(
        self,
        model: str | ModelInfo,
        prompt: str | Prompt,
        *,
        max_tokens: int = REPLY_TOKENS,
        context_length: int | None = None,
        on_note: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[AsyncIterator[ReplyChunk | Reply]]:
        """The same reply piece by piece; the last item is the whole `Reply`.

        Leaving the block early stops the model and releases it::

            async with client.stream(model, prompt) as pieces:
                async for piece in pieces:
                    ...

        `on_note` hears, before that, if another process has to end first, and if more than the
        true context may be needed.
        """
        ready = self._ready(model, prompt, max_tokens, context_length, on_note)
        async with (
            ready as (loaded, asked),
            aclosing(loaded.stream(asked, max_tokens=max_tokens)) as pieces,
        ):
            yield pieces

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
        for name, value in (("max_tokens", max_tokens), ("context_length", context_length)):
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigurationError(f"{name} must be at least 1, got {value!r:.50}")
        asked = _as_prompt(prompt)
        _check_text(asked)
        adapter, info = await self._adapters.find(model)
        tested = await self._known_context(info)
        length = (
            context_length
            or tested
            or min(UNTESTED_CONTEXT, info.declared_context or UNTESTED_CONTEXT)
        )

        def hear(event: Event) -> None:
            if on_note is not None and isinstance(event, WaitingForTurn):
                on_note(say_waiting(event))

        async with (
            its_turn(adapter, Announcer(info.key, (*self._observers, hear))),
            adapter.load(info, length) as loaded,
        ):
            if context_length and loaded.effective_context < context_length and on_note is not None:
                on_note(
                    f"Asked for {context_length:,} tokens, the engine loaded"
                    f" {loaded.effective_context:,}."
                )
            await _require_room(loaded, asked, max_tokens, tested=tested, on_note=on_note)
            yield loaded, asked

    def unmeasured(
        self, model: str | ModelInfo, error: LMStrixError, options: MeasureOptions | None = None
    ) -> ContextReport:
        """The report of a model that could not be measured at all; `error` says why."""
        options = _options(options, MeasureOptions)
        return unmeasured_report(
            model=ModelInfo(key=model) if isinstance(model, str) else model,
            error=error,
            method=method_of(options, self._strategy, self._validator, self._levels),
            environment=Environment(adapter=self.adapter_for(model).name),
        )

    async def _measurement(
        self,
        model: str | ModelInfo,
        options: MeasureOptions,
        observers: Sequence[Observer] = (),
    ) -> Measurement:
        strategy, store = self._strategy, self._store
        options.check_lengths(self._validator.baseline_length)
        if options.only_at is not None:
            options = options.at_one_size()
            strategy, store = OneSize(), SqliteStore(":memory:")
        adapter, info = await self._adapters.find(model)
        return Measurement(
            adapter=adapter,
            model=info,
            strategy=strategy,
            validator=self._validator,
            levels=self._levels,
            store=store,
            options=options,
            observers=(*self._observers, *observers),
        )

    async def _known_context(self, model: ModelInfo) -> int | None:
        """The newest true context of this very model, None if there is none. One that
        `max_context` ended says nothing against a larger one.
        """
        at_least = 0
        for known in await self.summaries():
            same = known.model_identity == model.identity
            if same and known.true_context and known.cause not in UNFINISHED:
                if known.cause is not Cause.MAX_CONTEXT:
                    return max(at_least, known.true_context)
                at_least = max(at_least, known.true_context)
        return at_least or None


def _as_prompt(prompt: object) -> Prompt:
    """A text is what the user says. Raises `ConfigurationError`."""
    if isinstance(prompt, str):
        return Prompt(user=prompt)
    if not isinstance(prompt, Prompt):
        raise ConfigurationError(f"a prompt is a str or a Prompt, not {prompt!r:.50}")
    return prompt


def _check_text(prompt: Prompt) -> None:
    """Raises `ConfigurationError` for a prompt that cannot be sent."""
    for text in (prompt.system, prompt.user, prompt.answer_prefix):
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"the texts of a prompt are str, not {text!r:.50}")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(
                "the prompt contains a lone surrogate, which is not valid Unicode"
            ) from None


async def _require_room(
    loaded: LoadedModel,
    prompt: Prompt,
    max_tokens: int,
    *,
    tested: int | None,
    on_note: Callable[[str], None] | None = None,
) -> None:
    """Count the prompt with the model's own tokenizer and template.

    `tested` is the true context of this model in tokens, None if it is not known; `on_note`
    hears a sentence for the user if prompt and reply fit, but may need more than that. Raises
    `ContextOverflow`, which says what would fit, if prompt and reply do not.
    """
    tokens = await loaded.count_prompt_tokens(prompt)
    context = loaded.effective_context
    needed = tokens + max_tokens
    if needed <= context:
        if tested is not None and needed > tested and on_note is not None:
            on_note(
                f"Prompt and reply may need {needed:,} tokens; the true context of this model is"
                f" {tested:,}. Beyond it, replies may be wrong."
            )
        return
    declared = loaded.model.declared_context
    about = "" if getattr(loaded, "has_tokenizer", True) else "about "
    raise ContextOverflow(
        f"the prompt is {about}{tokens:,} tokens long; with {max_tokens:,} for the reply it does"
        f" not fit the context of {context:,} that is loaded (tested:"
        f" {f'{tested:,}' if tested else 'not yet'}, declared:"
        f" {f'{declared:,}' if declared else 'unknown'})",
        prompt_tokens=tokens,
        context_length=context,
        hint=_advice(tokens, max_tokens, context, tested=tested, declared=declared),
    )


def _advice(
    tokens: int, max_tokens: int, context: int, *, tested: int | None, declared: int | None
) -> str:
    """What would make it fit, one sentence."""
    ways = ["Shorten the prompt"]
    if tokens < context:
        ways.append(f"allow a reply of at most {context - tokens:,} tokens (--max-tokens)")
    needed = tokens + max_tokens
    if needed <= (declared or needed):
        beyond = (
            "" if tested is None or needed <= tested else ", which is more than was found to work"
        )
        ways.append(f"load a context of at least {needed:,} (--context {needed}){beyond}")
    said = ", or ".join(ways) + "."
    return said if tested else f"{said} What it really handles is not known: see `lmstrix test`."
